"""The items that follow a history, over HTTP and without any prose."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request

from incatalog.config import ItemDecode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.request import Request as EngineRequest
from incatalog.decoding.request import Slot
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.guide import Kind
from incatalog.recommender.recommender import Recommender
from incatalog.serving.answer_schemas import Recommendations
from incatalog.serving.any_worker import AnyWorker
from incatalog.serving.catalogs import Domain
from incatalog.serving.chat_answer import answer_item, check_items
from incatalog.serving.event_stream import unless_gone
from incatalog.serving.guiding import Guiding
from incatalog.serving.limits import Limits
from incatalog.serving.problems import PROBLEMS, find_domain
from incatalog.serving.question_schemas import RecommendationRequest
from incatalog.serving.settings import ServeSettings


@dataclass
class RecommendationEndpoints:
    """Answers questions about items."""

    domains: Mapping[str, Domain]
    settings: ServeSettings
    worker: AnyWorker
    guiding: Guiding

    def __post_init__(self) -> None:
        self._limits = Limits(self.settings, self.domains)

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoint to an application."""

        @app.post("/v1/recommendations", responses=PROBLEMS)
        async def recommendations(body: RecommendationRequest, request: Request) -> Recommendations:
            """The items that follow a history, without any text."""
            self._limits.check_question(body, body.k)
            if body.domain is None and len(self.domains) == 1:
                domain = next(iter(self.domains.values()))
            else:
                domain = find_domain(self.domains, body.domain or "")
            version = await self._limits.version_of(domain, body)
            model, catalog = version.recommender, version.catalog
            unknown = check_items(body, catalog)
            history = catalog.rows(filter(catalog.has, body.history)).tolist()
            rules = body.exclude, body.categories, history, body.exclude_seen, body.conditions
            # A field that was not asked about before is looked up for all items.
            excluded = await asyncio.to_thread(model.excluded, *rules)
            finding = self._found(model, body, history, excluded)
            async with asyncio.timeout(self.settings.timeout):
                found, guided = await unless_gone(request, finding)
            return Recommendations(
                domain=domain.name,
                catalog_version=version.number,
                guided=guided,
                items=[answer_item(catalog, one) for one in found],
                unknown=unknown,
            )

    async def _found(
        self,
        model: Recommender,
        body: RecommendationRequest,
        history: Sequence[int],
        excluded: ExcludedItems,
    ) -> tuple[list[Recommendation], bool | None]:
        """The items, and whether a guide counted."""
        kind: Kind = "ranking" if body.decode == "beam" else "list"
        weighed = await self.guiding.weigh(model, body, history, excluded, kind)
        usual = "decode" not in body.model_fields_set
        if usual and self.worker.item_decode(weighed.weights) == "token":
            # The default where an engine does not search; what is asked for, it refuses.
            greedy = body.model_copy(update={"decode": "greedy"})
            return await self._found(model, greedy, history, excluded)
        how: Any = {"excluded": excluded, "weights": weighed.weights}
        if kind == "ranking":
            found = await self._ranked(model, model.slot(history, body.k, **how), body.k)
        else:
            by: ItemDecode = "search" if body.decode == "list" else "token"
            asked = model.list_request(history, body.k, item_decode=by, **how)
            found = await self._listed(model, asked)
        return found, weighed.guided

    async def _listed(self, model: Recommender, asked: EngineRequest) -> list[Recommendation]:
        """A list that is written beside the other answers."""
        stream = self.worker.submit(asked)
        try:
            text = model.answer_text()
            async for events in stream.batches(self.settings.timeout):
                for event in events:
                    deque(text.feed(event), maxlen=0)
            return list(text.answer().items)
        finally:
            self.worker.cancel(stream)

    async def _ranked(self, model: Recommender, slot: Slot, k: int) -> list[Recommendation]:
        """The items of the first place, by their exact probability."""
        found = model.ranking(await self.worker.rank(model.beam, slot, k))
        if not found:
            raise model.items.no_item_left()
        return found
