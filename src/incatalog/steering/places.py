"""Places in a list: "the second one", "the first two", "number 3"; where a text names them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from incatalog.steering.numbers_said import UNITS_AND_TENS

_ORDINALS = {
    "first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7,
    "eighth": 8, "ninth": 9, "tenth": 10, "last": -1,
}  # fmt: skip
_COUNTED = {"couple of": 2, "couple": 2, "both": 2} | {
    word: value for word, value in UNITS_AND_TENS.items() if 2 <= value <= 10
}
_SMALL = "|".join(word for word, value in UNITS_AND_TENS.items() if 1 <= value <= 10)
_NOUN = (
    r"(?:\s+(?:ones?|films?|movies?|items?|products?|titles?|books?|games?|picks?|suggestions?|"
    r"of (?:them|these|those)))?"
)
PLACE = re.compile(
    rf"\b(?:the\s+)?(?P<side>first|last|top)\s+(?P<count>{'|'.join(_COUNTED)}|\d{{1,2}})\b{_NOUN}"
    rf"|\b(?:the\s+)?(?P<ordinal>{'|'.join(_ORDINALS)}|\d{{1,2}}(?:st|nd|rd|th))\b{_NOUN}"
    rf"|(?:\bnumbers?\s+|\bno\.\s*|#)(?P<number>\d{{1,2}}|{_SMALL})\b"
)
"""What names a place, or several from one side, in a text in lower case."""
# "what is the difference between 1 and 2"; elsewhere a bare number may be anything.
_PAIR = re.compile(
    r"\b(?:difference between|compare|why|explain)\s+(?P<first>\d{1,2})\s*"
    r"(?:,|and|or|vs\.?|with|to)\s*(?P<second>\d{1,2})\b"
)


def rows_of(match: re.Match[str], shown: Sequence[int]) -> tuple[int, ...]:
    """The rows of a list that stand where a match of `PLACE` says; none beyond its ends."""
    if match["side"]:
        said = match["count"]
        count = int(said) if said.isdigit() else _COUNTED[said]
        if count > len(shown):
            return ()
        return tuple(shown[-count:] if match["side"] == "last" else shown[:count])
    said = match["ordinal"] or match["number"]
    digits = re.match(r"\d+", said)
    place = int(digits[0]) if digits else _ORDINALS.get(said) or UNITS_AND_TENS[said]
    place = len(shown) if place == -1 else place
    return (shown[place - 1],) if 1 <= place <= len(shown) else ()


def placed(lower: str, shown: Sequence[int]) -> tuple[int, ...]:
    """The rows of a list that a text in lower case points at by their places, in its order."""
    rows = [row for match in PLACE.finditer(lower) for row in rows_of(match, shown)]
    for pair in _PAIR.finditer(lower):
        rows += [shown[int(said) - 1] for said in pair.groups() if 0 < int(said) <= len(shown)]
    return tuple(dict.fromkeys(rows))
