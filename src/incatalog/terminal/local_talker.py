"""A model of this process that answers in a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from incatalog.assistant.assistant import Assistant
from incatalog.assistant.voices import VoiceChoice
from incatalog.data.catalog import Catalog
from incatalog.data.where import Where
from incatalog.dialogue.render import ItemRef, Message, Part, Text
from incatalog.model.spec import described
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.item_names import ItemNames
from incatalog.recommender.recommender import Recommender
from incatalog.steering.labels import phrases
from incatalog.terminal.talker import (
    Continued,
    Found,
    Piece,
    ShownItem,
    SpokenTurn,
    Understood,
    UnderstoodFilter,
    refusal,
)

_CERTAIN = 100.0


class LocalTalker:
    """Answers with recommenders of one model, by the names of their catalogs."""

    def __init__(
        self,
        recommenders: Mapping[str, Recommender],
        *,
        max_tokens: int = 512,
        voice: VoiceChoice = "auto",
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        """Takes at least one recommender, and how answers are written."""
        self._recommenders = dict(recommenders)
        self._assistants = {n: Assistant.of(one, voice) for n, one in recommenders.items()}
        self._max_tokens = max_tokens
        self._sampling = {"temperature": temperature, "seed": seed}
        self._names: dict[str, ItemNames] = {}

    @property
    def described(self) -> str:
        """The model, the device and the guides."""
        first = next(iter(self._recommenders.values()))
        guided = [name for name, one in self._recommenders.items() if one.guide is not None]
        by = f", {', '.join(guided)} guided by a teacher" if guided else ""
        return f"{described(first.spec)} on {first.engine.model.device}{by}"

    @property
    def domains(self) -> Sequence[str]:
        """Names of the catalogs."""
        return tuple(self._recommenders)

    def stream(self, asked: Continued) -> Iterator[Piece | Understood]:
        """What was understood, and the answer in pieces."""
        if asked.domain is None:
            yield from self._plain(asked)
            return
        catalog = self._recommenders[asked.domain].catalog
        messages = [_message(turn, catalog) for turn in asked.turns]
        how: Any = {"where": asked.where, "usual_tokens": self._max_tokens, **self._sampling}
        how |= {"history": asked.history, "filters_off": asked.filters_off}
        plan, pieces = self._assistants[asked.domain].planned_stream(messages, **how)
        lacking = () if plan.wish is None else (*plan.wish.lacking, *plan.wish.unmentioned)
        yield Understood(
            tuple(
                UnderstoodFilter(label, tuple(one.id for one in filters))
                for label, filters in phrases(plan.filters)
            ),
            lacking,
        )
        with contextlib.closing(pieces):  # type: ignore[type-var]
            for piece in pieces:
                yield piece if isinstance(piece, str) else shown_item(piece, catalog)

    def find(self, domain: str, name: str) -> list[Found]:
        """Items that a name may have meant."""
        if domain not in self._names:
            self._names[domain] = ItemNames(self._recommenders[domain].catalog)
        names, catalog = self._names[domain], self._recommenders[domain].catalog
        exact = [(row, _CERTAIN) for row in names.rows(name)]
        found = exact or names.alike(name)
        items = [(catalog.item(row), likeness) for row, likeness in found]
        return [Found(item.item_id, item.title, likeness) for item, likeness in items]

    def check(self, domain: str, where: Where) -> None:
        """Refuses conditions that no item fulfils."""
        catalog = self._recommenders[domain].catalog
        if not where.rows(catalog, "/filter").any():
            raise refusal(where, catalog.num_live)

    def _plain(self, asked: Continued) -> Iterator[Piece]:
        """What the model says without any catalog."""
        recommender = next(iter(self._recommenders.values()))
        messages = [Message(turn.role, (Text(turn.text),)) for turn in asked.turns]
        how: Any = {"max_new_tokens": self._max_tokens, **self._sampling}
        request = recommender.prompts.chat_request(messages, items=False, **how)
        text = recommender.answer_text()
        with contextlib.closing(recommender.engine.generate([request])) as events:
            for event in events:
                yield from (str(piece) for piece in text.feed(event))


def shown_item(one: Recommendation, catalog: Catalog) -> ShownItem:
    """An item of an answer with what the catalog says of it."""
    item = catalog.item(catalog.row(one.item_id))
    facts = [("categories", ", ".join(item.categories))] if item.categories else []
    facts += [(known["label"], known["shown"]) for known in catalog.shown(item)]
    return ShownItem(one.item_id, one.title, one.score, one.reason, tuple(facts))


def _message(turn: SpokenTurn, catalog: Catalog) -> Message:
    """A turn as the model reads it; an item that has left the catalog is its title."""
    parts: list[Part] = []
    for piece in turn.pieces:
        if isinstance(piece, ShownItem) and catalog.has(piece.item_id):
            parts.append(ItemRef(catalog.row(piece.item_id)))
        else:
            parts.append(Text(piece if isinstance(piece, str) else piece.title))
    return Message(turn.role, tuple(parts))
