"""Text that grows, cut into sentences as soon as each is complete."""

from __future__ import annotations

import re

# What ends a sentence, with closing quotes and brackets, where something follows it.
_END = re.compile(r"[.!?…]+[\"'”’)\]*]*(?=\s)|\n")
# A full stop behind these, or behind a number that begins a line of a list, ends nothing.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"“])(?:mr|mrs|ms|dr|st|jr|sr|vs|etc|no|vol|e\.g|i\.e|[A-Z])\.$", re.IGNORECASE
)
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d+\.$")


class SentenceBuffer:
    """Holds text back until a sentence is complete.

    A sentence is told with the white space before it, so that its text vanishes whole where it is
    left out. Every line is a sentence, or several.
    """

    def __init__(self) -> None:
        self._held = ""

    def add(self, text: str) -> list[str]:
        """The sentences that are complete with some more text."""
        self._held += text
        found: list[str] = []
        at = 0
        for end in _END.finditer(self._held):
            # White space alone belongs to what follows it.
            before = self._held[at : end.end()]
            if not before.strip() or (end[0] == "." and _goes_on(before)):
                continue
            cut = end.start() if end[0] == "\n" else end.end()
            found.append(self._held[at:cut])
            at = cut
        self._held = self._held[at:]
        return found

    def rest(self) -> str:
        """What has not been completed; it is let go."""
        text, self._held = self._held, ""
        return text


def _goes_on(text: str) -> bool:
    return bool(_ABBREVIATION.search(text) or _LIST_NUMBER.search(text))


def ends_whole(text: str) -> bool:
    """Whether a text ends as a sentence does."""
    return text.rstrip().rstrip("\"'”’)]*").endswith((".", "!", "?", "…"))
