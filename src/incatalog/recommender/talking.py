"""What a recommender says in conversations, and what weighs the items it names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.request import Request
from incatalog.recommender.answer import Answer, AnswerText, Recommendation
from incatalog.recommender.guide import Guide, Kind, item_weights
from incatalog.recommender.items import ModelItems
from incatalog.recommender.mentions import conversation_items
from incatalog.recommender.prompts import ChatMessage, Prompts
from incatalog.teacher.row_lists import RowLists


class Talking:
    """A model on a catalog that holds conversations, alone or guided."""

    engine: Engine
    items: ModelItems
    prompts: Prompts
    guide: Guide | None

    def weights(
        self,
        histories: RowLists,
        excluded: Sequence[ExcludedItems | None],
        kind: Kind,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
    ) -> list[ItemWeights | None]:
        """The weights of the items after each history (item rows): guide, boosts, exclusions.

        None where the model decides alone; see :func:`~incatalog.recommender.guide.item_weights`.
        """
        how: Any = {"boost": boost, "share": guide_weight}
        return item_weights(self.guide, histories, self.items, excluded, kind, **how)

    def chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
    ) -> Answer:
        """Answers the last message of a conversation.

        The history that a guide sees is what the conversation names: its items, and the titles in
        the user's messages (:mod:`~incatalog.recommender.mentions`). A guided answer names none of
        them again.

        Args:
            messages: Mappings with ``role`` (system, user, assistant) and ``content``, or the
                ``message`` of an earlier answer, in which items stay items.
            exclude: As in :meth:`recommend`.
            categories: Likewise.
            max_new_tokens: Tokens of the answer at most.
            temperature: Divides the scores before sampling; 0 decodes greedily.
            seed: Seed of the samples.
            boost: As in :meth:`recommend`.
            guide_weight: Likewise.

        Raises:
            CatalogError: An item or category is not in the catalog.
            DataError: A message is malformed.
            NoItemLeftError: The exclusions leave no item at all.
            TeacherError: The guide does not answer.
        """
        text, named = self.answer_text(), self._named(messages, guide_weight)
        excluded = self.items.excluded(exclude, categories, named, True)
        how: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        [weights] = self.weights([named], [excluded], "list", boost, guide_weight)
        request = self.prompts.chat_request(messages, excluded=excluded, weights=weights, **how)
        for _ in self._read(request, text):
            pass
        return text.answer()

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        boost: Mapping[str, float] | None = None,
        guide_weight: float | None = None,
    ) -> Iterator[str | Recommendation]:
        """Answers as :meth:`chat` does, in pieces: text, and items in place of their titles.

        Between two pieces the recommender may be used for anything else, by any thread. To give an
        answer up before its end, close the stream, or keep no reference to it.
        """
        named = self._named(messages, guide_weight)
        excluded = self.items.excluded(exclude, categories, named, True)
        how: Any = {"max_new_tokens": max_new_tokens, "temperature": temperature, "seed": seed}
        [weights] = self.weights([named], [excluded], "list", boost, guide_weight)
        request = self.prompts.chat_request(messages, excluded=excluded, weights=weights, **how)
        return self._read(request, self.answer_text())

    def _named(self, messages: Sequence[ChatMessage], guide_weight: float | None) -> list[int]:
        """The history that a guide sees; without one nobody asks what the conversation names."""
        if self.guide is None or guide_weight == 0:
            return []
        return conversation_items(messages, self.items)

    def answer_text(self) -> AnswerText:
        """What turns the events of one answer into text and items of this catalog."""
        return AnswerText(self.items)

    def _read(self, request: Request, text: AnswerText) -> Iterator[str | Recommendation]:
        with contextlib.closing(self.engine.generate([request])) as events:
            for event in events:
                yield from text.feed(event)
