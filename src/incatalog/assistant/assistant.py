"""The assistant: plans a turn of a conversation, and answers it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from incatalog.assistant.answers import Answering
from incatalog.assistant.facts import Facts
from incatalog.assistant.invented import Name, names_in
from incatalog.assistant.known_names import known_names
from incatalog.assistant.plan_maker import PlanMaker
from incatalog.assistant.planning import Enquiry, Plan
from incatalog.assistant.script import Said, Script, in_order
from incatalog.assistant.voices import Voice, VoiceChoice, voice_of
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.events import FinishReason
from incatalog.dialogue.render import ItemRef, Message, Part, Text
from incatalog.recommender.answer import Recommendation
from incatalog.recommender.prompts import ChatMessage, as_message, weighed_request
from incatalog.recommender.recommender import Recommender
from incatalog.steering.wish import Filter

Within = Callable[[Sequence[int]], bool]
"""Whether messages, given by their places, are as many as may be looked at."""


@dataclass(frozen=True)
class AssistantAnswer:
    """What the assistant said.

    Attributes:
        text: The answer, with titles in place of item spans.
        items: The items it names, in the order of the text, each with its reason.
        message: The same as a turn, to be put before the user's next one.
        finish_reason: Why it ended.
        filters: What was understood as conditions that every item fulfils.
        unknown: Ids of the history that the catalog has not.
        left_out: Oldest messages that were too many for the model.
        invented: Names in the model's prose that are no items.
        mentions: Where the text names items besides ``items``.
    """

    text: str
    items: tuple[Recommendation, ...]
    message: Message
    finish_reason: FinishReason
    filters: tuple[Filter, ...]
    unknown: tuple[str, ...]
    left_out: int
    invented: int
    mentions: tuple[Name, ...]


@dataclass(frozen=True, eq=False)
class Assistant:
    """Holds conversations about a catalog, with any chat model.

    A model that was trained on the catalog writes its own answers. For one that was not, each turn
    is planned: items are named where some are asked for, in a frame that the assistant writes, each
    the best one that guide and wish know; questions about items are answered with what is known;
    and the model talks otherwise, but names nothing that is no item.

    Attributes:
        recommender: The model on its catalog, with its guide, and with the steering that reads what
            is said; without one, a few rules tell whether items are asked for, and weigh none.
        voice: Who speaks of items, where a question does not say.
    """

    recommender: Recommender
    voice: Voice = "facts"
    _facts: Facts | None = field(default=None, repr=False)

    @classmethod
    def of(cls, recommender: Recommender, voice: VoiceChoice = "auto") -> Assistant:
        """The assistant of a recommender; ``auto`` is ``facts`` below a billion parameters."""
        return cls(recommender, voice_of(voice, recommender.backbone))

    def answer(
        self, messages: Sequence[ChatMessage], *, history: Sequence[str] = (), **asked: Any
    ) -> AssistantAnswer:
        """Answers the last message of a conversation.

        Args:
            messages: Mappings with ``role`` and ``content``, or the ``message`` of an earlier
                answer, in which items stay items.
            history: Ids of the user's items, oldest first.
            asked: The other fields of :class:`~incatalog.assistant.planning.Enquiry`.

        Raises:
            CatalogError: An item or category is not in the catalog.
            ContextLengthError: The last message alone is too long.
            DataError: A message is malformed.
            NoItemLeftError: The exclusions leave no item at all.
            TeacherError: The guide does not answer.
        """
        plan, script = self._begun(messages, history, asked)
        said = Transcript(self.recommender)
        for one in self._played(script):
            said.add(one)
        named = self.names(said.text, said.spans)
        ending = script.ending
        return AssistantAnswer(
            said.text,
            tuple(said.items),
            Message("assistant", tuple(said.parts)),
            ending.reason,
            tuple(plan.filters),
            tuple(plan.unknown),
            len(messages) - len(plan.places),
            ending.invented + (sum(n.row is None for n in named) if plan.act == "own" else 0),
            tuple(name for name in named if name.row is not None),
        )

    def stream(
        self, messages: Sequence[ChatMessage], *, history: Sequence[str] = (), **asked: Any
    ) -> Iterator[Said]:
        """Answers as :meth:`answer` does, in pieces: text, and items in place of their titles."""
        _, script = self._begun(messages, history, asked)
        return self._played(script)

    def plan(self, asked: Enquiry, within: Within | None = None) -> Plan:
        """How a turn is answered; ``within`` bounds the messages that are looked at."""
        return PlanMaker(self.recommender, self.voice).plan(asked, within)

    def plain(self, asked: Enquiry, within: Within | None = None) -> Plan:
        """How a turn is answered that names no item: as the model would by itself."""
        return PlanMaker(self.recommender, self.voice).plain(asked, within)

    def script(self, plan: Plan, weights: ItemWeights | None = None) -> Script:
        """The answer to a plan, whose items are weighed by what :meth:`weights` says."""
        request = plan.request
        if request is not None and plan.names_items:
            request = weighed_request(request, plan.excluded, weights)
        guide, wish = self.recommender.guide, plan.wish
        steered = wish is not None and (wish.log_weights is not None or bool(wish.filters))
        popular = guide is not None and guide.empty == "popularity"
        popular = popular and not plan.history and not steered
        return Answering(self.recommender, self.facts, plan, popular).script(request)

    def names(self, text: str, spans: Sequence[tuple[int, int]]) -> list[Name]:
        """Where a text names items outside of some places, or what looks like items and is none."""
        for start, end in spans:
            text = text[:start] + "," * (end - start) + text[end:]
        return names_in(text, known_names(self.recommender.items))

    @cached_property
    def facts(self) -> Facts:
        """What the catalog says of its items."""
        return self._facts or Facts(self.recommender.catalog)

    def _begun(
        self, messages: Sequence[ChatMessage], history: Sequence[str], asked: Any
    ) -> tuple[Plan, Script]:
        turns = tuple(map(as_message, messages))
        enquiry = Enquiry(turns, history, **asked)
        plan = self.plan(enquiry)
        weights = None
        if plan.names_items:
            [weights] = self.recommender.weights(
                [plan.history],
                [plan.excluded],
                "list",
                enquiry.boost,
                enquiry.guide_weight,
                None if plan.wish is None else plan.wish.log_weights,
            )
        return plan, self.script(plan, weights)

    def _played(self, script: Script) -> Iterator[Said]:
        yield from script.begin()
        while requests := script.take_requests():
            with contextlib.closing(self.recommender.engine.generate(requests)) as events:
                for event in in_order(events, len(requests)):
                    yield from script.feed(event)
                    if script.over:
                        break


class Transcript:
    """What has been said: its text, and its items with their places."""

    def __init__(self, recommender: Recommender) -> None:
        self._catalog = recommender.catalog
        self.text = ""
        self.items: list[Recommendation] = []
        self.spans: list[tuple[int, int]] = []
        self.parts: list[Part] = []

    def add(self, said: Said) -> None:
        """Adds what is said next."""
        start = len(self.text)
        if isinstance(said, Recommendation):
            self.items.append(said)
            self.text += said.title
            self.spans.append((start, len(self.text)))
            self.parts.append(ItemRef(self._catalog.row(said.item_id)))
            return
        self.text += said
        match self.parts:
            case [*_, Text(before)]:
                self.parts[-1] = Text(before + said)
            case _:
                self.parts.append(Text(said))
