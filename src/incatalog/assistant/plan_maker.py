"""Makes the plan of an answer: reads the conversation, and asks the engine for what it takes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from incatalog.assistant.facts import AskedFor
from incatalog.assistant.having import Having, having, name_asked_for
from incatalog.assistant.invented import names_in
from incatalog.assistant.known_names import known_names
from incatalog.assistant.plan import (
    Act,
    act_of,
    asked_about,
    asked_count,
    asks_which,
    last_items,
    said_by,
)
from incatalog.assistant.planning import Enquiry, Plan
from incatalog.assistant.shortening import last_turn, shortened
from incatalog.assistant.voices import TALK_TOKENS, Voice, in_plain_text, talk_messages
from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.request import Request
from incatalog.dialogue.render import Message
from incatalog.errors import CatalogError, ContextLengthError, DataError
from incatalog.recommender.mentions import conversation_items
from incatalog.recommender.recommender import Recommender
from incatalog.recommender.spotting import with_listed_items
from incatalog.steering.labels import phrases
from incatalog.steering.wish import Wish

# Items of a list, where nobody says how many.
USUAL_COUNT = 5
# Part of the context that is kept free for the answer where a conversation is shortened.
_ANSWERS_SHARE = 4
_DISLIKES = re.compile(
    r"\b(?:hate[ds]?|dislike[ds]?|detest(?:s|ed)?|loathe[ds]?|boring|bored|awful|terrible|worst|"
    r"bad|not|never|no|without|except|unlike|don['’]?t|didn['’]?t|can['’]?t|isn['’]?t|wasn['’]?t)\b",
    re.IGNORECASE,
)
_LIKENESS = re.compile(r"\b(?:like|similar|more of|such as|close to)\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[.!?;,\n]|\bbut\b|\band\b", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class PlanMaker:
    """Plans the answers of one model on one catalog.

    Attributes:
        recommender: The model on its catalog.
        voice: Who speaks of items, where a question does not say.
    """

    recommender: Recommender
    voice: Voice

    def plan(self, asked: Enquiry, within: Callable[[Sequence[int]], bool] | None) -> Plan:
        """How a turn is answered, in the domain of the catalog."""
        model, trained = self.recommender, self.recommender.spec.trained
        _check_last(asked.messages)
        listed = [with_listed_items(message, model.items) for message in asked.messages]
        asked = replace(asked, messages=listed)
        own, unknown = self._history(asked)
        wish = None
        if model.steering is not None and asked.steer:
            wish = model.steering.read(asked.messages, off=asked.filters_off)
        found = None if trained else self._having(asked, wish)
        act, count, about = self._act(asked, wish, found)
        pointed = self._pointed(asked, about) if act == "recommend" else []
        history, shown = self._seen(asked, own, pointed)
        excluded, nothing_fits = self._excluded(asked, wish, [*history, *shown])
        how: dict[str, Any] = {
            "excluded": excluded,
            "temperature": asked.temperature,
            "top_p": asked.top_p,
            "seed": asked.seed,
            "item_decode": asked.item_decode,
        }

        def request(messages: Sequence[Message]) -> Request | None:
            if act == "own":
                most = asked.max_new_tokens or asked.usual_tokens
                return model.chat_request(
                    messages, history=own, k=count or None, max_new_tokens=most, **how
                )
            if act == "recommend" and not nothing_fits:
                plain = [in_plain_text(message, model.catalog) for message in messages]
                most = asked.max_new_tokens or _EVERYTHING
                return model.chat_request(
                    plain, history=history, k=count, max_new_tokens=most, **how
                )
            if act == "talk":
                told = talk_messages(messages, model.catalog)
                usual = TALK_TOKENS[asked.voice or self.voice]
                most = min(usual, asked.max_new_tokens or usual)
                talking = how | {"excluded": None, "max_new_tokens": most}
                return model.chat_request(told, items=False, **talking)
            return None

        places = self._places(asked, request, within)
        messages = [asked.messages[place] for place in places]
        return Plan(
            act=act,
            request=request(messages),
            messages=messages,
            places=places,
            history=history,
            mentioned=frozenset(history).difference(own),
            excluded=excluded,
            count=count,
            about=about,
            named=replace(
                _named(asked, wish, [model.catalog.titles[row] for row in history]),
                missing=found is not None and found.missing,
            ),
            wish=wish,
            filters=() if wish is None else wish.filters,
            unknown=unknown,
            voice=asked.voice or self.voice,
            limit=None if trained else asked.max_new_tokens,
            nothing_fits=nothing_fits and act == "recommend",
            having=found if act == "explain" else None,
        )

    def plain(self, asked: Enquiry, within: Callable[[Sequence[int]], bool] | None) -> Plan:
        """How a turn is answered that names no item."""

        def request(messages: Sequence[Message]) -> Request:
            return self.recommender.chat_request(
                messages,
                items=False,
                max_new_tokens=asked.max_new_tokens or asked.usual_tokens,
                temperature=asked.temperature,
                top_p=asked.top_p,
                seed=asked.seed,
            )

        places = self._places(asked, request, within)
        messages = [asked.messages[place] for place in places]
        return Plan(
            act="own",
            request=request(messages),
            messages=messages,
            places=places,
            history=(),
            mentioned=frozenset(),
            excluded=None,
            count=0,
            about=(),
            named=AskedFor(),
            wish=None,
            filters=(),
            unknown=(),
            voice=self.voice,
            limit=None,
        )

    def _history(self, asked: Enquiry) -> tuple[list[int], list[str]]:
        """Rows of the history, and its ids that the catalog has not."""
        catalog = self.recommender.catalog
        unknown = [item_id for item_id in asked.history if not catalog.has(item_id)]
        if unknown and asked.unknown == "error":
            why = f"history: catalog {catalog.name}: no item with id {unknown[0]!r}"
            raise CatalogError(f"{why}; leave it out, or let unknown ids be ignored")
        known = [item_id for item_id in asked.history if catalog.has(item_id)]
        return catalog.rows(known).tolist(), unknown

    def _having(self, asked: Enquiry, wish: Wish | None) -> Having | None:
        """What the catalog has of a name that the message asks for."""
        text, steering = said_by(asked.messages[-1]), self.recommender.steering
        if name_asked_for(text) is None:
            return None
        items, filters = self.recommender.items, () if wish is None else wish.filters
        live = items.grounding.trie.live_rows
        # What was said before names no kind in this question.
        understood = steering is not None and bool(steering.listener.hear(text).filters)
        found = having(text, items.catalog, live, known_names(items), understood=understood)
        return None if found is None else found.asked(filters, items.catalog)

    def _act(
        self, asked: Enquiry, wish: Wish | None, found: Having | None
    ) -> tuple[Act | Any, int, Sequence[int]]:
        """What the answer does, how many items it lists, and what the message is about."""
        items, trained = self.recommender.items, self.recommender.spec.trained
        if trained and asked.k is None:
            return "own", 0, ()
        text = said_by(asked.messages[-1])
        before = last_items(asked.messages[:-1])
        recent = () if wish is None else wish.about
        about = asked_about(text, before, known_names(items), recent) or recent
        count = asked.k if isinstance(asked.k, int) else None
        if count is None and found is not None and found.rows:
            return "explain", 0, found.rows
        if count is None and before and asks_which(text):
            among = [row for row in before if row in about] or before
            return "explain", 0, among[:1]
        if count is None:
            act = act_of(
                text,
                about,
                categories=items.catalog.categories,
                recommends=_recommends(wish, found),
            )
            if act == "greet" and (asked.voice or self.voice) == "model":
                act = "talk"
            if act != "recommend":
                return ("own" if trained else act), 0, about
            said = (None if wish is None else wish.k) or asked_count(text)
            count = min(said or USUAL_COUNT, asked.most_items)
        return ("own" if trained else "recommend"), items.at_most(count), about

    def _seen(
        self, asked: Enquiry, own: Sequence[int], about: Sequence[int]
    ) -> tuple[list[int], list[int]]:
        """What the guide sees as the history, and the items that answers have shown."""
        model = self.recommender
        if model.spec.trained:
            # What the conversation names is the history, where none is given and a guide asks.
            if own or model.guide is None or asked.guide_weight == 0:
                return list(own), []
            return conversation_items(asked.messages, model.items), []
        gone = model.catalog.vacant
        named = [row for row in self._liked(asked.messages) if row not in own and row not in gone]
        # Of several places the last counts.
        history = [*own, *list(dict.fromkeys(reversed([*named, *about])))[::-1]]
        history = list(dict.fromkeys(history))
        shown = [row for message in asked.messages for row in last_items([message])]
        return history, shown

    def _pointed(self, asked: Enquiry, about: Sequence[int]) -> list[int]:
        """Rows of the items that a message asks for more like."""
        text = said_by(asked.messages[-1])
        return list(about) if _LIKENESS.search(text) and not _DISLIKES.search(text) else []

    def _liked(self, messages: Sequence[Message]) -> list[int]:
        """Rows of the items that the user names, but for those that are spoken ill of."""
        known = known_names(self.recommender.items)
        rows: list[int] = []
        for message in messages:
            if message.role != "user":
                continue
            text = said_by(message)
            for name in names_in(text, known):
                *_, clause = _CLAUSE.split(text[: name.start])
                if name.row is not None and not _DISLIKES.search(clause):
                    rows.append(name.row)
        return rows

    def _excluded(
        self, asked: Enquiry, wish: Wish | None, seen: Sequence[int]
    ) -> tuple[ExcludedItems, bool]:
        """What may not be named, and whether it is the filters that leave nothing."""
        barred = list(seen) if asked.exclude_seen else []
        barred += () if wish is None else wish.without
        items = self.recommender.items
        rules = asked.exclude, asked.categories, barred, bool(barred)
        filters = () if wish is None else wish.filters
        where = asked.where if wish is None else asked.where.joined(wish.where)
        excluded = items.excluded(*rules, where)

        def leaves(some: ExcludedItems) -> bool:
            return bool((items.grounding.trie.live_rows & ~some.rows).any())

        if not filters or leaves(excluded):
            return excluded, False
        return excluded, leaves(items.excluded(*rules, asked.where))

    def _places(
        self,
        asked: Enquiry,
        request: Callable[[Sequence[Message]], Request | None],
        within: Callable[[Sequence[int]], bool] | None,
    ) -> list[int]:
        """The messages that stay, where all are too many for the model or its service."""
        messages = asked.messages
        roles = [message.role for message in messages]
        start = last_turn(roles)
        behind = list(range(start, len(messages)))
        context = self.recommender.prompts.context_length
        room = asked.max_new_tokens or asked.usual_tokens

        def fits(places: Sequence[int]) -> bool:
            whole = [*places, *behind]
            if within is not None and not within(whole):
                return False
            try:
                found = request([messages[place] for place in whole])
            except ContextLengthError:
                return False
            if context is None or found is None:
                return True
            # The answer needs room too.
            return len(found.prompt_ids) + min(room, context // _ANSWERS_SHARE) <= context

        return [*shortened(roles[:start], fits), *behind]


def _recommends(wish: Wish | None, found: Having | None) -> bool | None:
    """Whether the answer names items; of what the catalog has not, those nearest to it."""
    if found is not None and found.missing:
        return True
    return None if wish is None else wish.recommends


def _check_last(messages: Sequence[Message]) -> None:
    """Refuses a conversation that does not end with what a user says."""
    if not messages:
        raise DataError("messages: found none; expected at least one")
    if messages[-1].role != "user":
        last = f"the last message is from the {messages[-1].role}"
        raise DataError(f"messages: {last}; expected one from the user")


# More tokens than any answer has: the frame and its items end it.
_EVERYTHING = 1 << 20


def _named(asked: Enquiry, wish: Wish | None, titles: Sequence[str]) -> AskedFor:
    """What a request named: the categories it is held to, and what was understood.

    Words of the titles of what the user took or named are the names of these, not a wish.
    """
    taken = {word.casefold() for title in titles for word in re.findall(r"\w+", title)}
    kinds, others, unwanted = list(asked.categories), list[str](), list[str]()
    for label, filters in () if wish is None else phrases(wish.filters):
        condition = filters[0].condition
        if condition.op in ("ne", "not_in"):
            unwanted.append(label.removeprefix("not "))
        elif condition.field == "category" and condition.op in ("eq", "in"):
            value = condition.value
            kinds += map(str, value if isinstance(value, tuple) else (value,))
        else:
            others.append(label)
    if wish is None:
        return AskedFor(tuple(dict.fromkeys(kinds)), tuple(others), tuple(unwanted))
    unheard = {word.casefold() for name in wish.unmentioned for word in name.split()} | taken
    steered = wish.log_weights is not None
    words = wish.words if steered else ()
    return AskedFor(
        tuple(dict.fromkeys(kinds)),
        tuple(others),
        tuple(unwanted),
        tuple(word for word in words if word.casefold() not in unheard),
        wish.avoided if steered else (),
        wish.lacking,
        wish.unmentioned,
    )
