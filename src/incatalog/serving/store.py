"""What operators changed in the catalogs: a log of versions that every replica follows."""

from __future__ import annotations

import contextlib
import json
import math
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from incatalog.data.catalog import Item
from incatalog.data.naming import TITLE
from incatalog.errors import ArtifactError
from incatalog.serving.address import opened
from incatalog.serving.database import Row, row_fault

_TABLES = """
CREATE TABLE IF NOT EXISTS versions (
    domain TEXT PRIMARY KEY,
    number BIGINT NOT NULL,
    mark TEXT NOT NULL,
    base TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS log (
    domain TEXT NOT NULL,
    number BIGINT NOT NULL,
    follows TEXT NOT NULL,
    mark TEXT NOT NULL,
    changes TEXT NOT NULL,
    PRIMARY KEY (domain, number)
);
CREATE TABLE IF NOT EXISTS items (
    place {serial},
    domain TEXT NOT NULL,
    item_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('changed', 'disabled', 'removed')),
    item TEXT,
    UNIQUE (domain, item_id)
);
CREATE TABLE IF NOT EXISTS absent (
    domain TEXT NOT NULL,
    item_id TEXT NOT NULL,
    PRIMARY KEY (domain, item_id)
);
"""
_SAVE_ITEM = """
INSERT INTO items (domain, item_id, state, item) VALUES (?, ?, ?, ?)
ON CONFLICT (domain, item_id) DO UPDATE SET state = excluded.state, item = excluded.item
"""
_NEXT = "UPDATE versions SET number = ?, mark = ? WHERE domain = ? AND number = ? AND mark = ?"
_HEAD = "SELECT number, mark FROM versions WHERE domain = ?"
# Versions that the log keeps; a replica that is farther behind starts from all items.
_KEPT = 10_000
TIMEOUT = 5.0


@dataclass(frozen=True)
class NewItem:
    """An item that joins a catalog, with what the model's method needs of it."""

    item: Item
    codes: tuple[int, ...] | None = None  # where the model writes codes
    vector: tuple[float, ...] | None = None  # where the model retrieves
    title_field: str = TITLE  # the field that gave the item its name


@dataclass(frozen=True)
class Stored:
    """How an item differs from the folder that the domain was loaded from."""

    item_id: str
    new: NewItem | None  # None if it was neither added nor replaced
    state: Literal["changed", "disabled", "removed"] = "changed"

    @property
    def text(self) -> str | None:
        """The item of its row."""
        return None if self.new is None else json.dumps(asdict(self.new), default=dict)


@dataclass(frozen=True)
class Head:
    """The newest version of a domain; its mark is random, so no other one has the same."""

    number: int
    mark: str


@dataclass(frozen=True)
class Growth:
    """What leads from one version to a later one.

    Attributes:
        head: The later one.
        changes: What every item that was changed is there, by its id.
        absent: What was disabled as a feed lacked it (true), or no longer is (false), by id.
        marks: Those of all versions on the way.
    """

    head: Head
    changes: Mapping[str, Stored]
    absent: Mapping[str, bool]
    marks: frozenset[str]


@dataclass(frozen=True)
class Whole:
    """All that differs from the folder, at one version."""

    head: Head
    changes: Sequence[Stored]
    absent: frozenset[str]


