"""Words of a text, those that say something, and how they are compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from incatalog.data.word_forms import stem

_WORD = re.compile(r"[^\W_]+(?:['’][^\W\d_]+)*")
# Words that say how something is asked for and nothing of what it is.
_GRAMMAR = """
a about above after again all almost already also always am an and any anybody anyone anything are
as at away back be because been before being below best better between both but by came can cannot
could did do does doing done down each either else enough even ever every everyone everything few
for from get gets give given go goes going good got great had has have having he her here hers him
his how i if in instead into is it its itself just keep kind let like likes liked little look
looking lot lots make makes many may maybe me might mine more most much must my myself need needs
neither never next nice no nobody none nor not nothing now of off often ok okay on once one ones
only onto or other others otherwise our ours out over own perhaps please pretty put quite rather
really same say see seem set shall she should show shows since so some somebody someone something
sort still such suggest suggestion suggestions sure take tell than thank thanks that the their them
then there these they thing things think this those though through to together too try two under
until up upon us use used very via want wanted wants was way we well were what whatever when where
whether which while who whole whom whose why will wish with within without would yes yet you your
yours yourself recommend recommendation recommendations recommended find pick picks choose option
options idea ideas mood fancy love loved loves enjoy enjoyed hello hi hey list lists top item items
today tonight tomorrow evening weekend bit actually anyway hmm hm um uh eh ah oh well dont doesnt
didnt isnt im id ive youre thats lets
"""
# What shops and film services call what they have: so common that it chooses nothing.
_GOODS = """
film films movie movies picture pictures flick flicks video videos title titles product products
article articles stuff buy watch watching read play purchase order spend spending pay paying cost
costs costing afford exceed surprise
"""
# Words that say something in the text of an item, and nothing in a request.
_TALK = """
exactly usual usually finish finished directed prefer preferably ideally decide everybody
completely know known say said start starting first second third made based people person moment
popular well yesterday seen saw similar different direct feel feeling help choose simply honestly
basically especially cannot can't couldn't wouldn't shouldn't won't stand hour minute hated
"""


def in_lower_case(text: str) -> str:
    """A text in lower case, letter by letter, so that places in it stay what they are."""
    return "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)


GRAMMAR = frozenset(map(stem, _GRAMMAR.split())) | frozenset(_GRAMMAR.split())
GOODS = frozenset(map(stem, _GOODS.split()))
_SILENT = GRAMMAR | GOODS | frozenset(map(stem, _TALK.split()))


class Word(NamedTuple):
    """A word of a text: as it stands there, as it is compared, and where it stands."""

    text: str
    stem: str
    start: int
    end: int

    @property
    def says(self) -> bool:
        """Whether it says something of what is wanted."""
        return self.stem not in _SILENT


def words_of(text: str) -> list[Word]:
    """The words of a text, in its order."""
    found = (Word(one[0], stem(one[0]), *one.span()) for one in _WORD.finditer(text))
    return [word for word in found if word.stem]


def key_of(words: Sequence[Word]) -> str:
    """One text for all ways to join words: "sci-fi", "sci fi" and "SciFi" have the same."""
    return "".join(word.stem for word in words)


def stems(text: str) -> list[str]:
    """The stems of a text's words, for an index of words."""
    return [word.stem for word in words_of(text) if word.stem not in GRAMMAR]
