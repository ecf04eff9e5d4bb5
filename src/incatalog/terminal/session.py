"""A conversation in a terminal: what was said, what holds, and its commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from incatalog.data.where import Where
from incatalog.errors import ConfigError, IncatalogError
from incatalog.flags import near
from incatalog.terminal.screen import Screen
from incatalog.terminal.talker import Continued, Piece, ShownItem, SpokenTurn, Talker

# Likeness from which the nearest item is taken for the one that was meant.
_MEANT = 75.0
_QUOTES = "\"'"


@dataclass(frozen=True)
class _Command:
    """What stands behind a slash."""

    usage: str
    help: str


COMMANDS = {
    "domain": _Command("/domain [NAME|off]", "which catalog; off for a conversation without items"),
    "history": _Command(
        "/history [add TITLE | remove N | clear]", "what you took: items by title or id"
    ),
    "filter": _Command('/filter ["price<=20" | off [N]]', "what items have to be"),
    "why": _Command("/why N", "what is known of item N of the last answer"),
    "new": _Command("/new", "a new conversation; history and filters stay"),
    "help": _Command("/help", "this list"),
    "quit": _Command("/quit", "leave, as Ctrl-D does; Ctrl-C stops an answer"),
}


class ChatSession:
    """Holds a conversation with whoever answers, line by line."""

    def __init__(self, talker: Talker, screen: Screen) -> None:
        self._talker, self._screen = talker, screen
        first = talker.domains[0] if talker.domains else None
        self._asked = Continued((), first)
        self._filters: list[str] = []
        self._titles: dict[str, str] = {}  # of the history, by id

    @property
    def domain(self) -> str | None:
        """The catalog that answers are about."""
        return self._asked.domain

    def line(self, text: str) -> bool:
        """Answers a line, or does what it commands; false if the conversation is over."""
        text = text.strip()
        if not text:
            return True
        try:
            if text.startswith("/"):
                return self._command(text)
            self._answer(text)
        except IncatalogError as error:
            self._screen.error(str(error))
        return True

    def take(self, name: str) -> None:
        """Adds an item to the history, by id, title, or what is nearest to it.

        Raises:
            ConfigError: Nothing is called like that; names the nearest items.
        """
        domain = self._domain()
        found = self._talker.find(domain, name)
        certain = [one for one in found if one.likeness >= _MEANT]
        exact = [one for one in certain if one.likeness == 100]
        several = len(exact) > 1 or not certain
        if several:
            shown = exact or found
            told = ", ".join(f"{one.item_id} ({one.title})" for one in shown)
            what = f"is the title of {len(exact)} items" if exact else "is no item"
            hint = f"; near: {told}; /history add with one of these ids" if told else ""
            raise ConfigError(f"/history add {name}: {what}{hint}")
        one = certain[0]
        history = (*(i for i in self._asked.history if i != one.item_id), one.item_id)
        self._titles[one.item_id] = one.title
        self._asked = replace(self._asked, history=history)
        self._screen.line(f"added {one.title} [{one.item_id}]")

    def _domain(self) -> str:
        if self._asked.domain is None:
            known = ", ".join(self._talker.domains) or "none"
            raise ConfigError(f"no catalog is chosen; /domain NAME with one of {known}")
        return self._asked.domain

    def _answer(self, text: str) -> None:
        said = SpokenTurn("user", (text,))
        asked = replace(self._asked, turns=(*self._asked.turns, said))
        pieces: list[Piece] = []
        try:
            with contextlib.closing(self._talker.stream(asked)) as stream:  # type: ignore[type-var]
                for piece in stream:
                    pieces.append(piece)
                    number = sum(isinstance(one, ShownItem) for one in pieces)
                    self._screen.piece(piece, number)
        except KeyboardInterrupt:
            self._screen.end()
            self._screen.note("stopped")
        except IncatalogError:
            if pieces:
                self._screen.end()
            raise
        else:
            self._screen.end()
        if pieces:
            # What was said before it was stopped has been said.
            self._asked = replace(
                asked, turns=(*asked.turns, SpokenTurn("assistant", tuple(pieces)))
            )

    def _command(self, text: str) -> bool:
        name, _, rest = text[1:].partition(" ")
        if name in ("quit", "exit"):
            return False
        if name not in COMMANDS:
            raise ConfigError(f"/{name}: no such command{near(name, COMMANDS)}; see /help")
        run: Callable[[str], None] = getattr(self, f"_do_{name}")
        run(rest.strip())
        return True

    def _do_help(self, _rest: str) -> None:
        width = max(len(one.usage) for one in COMMANDS.values()) + 2
        for one in COMMANDS.values():
            self._screen.line(f"{one.usage:<{width}}{one.help}")

    def _do_new(self, _rest: str) -> None:
        self._asked = replace(self._asked, turns=())
        self._screen.line("new conversation")

    def _do_domain(self, rest: str) -> None:
        known = self._talker.domains
        if not rest:
            for name in (*known, "off"):
                chosen = name == (self._asked.domain or "off")
                self._screen.line(f"{'*' if chosen else ' '} {name}")
            return
        if rest not in known and rest != "off":
            raise ConfigError(
                f"/domain {rest}: no such catalog; expected {', '.join(known)} or off"
            )
        if rest != "off" and rest != self._asked.domain:
            # Ids and fields are those of a catalog.
            self._asked, self._filters = Continued(self._asked.turns, rest), []
        elif rest == "off":
            self._asked = replace(self._asked, domain=None)
        self._screen.line(f"catalog: {rest}")

    def _do_history(self, rest: str) -> None:
        verb, _, name = rest.partition(" ")
        history = self._asked.history
        if verb == "add" and name.strip():
            self.take(name.strip().strip(_QUOTES))
        elif verb == "remove" and name.strip():
            gone = history[self._place(name.strip(), len(history), "/history remove")]
            left = tuple(item_id for item_id in history if item_id != gone)
            self._asked = replace(self._asked, history=left)
            self._screen.line(f"removed {self._titles[gone]}")
        elif verb == "clear":
            self._asked = replace(self._asked, history=())
            self._screen.line("history is empty")
        elif rest:
            raise ConfigError(f"/history {rest}: expected {COMMANDS['history'].usage}")
        elif not history:
            self._screen.line("history is empty; /history add TITLE")
        else:
            for place, item_id in enumerate(history, start=1):
                self._screen.line(f"{place}. {self._titles[item_id]} [{item_id}]")

    def _do_filter(self, rest: str) -> None:
        verb, _, place = rest.partition(" ")
        if verb == "off":
            kept = list(self._filters)
            if place.strip():
                del kept[self._place(place.strip(), len(kept), "/filter off")]
            else:
                kept = []
            self._filter_by(kept)
        elif rest:
            text = rest[1:-1] if len(rest) > 1 and rest[0] == rest[-1] in _QUOTES else rest
            kept = [*self._filters, text]
            self._talker.check(self._domain(), Where.from_flags(kept, "/filter"))
            self._filter_by(kept)
        self._screen.line("\n".join(
            f"{number}. {text}" for number, text in enumerate(self._filters, start=1)
        ) or "no filters")  # fmt: skip

    def _filter_by(self, filters: list[str]) -> None:
        where = Where.from_flags(filters, "/filter")
        self._filters, self._asked = filters, replace(self._asked, where=where)

    def _do_why(self, rest: str) -> None:
        said = next((turn for turn in reversed(self._asked.turns) if turn.items), None)
        if said is None:
            raise ConfigError("/why: no answer has named an item yet")
        one = said.items[self._place(rest or "1", len(said.items), "/why")]
        self._screen.line(f"{one.title} [{one.item_id}]")
        if one.reason:
            self._screen.line(f"  {one.reason}")
        for label, value in one.facts:
            self._screen.line(f"  {label}: {value}")
        self._screen.line(f"  score: {one.score:.3g}")

    @staticmethod
    def _place(text: str, count: int, command: str) -> int:
        """The place of an entry whose number, from 1, a command names."""
        if not text.isdecimal() or not 1 <= int(text) <= count:
            expected = f"expected a number from 1 to {count}" if count else "there is none"
            raise ConfigError(f"{command} {text}: {expected}")
        return int(text) - 1
