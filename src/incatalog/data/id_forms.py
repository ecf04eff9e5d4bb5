"""Ids as two files write them: which is the least one has to overlook so that they agree."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

from incatalog.config import IdForm

_NUMBER = re.compile(r"0*([0-9]{1,40})(?:\.0{1,6})?")
# A form that overlooks more must bring so many more rows to their products.
_WORTH = 0.001


def _trimmed(text: str) -> str:
    return text.strip()


def _folded(text: str) -> str:
    return text.strip().casefold()


def _number(text: str) -> str:
    folded = _folded(text)
    found = _NUMBER.fullmatch(folded)
    return found[1] if found else folded


FORMS: Final[dict[IdForm, Callable[[str], str]]] = {
    "exact": str,
    "trimmed": _trimmed,
    "folded": _folded,
    "number": _number,
}
# What each form overlooks, for people.
OVERLOOKS: Final[dict[IdForm, str]] = {
    "exact": "nothing",
    "trimmed": "spaces around ids",
    "folded": "spaces around ids, and their case",
    "number": "spaces around ids, their case, zeros in front and .0 behind",
}


@dataclass(frozen=True)
class Agreement:
    """How far the ids of two columns agree."""

    form: IdForm
    rows: float  # share of the rows of the one that name an id of the other
    known: int  # different ids of the one that the other has
    covered: float  # share of the other's ids that occur


def agreement(used: Counter[str], ids: Collection[str]) -> Agreement:
    """How far used ids are among those there are, in the form that overlooks least.

    A form in which two of the ids would be one is none.

    Args:
        used: How often each id is used.
        ids: Those there are, all different.
    """
    found: list[Agreement] = []
    for form, plain in FORMS.items():
        there = set(map(plain, ids))
        if len(there) < len(ids):
            break
        known = {text for text in used if plain(text) in there}
        rows = sum(used[text] for text in known) / max(1, used.total())
        covered = len(set(map(plain, known))) / max(1, len(there))
        found.append(Agreement(form, rows, len(known), covered))
    if not found:
        return Agreement("exact", 0.0, 0, 0.0)
    most = max(one.rows for one in found)
    return next(one for one in found if one.rows >= most - _WORTH)
