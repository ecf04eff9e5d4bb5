"""General conversations in ShareGPT format."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from incatalog.data.documents import json_lines, read_text
from incatalog.data.fields import FilePlace, shown
from incatalog.errors import DataError
from incatalog.reading import parse_json

Role = Literal["system", "user", "assistant"]

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Turn:
    """One message."""

    role: Role
    text: str


Conversation = tuple[Turn, ...]
"""At most one system turn, then turns of user and assistant in alternation."""


def load_conversations(path: str | Path) -> tuple[Conversation, ...]:
    """Reads conversations: one JSON list, or one conversation a line.

    A conversation has the field ``conversations`` (turns with ``from`` and ``value``) or
    ``messages`` (turns with ``role`` and ``content``). Turns of the assistant before the first of
    the user and turns of the user after the last of the assistant are cut, and turns of one
    speaker in a row are joined; a conversation without any answer is left out.
    """
    path = Path(path)
    found = []
    for place, record in _records(path):
        turns = record.get("conversations", record.get("messages"))
        if not isinstance(turns, list):
            raise place.error("no list `conversations` (or `messages`)")
        conversation = _alternating([_turn(place, turn) for turn in turns])
        if conversation:
            found.append(conversation)
    if not found:
        message = "no conversation holds a question and its answer; expected ShareGPT format"
        raise DataError.at(path, message)
    return tuple(found)


def _records(path: Path) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
    text = read_text(path)
    if not text.lstrip().startswith("["):
        yield from json_lines(path)
        return
    for number, record in enumerate(parse_json(path, text)):
        place = FilePlace(path, part=f"conversation {number}: ")
        if not isinstance(record, dict):
            raise place.error(f"expected an object, found {type(record).__name__}")
        yield place, record


def _turn(place: FilePlace, turn: Any) -> Turn:
    if not isinstance(turn, dict):
        raise place.error("a turn is not an object with `from` and `value`")
    role = turn.get("from", turn.get("role"))
    text = turn.get("value", turn.get("content"))
    if not isinstance(role, str) or role not in _ROLES:
        raise place.error(f"role {shown(role)} of a turn; expected one of {', '.join(_ROLES)}")
    if not isinstance(text, str):
        raise place.error(f"a turn of {role} has no text in `value`")
    return Turn(_ROLES[role], place.unicode(f"a turn of {role}", text))


def _alternating(turns: list[Turn]) -> Conversation:
    """Cuts and joins turns until user and assistant alternate; empty if no answer is left."""
    system = [turn for turn in turns if turn.role == "system" and turn.text.strip()][:1]
    joined: list[Turn] = []
    for turn in turns:
        too_early = not joined and turn.role == "assistant"
        if turn.role == "system" or too_early or not turn.text.strip():
            continue
        if joined and joined[-1].role == turn.role:
            joined[-1] = Turn(turn.role, f"{joined[-1].text}\n\n{turn.text}")
        else:
            joined.append(turn)
    if joined and joined[-1].role == "user":
        joined.pop()
    return (*system, *joined) if joined else ()
