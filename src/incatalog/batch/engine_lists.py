"""Lists that another engine writes, any number of users side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from incatalog.batch.settings import BatchSettings
from incatalog.batch.user_table import UserRow
from incatalog.decoding.events import Event, ItemDone
from incatalog.decoding.following import check_followed
from incatalog.decoding.request import Request
from incatalog.recommender.answer import Recommendation, recommendations
from incatalog.recommender.weighed_histories import ListRules, weighed_histories
from incatalog.vllm.started import engine_of

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender


class EngineLists:
    """Lists of a language model that vLLM holds, guided if it has a guide.

    Args:
        recommender: Loaded without weights.
        settings: The settings.
        rules: The rules of all lists.

    Raises:
        BackboneError: vLLM does not start.
        ConfigError: The lists would have to be searched for, or an argument cannot work.
        MissingExtraError: vLLM is not installed.
    """

    def __init__(
        self, recommender: Recommender, settings: BatchSettings, rules: Mapping[str, Any]
    ) -> None:
        self._recommender, self._batch = recommender, settings.batch_size
        how = settings.named("exclude_seen", "decode")
        self._rules, self._k = {**how, **rules}, recommender.items.at_most(settings.k)
        # Before vLLM starts, which takes a minute.
        for request in self._requests([UserRow("", ())]):
            check_followed(request)
        self._engine = engine_of(
            recommender,
            settings.model,
            rows=settings.batch_size,
            arguments=settings.vllm,
            device=settings.device,
        )
        self._loop = asyncio.new_event_loop()

    def close(self) -> None:
        """Ends vLLM's process."""
        self._engine.close()
        self._loop.close()

    def lists(self, users: Sequence[UserRow]) -> list[list[Recommendation]]:
        """See :meth:`ListMaker.lists`."""
        return self._loop.run_until_complete(self._lists(self._requests(users)))

    def _requests(self, users: Sequence[UserRow]) -> list[Request]:
        rules = ListRules(
            **self._rules,
            excludes=[user.exclude for user in users],
            boosts=[user.boost for user in users],
        )
        histories = [user.history for user in users]
        return [
            one.request(self._recommender, self._k, rules.written)
            for part in weighed_histories(self._recommender, histories, rules, self._batch)
            for one in part
        ]

    async def _lists(self, requests: Sequence[Request]) -> list[list[Recommendation]]:
        return list(await asyncio.gather(*map(self._list, requests)))

    async def _list(self, request: Request) -> list[Recommendation]:
        done: list[ItemDone] = []
        async with aclosing(self._engine.answer(request)) as batches:
            async for events in batches:
                done += _items(events)
        rows, logprobs = [one.item_row for one in done], [one.logprob for one in done]
        return recommendations(self._recommender.catalog, rows, logprobs)


def _items(events: Sequence[Event]) -> list[ItemDone]:
    return [event for event in events if isinstance(event, ItemDone)]
