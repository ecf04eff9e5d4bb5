"""What a terminal shows: answers as they come, with their items marked."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.console import Console
from rich.text import Text

from incatalog.terminal.talker import Piece, ShownItem

_ITEM, _NOTE, _ERROR = "bold cyan", "dim", "red"


class Screen:
    """Writes to a terminal with colours, and to anything else as plain text."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._out = Console(file=out or sys.stdout, highlight=False, soft_wrap=True)
        self._err = Console(file=err or sys.stderr, highlight=False, soft_wrap=True)

    def piece(self, piece: Piece, number: int) -> None:
        """Writes a part of an answer; an item with its number in it and its id."""
        if isinstance(piece, ShownItem):
            mark = f" [{number} · {piece.item_id}]"
            text = Text.assemble((piece.title, _ITEM), (mark, _NOTE))
        else:
            text = Text(piece)
        self._out.print(text, end="")
        self._out.file.flush()

    def end(self) -> None:
        """Ends an answer."""
        self._out.print("\n" if self._out.is_terminal else "")

    def line(self, text: str) -> None:
        """Writes what a command answers."""
        self._out.print(Text(text))
        self._out.file.flush()

    def note(self, text: str) -> None:
        """Writes what is beside the conversation, to standard error."""
        self._err.print(Text(text, _NOTE))

    def error(self, text: str) -> None:
        """Writes what went wrong, to standard error."""
        self._err.print(Text(f"error: {' '.join(text.split())}", _ERROR))
