"""How many items are asked for: "five films", "a list of 3"."""

from __future__ import annotations

import re
from typing import NamedTuple

from incatalog.steering.numbers_said import UNITS_AND_TENS, is_year, number

_MOST = 100
_SMALL = "|".join(
    sorted((w for w, v in UNITS_AND_TENS.items() if 1 <= v <= 50), key=len, reverse=True)
)
_COUNT = rf"(?P<count>\d{{1,3}}|{_SMALL}|a couple|a dozen|a single)"
_NOUN = (
    r"(?:films?|movies?|pictures?|flicks?|items?|products?|articles?|things?|titles?|books?|games?|"
    r"songs?|albums?|shows?|series|suggestions?|recommendations?|options?|ideas?|picks?|choices?|"
    r"examples?|ones|others?|more|alternatives?|of (?:them|these|those))"
)
_BEHIND = re.compile(
    rf"\b{_COUNT}(?: of the| of| or so)?(?:\s+(?!or\b|of\b)[\w'’-]+){{0,3}}?\s+{_NOUN}\b"
)
_LIST = re.compile(
    rf"\b(?:(?:list|set|selection|choice|handful)\s+of|top|best|give me(?: just| only)?|"
    rf"show me(?: just| only)?|recommend(?: me)?(?: just| only)?|suggest(?: me)?|name(?: me)?|"
    rf"pick(?: me)?|only|just|exactly|need|want)\s+{_COUNT}\b"
)
_ONE = re.compile(rf"\b(?:just|only|exactly|single)\s+one\b|\bone\s+{_NOUN}\b")
# "Two of them can't stand horror" counts people.
_OF_THEM = re.compile(r" of (?:them|these|those)$")
_WHO_DOES = re.compile(
    r"\s+(?:am|are|is|were|was|have|has|had|do|does|did|don|didn|can|could|will|would|want|need|"
    r"likes?|loves?|hates?|prefers?|just|only|also|already|never|always|really)\b"
)
# Numbers before these count something else.
_OTHER = re.compile(
    r"\s*(?:[$€£%]|(?:\w+\s+)?(?:euros?|dollars?|bucks|pounds?|eur|usd|minutes?|hours?|days?|weeks?|"
    r"months?|years?|stars?|pages?|kids?|child(?:ren)?|people|persons?|players?|friends?|percent|"
    r"inch(?:es)?|cm|mm|pack|sheets?|gb|mb|watts?)\b|s\b|['’]s\b)"
)
_PLACE = re.compile(
    r"(?:\b(?:number|no\.?|part|of|and|under|over|than|to|between|most|least)|#)\s*$"
)


class Amount(NamedTuple):
    """How many items are asked for, and where a text says it."""

    k: int
    start: int
    end: int


def amount(lower: str) -> Amount | None:
    """How many items a text in lower case asks for; None where it does not say."""
    for pattern in (_LIST, _BEHIND):
        for match in pattern.finditer(lower):
            said, start, end = match["count"], match.start("count"), match.end("count")
            of_people = _OF_THEM.search(match[0]) and _WHO_DOES.match(lower, match.end())
            if (
                of_people
                or _OTHER.match(lower, end)
                or (pattern is _BEHIND and _PLACE.search(lower[:start]))
            ):
                continue
            value = {"a couple": 2, "a dozen": 12, "a single": 1}.get(said) or int(number(said))
            # "one" is often nothing but a pronoun: "I want one that is funny", "the best one".
            if said == "one" and not _ONE.search(match[0]):
                continue
            if 1 <= value <= _MOST and not is_year(value):
                return Amount(value, start, end)
    return None