class CatalogStore:
    """Changes of all domains, in a database that any number of services share."""

    def __init__(self, address: str | Path, timeout: float = TIMEOUT) -> None:
        self._database = opened(address, _TABLES, timeout)
        self.timeout = timeout

    @property
    def place(self) -> str:
        """Where it is, as errors name it."""
        return self._database.place

    def begin(self, domain: str, base: str) -> None:
        """Begins with a domain, or checks that it was begun with the same items.

        Two services whose folders differ would answer from two catalogs by one version.
        """
        with self._database.change() as made:
            first = "INSERT INTO versions VALUES (?, 0, ?, ?) ON CONFLICT (domain) DO NOTHING"
            made.run(first, (domain, new_mark(), base))
            # As a version of the package left them that had one service a file.
            unmarked = "UPDATE versions SET mark = ?, base = ? WHERE domain = ? AND mark = ''"
            made.run(unmarked, (new_mark(), base, domain))
            [(found,)] = made.rows("SELECT base FROM versions WHERE domain = ?", (domain,))
        if found != base:
            why = f"domain {domain!r} was begun with other items than its folder holds now"
            then = "serve the folder it was begun with and send the items as a feed, or start"
            raise ArtifactError(f"{self.place}: {why}; {then} with another state")

    def head(self, domain: str) -> Head:
        """The newest version."""
        return self._head(domain, self._database.rows(_HEAD, (domain,)))

    def heads(self) -> dict[str, Head]:
        """The newest version of every domain."""
        found = self._database.rows("SELECT domain, number, mark FROM versions")
        return {str(domain): self._head(domain, [(*head,)]) for domain, *head in found}

    def whole(self, domain: str) -> Whole:
        """How the domain's items differ from its folder, in the order in which they came."""
        items = "SELECT place, item_id, state, item FROM items WHERE domain = ? ORDER BY place"
        with self._database.look() as seen:
            head = self._head(domain, seen.rows(_HEAD, (domain,)))
            rows = seen.rows(items, (domain,))
            absent = seen.rows("SELECT item_id FROM absent WHERE domain = ?", (domain,))
        changes = []
        for place, item_id, state, text in rows:
            try:
                changes.append(_stored(item_id, state, text))
            except ValueError as error:
                row = f"place {place} of domain {domain!r}"
                raise self._database.malformed("items", row, str(error)) from None
        if wrong := [one for (one,) in absent if not isinstance(one, str)]:
            why = f"item_id: found {wrong[0]!r}; expected text"
            raise self._database.malformed("absent", f"domain {domain!r}", why)
        return Whole(head, changes, frozenset(one for (one,) in absent))

    def since(self, domain: str, known: Head) -> Growth | None:
        """What came after a version; None if the log does not reach back to it.

        An ArtifactError if the version is none of this log.
        """
        log = "SELECT number, follows, mark, changes FROM log WHERE domain = ? AND number > ?"
        with self._database.look() as seen:
            head = self._head(domain, seen.rows(_HEAD, (domain,)))
            if head == known:
                return Growth(head, {}, {}, frozenset())
            rows = seen.rows(log + " ORDER BY number", (domain, known.number))
        if head.number <= known.number or (
            rows and rows[0][0] == known.number + 1 and rows[0][1] != known.mark
        ):
            why = f"domain {domain!r}: its version {known.number} is another one than was served"
            then = "was the state put back from an older copy? Start the services anew"
            raise ArtifactError(f"{self.place}: {why}; {then}")
        if not rows or rows[0][0] != known.number + 1:
            return None
        changes, absent = dict[str, Stored](), dict[str, bool]()
        for number, _, _, text in rows:
            try:
                entry = json.loads(text)
                one = {item: _stored(item, *rest) for item, *rest in entry["changes"]}
                gone = {str(item): bool(now) for item, now in entry["absent"].items()}
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                row = f"version {number} of domain {domain!r}"
                raise self._database.malformed("log", row, str(error)) from None
            changes |= one
            absent |= gone
        return Growth(head, changes, absent, frozenset(mark for _, _, mark, _ in rows))

    @contextlib.contextmanager
    def held(self, domain: str) -> Iterator[None]:
        """Lets no other service change the domain during the block."""
        with self._database.change() as made:
            made.run("UPDATE versions SET number = number WHERE domain = ?", (domain,))
            yield

    def append(
        self,
        domain: str,
        known: Head,
        mark: str,
        changes: Iterable[Stored],
        absent: Mapping[str, bool],
    ) -> Head | None:
        """Writes the version after `known` down; None if another service was faster.

        From the return on it survives a killed process.
        """
        head = Head(known.number + 1, mark)
        rows = [(one.item_id, one.state, one.text) for one in changes]
        entry = json.dumps({"changes": rows, "absent": dict(absent)})
        with self._database.change() as made:
            if not made.run(_NEXT, (head.number, head.mark, domain, known.number, known.mark)):
                return None
            logged = (domain, head.number, known.mark, head.mark, entry)
            made.run("INSERT INTO log VALUES (?, ?, ?, ?, ?)", logged)
            old = head.number - _KEPT
            made.run("DELETE FROM log WHERE domain = ? AND number <= ?", (domain, old))
            made.run_all(_SAVE_ITEM, [(domain, *row) for row in rows])
            ids = [(domain, item_id) for item_id in absent]
            made.run_all("DELETE FROM absent WHERE domain = ? AND item_id = ?", ids)
            now = [(domain, item_id) for item_id, is_absent in absent.items() if is_absent]
            made.run_all("INSERT INTO absent VALUES (?, ?)", now)
        return head

    def wait(self, seconds: float) -> None:
        """Waits so long, or until another service may have changed something."""
        self._database.wait(seconds)

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    def _head(self, domain: Any, found: Sequence[Row]) -> Head:
        if not found:
            why = "was put back without this domain; start the services anew"
            raise ArtifactError(f"{self.place}: domain {domain!r}: the state {why}")
        number, mark = found[0]
        if type(number) is not int or number < 0:
            why = f"number: found {number!r}; expected a whole number"
            raise self._database.malformed("versions", f"domain {domain!r}", why)
        return Head(number, str(mark))


def new_mark() -> str:
    """A mark that nothing else has."""
    return secrets.token_hex(16)


def _stored(item_id: Any, state: Any, text: Any) -> Stored:
    """A change as it was written down; ValueError names a malformed field."""
    if not isinstance(item_id, str) or not item_id:
        raise ValueError(f"item_id: found {item_id!r}; expected text")
    if state not in ("changed", "disabled", "removed"):
        raise ValueError(f"state: found {state!r}; expected changed, disabled or removed")
    return Stored(item_id, None if text is None else _new_item(text, item_id), state)


@cache
def _form() -> TypeAdapter[NewItem]:
    return TypeAdapter(NewItem)


def _new_item(text: Any, item_id: str) -> NewItem:
    """An item as it was written down; ValueError names a malformed field."""
    if not isinstance(text, str):
        raise ValueError("item: found no text; expected JSON")
    try:
        found = _form().validate_json(text, strict=True)
    except ValidationError as error:
        raise ValueError(f"item: {row_fault(error)}") from None
    if found.item.item_id != item_id:
        raise ValueError(f"item: found that of {found.item.item_id!r}; expected {item_id!r}")
    if not all(map(math.isfinite, found.vector or ())):
        raise ValueError("item: vector: expected finite numbers")
    return found
