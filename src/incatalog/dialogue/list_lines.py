"""Where the lines of a list begin in a text: "1. Alien", "- Alien"."""

from __future__ import annotations

import re

LIST_MARK = r"^[ \t]*(?:\d{1,3}[.)]|[-*•–])[ \t]+"
"""The number or mark that a line of a list begins with; for patterns over several lines."""
# Marks of emphasis, quotes and links may stand around a title.
_LINE = re.compile(rf"{LIST_MARK}[*_\"“'\[]{{0,3}}", re.MULTILINE)


def list_starts(text: str) -> frozenset[int]:
    """Positions behind the numbers or marks of the lines of lists."""
    return frozenset(match.end() for match in _LINE.finditer(text))
