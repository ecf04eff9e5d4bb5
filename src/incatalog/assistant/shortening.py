"""Conversations that are too long for the model: the oldest turns go."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence

_STAYING = ("system", "developer")


def shortened(roles: Sequence[str], fits: Callable[[Sequence[int]], bool]) -> list[int]:
    """Which messages of a conversation stay when the fewest oldest turns go that must.

    A turn begins where a user speaks after someone else. System messages stay. If no other message
    can stay, none does, whether the rest fits or not.

    Args:
        roles: Who speaks, message by message.
        fits: Whether what is left of the conversation is short enough, given by its places.

    Returns:
        The places of the messages that stay, ascending.
    """
    begins = [
        place
        for place, role in enumerate(roles)
        if role == "user" and (place == 0 or roles[place - 1] != "user")
    ]
    begins = [0, *begins[1:], len(roles)] if roles else [0]

    def left(turns: int) -> list[int]:
        start = begins[turns]
        system = [place for place in range(start) if roles[place] in _STAYING]
        return [*system, *range(start, len(roles))]

    turns = 0
    if roles and not fits(left(0)):
        some = range(1, len(begins) - 1)
        turns = 1 + bisect.bisect_left(some, True, key=lambda turns: fits(left(turns)))
    return left(turns)


def last_turn(roles: Sequence[str]) -> int:
    """Where the last turn of a conversation begins: what the user says last stays always."""
    start = len(roles)
    while start and roles[start - 1] == "user":
        start -= 1
    return start
