"""What a recommender says in conversations, and what weighs the items it names."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.data.where import EVERYTHING, Where
from incatalog.decoding.engine import Engine
from incatalog.decoding.request import Request
from incatalog.recommender.answer import Answer, AnswerText, Recommendation
from incatalog.recommender.guide import Guide, Kind, LogWeights, item_weights
from incatalog.recommender.items import ModelItems
from incatalog.recommender.mentions import conversation_items
from incatalog.recommender.prompts import ChatMessage, Prompts, as_message
from incatalog.steering.steering import Steering
from incatalog.steering.wish import Wish
from incatalog.teacher.row_lists import RowLists


class Talking:
    """A model on a catalog that holds conversations, alone or guided."""

    engine: Engine
    items: ModelItems
    prompts: Prompts
    guide: Guide | None
    steering: Steering | None = None

    def wish(self, messages: Sequence[ChatMessage], off: Collection[str] = ()) -> Wish:
        """What a conversation wants of the items; nothing where the recommender has no steering.

        Args:
            messages: As in :meth:`chat`.
            off: Ids of filters that were taken off.
        """
        if self.steering is None:
            return Wish()
        return self.steering.read([as_message(one) for one in messages], off=off)

    def weights(
        self,
        histories: RowLists,
        excluded: Sequence[ExcludedItems | None],
        kind: Kind,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
        steer: LogWeights | None = None,
    ) -> list[ItemWeights | None]:
        """The weights of the items after each history (item rows): guide, boosts, exclusions.

        None where the model decides alone; see :func:`~incatalog.recommender.guide.item_weights`.
        """
        how: Any = {"boost": boost, "share": guide_weight, "steer": steer}
        return item_weights(self.guide, histories, self.items, excluded, kind, **how)

    def chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        history: Sequence[str] = (),
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
        where: Where = EVERYTHING,
        steer: bool = True,
    ) -> Answer:
        """Answers the last message of a conversation.

        Without a history, a guide sees what the conversation names: its items, and the titles in
        the user's messages (:mod:`~incatalog.recommender.mentions`). An answer names no item of the
        history, and a guided one none that it sees.

        Args:
            messages: Mappings with ``role`` (system, user, assistant) and ``content``, or the
                ``message`` of an earlier answer, in which items stay items.
            history: Ids of the user's items, oldest first; the newest follow the last message, in
                the words the model was trained with.
            exclude: As in :meth:`recommend`.
            categories: Likewise.
            max_new_tokens: Tokens of the answer at most.
            temperature: Divides the scores before sampling; 0 decodes greedily.
            seed: Seed of the samples.
            boost: As in :meth:`recommend`.
            guide_weight: Likewise.
            where: Likewise.
            steer: Let what is said weigh and choose the items, where the recommender has a steering
                (docs/steering.md).

        Raises:
            CatalogError: An item, category or field is not in the catalog.
            DataError: A message is malformed.
            NoItemLeftError: The exclusions leave no item at all.
            TeacherError: The guide does not answer.
        """
        how: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        rules: Any = {"exclude": exclude, "categories": categories, "boost": boost}
        rules |= {"where": where, "steer": steer}
        text = self.answer_text()
        request = self._turn(messages, history, guide_weight, how, **rules)
        for _ in self._read(request, text):
            pass
        return text.answer()

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        history: Sequence[str] = (),
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
        where: Where = EVERYTHING,
        steer: bool = True,
    ) -> Iterator[str | Recommendation]:
        """Answers as :meth:`chat` does, in pieces: text, and items in place of their titles.

        Between two pieces the recommender may be used for anything else, by any thread. To give an
        answer up before its end, close the stream, or keep no reference to it.
        """
        how: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        rules: Any = {"exclude": exclude, "categories": categories, "boost": boost}
        rules |= {"where": where, "steer": steer}
        request = self._turn(messages, history, guide_weight, how, **rules)
        return self._read(request, self.answer_text())

    def _turn(
        self,
        messages: Sequence[ChatMessage],
        history: Sequence[str],
        guide_weight: float | None,
        how: Mapping[str, Any],
        *,
        exclude: Sequence[str],
        categories: Sequence[str],
        boost: Mapping[str, float] | None,
        where: Where = EVERYTHING,
        steer: bool = True,
    ) -> Request:
        rows = seen = self.items.catalog.rows(history).tolist()
        # Without a guide nobody asks what the conversation names.
        if not rows and self.guide is not None and guide_weight != 0:
            seen = conversation_items(messages, self.items)
        wish = self.wish(messages) if steer else Wish()
        gone, held = [*seen, *wish.without], where.joined(wish.where)
        excluded = self.items.excluded(exclude, categories, gone, True, held)
        how_much: Any = {"guide_weight": guide_weight, "steer": wish.log_weights}
        [weights] = self.weights([seen], [excluded], "list", boost, **how_much)
        told: Any = {"history": rows, "excluded": excluded, "weights": weights}
        return self.prompts.chat_request(messages, **told, **how)

    def answer_text(self) -> AnswerText:
        """What turns the events of one answer into text and items of this catalog."""
        return AnswerText(self.items)

    def _read(self, request: Request, text: AnswerText) -> Iterator[str | Recommendation]:
        with contextlib.closing(self.engine.generate([request])) as events:
            for event in events:
                yield from text.feed(event)
