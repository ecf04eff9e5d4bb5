"""Whether the cells of a column are categories, and what separates several in one cell."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Final

from incatalog.data.table_sample import SampleColumn

# Of names that products share, at most this many are different ones.
SHARED: Final = 0.5
_LONGEST_CATEGORY = 60
_SPLITS = ("|", ">", ";", ",", "/")


def is_category(column: SampleColumn) -> bool:
    """Whether texts are names that products share."""
    if column.lists:
        return True
    separator = category_separator(column)
    parts = [part for text in column.counts for part in _split(text, separator)]
    short = statistics.median(map(len, parts)) <= _LONGEST_CATEGORY if parts else False
    few = len(column.cells) < 20
    return short and (few or len(set(parts)) <= max(2, SHARED * column.filled))


def category_separator(column: SampleColumn) -> str:
    """What separates several categories of a cell; empty for one a cell.

    What is split must make fewer names: a comma within a name does not.
    """
    if column.lists:
        return ""
    texts = list(column.counts)
    for split in _SPLITS:
        several = [text for text in texts if split in text]
        parts = {part for text in texts for part in _split(text, split)}
        if len(several) < (1 if split == "|" else 2):
            continue
        alone = set(texts) - set(several)
        used = Counter(part for text in several for part in _split(text, split))
        # Names come again, in other cells or by themselves.
        again = sum(count > 1 or part in alone for part, count in used.items()) / len(used)
        if split in "|>" or (len(parts) < len(texts) and again >= SHARED):
            return split
    return ""


def _split(text: str, separator: str) -> list[str]:
    parts = text.split(separator) if separator else [text]
    return [part.strip() for part in parts if part.strip()]
