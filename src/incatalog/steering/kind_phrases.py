"""Kinds of products that a message asks for by their names: "a quiet shredder, please".

What is asked for is the head of the noun phrase that a message begins with. A noun behind "for" or
"my" says what it is for, and the words before the head are what else is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from incatalog.data.word_forms import plural
from incatalog.steering.stems import Word

# What may stand before the thing that is wanted.
_OPENER = re.compile(
    r"\b(?:(?:look|search|shop|hunt|ask)(?:ing)? for|(?:in )?(?:the )?mood for|in need of|"
    r"interested in|(?:need|want|like|love|wish|try|hope|have|going) to (?:buy|get|order|find|see|"
    r"have|purchase)|(?:packs?|packets?|box(?:es)?|sets?|pairs?|cases?|cartons?|bags?|bunch|couple|"
    r"dozens?|rolls?|kinds?|sorts?|types?|lots?|plenty|number|choice|selection|range|all|some|any|"
    r"one|brands?) of|(?:suggestions?|recommendations?|ideas?|options?) for)\b",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.!?;:\n()]|\s[-–—]\s")
_COMMA = re.compile(r"[,&/+]")
# "3-ring" and "D-ring" say what something has, and not what it is.
_SIZED = re.compile(r"(?:\b\d+|\b[A-Za-z])-$")
_JOINING = frozenset(("and", "or", "but", "plus"))
# Before what is wanted, these make of it what something is for, whose it is, or what it is like.
_BEFORE_OTHERS = """
to for with in into from of by on at onto over under about after before against between behind
through than as so that which who whose because when if where while until without not no nor
my mine our his her their something anything nothing everything someone anyone this these those
it its they he she is are was were does did like
"""
_ELSE = frozenset(_BEFORE_OTHERS.split())
_ASKING = frozenset(("which", "what"))
_BEFORE_NOUNS = "a an the some any my your his her our their me us it them"
_ARTICLES = frozenset(_BEFORE_NOUNS.split())
_ONE = frozenset(("a", "an", "one", "another"))


class NamedKinds(NamedTuple):
    """Kinds that stand side by side in a text: any of them is wanted."""

    values: tuple[str, ...]  # the words of each, in the form that is compared
    label: str
    places: frozenset[int]  # which words of the text say so


def named_kinds(
    text: str, words: Sequence[Word], taken: Collection[int], kinds: Collection[str]
) -> NamedKinds | None:
    """The kinds that a text asks for; None where it names none.

    Args:
        text: What is wanted.
        words: Its words.
        taken: Places of words that name something else.
        kinds: The stems that are kinds.
    """
    found: dict[str, tuple[str, int]] = {}
    for run in _noun_phrases(text, words):
        # Behind the head another noun may stand that is no kind: "toner cartridge refills".
        head = next((at for at in reversed(run) if words[at].stem in kinds), None)
        if head is not None and _SIZED.search(text, 0, words[head].start):
            continue
        if head is not None and head not in taken:
            found.setdefault(words[head].stem, (_told(text, words, run, head), head))
    if not found:
        return None
    label = " or ".join(told for told, _ in found.values())
    return NamedKinds(tuple(sorted(found)), label, frozenset(at for _, at in found.values()))


def _noun_phrases(text: str, words: Sequence[Word]) -> Iterator[list[int]]:
    """The words of the noun phrases that the sentences of a text begin with."""
    plain = _OPENER.sub(lambda match: " " * len(match[0]), text)
    known = [at for at, word in enumerate(words) if plain[word.start : word.end].strip()]
    for sentence in _parts(plain, known, words, _SENTENCE):
        for clause in _clauses(plain, sentence, words):
            run: list[int] = []
            for at in clause:
                if words[at].says:
                    run.append(at)
                elif run or words[at].text.lower() in _ELSE - _ASKING:
                    break
            after = clause[clause.index(run[-1]) + 1 :] if run else []
            # What an article follows is a verb: "print the tape", "labels that fit my printer".
            verb = bool(after) and words[after[0]].text.lower() in _ARTICLES
            if noun := run[: len(run) - verb]:
                yield noun
            # What comes after "for" and the like goes on: "a box for pens and pencils".
            if verb or any(words[at].text.lower() in _ELSE - _ASKING for at in clause):
                break


def _parts(
    text: str, inside: Sequence[int], words: Sequence[Word], by: re.Pattern[str]
) -> Iterator[list[int]]:
    """Some words of a text, parted where a pattern is between them."""
    part: list[int] = []
    for at in inside:
        if part and by.search(text, words[part[-1]].end, words[at].start):
            yield part
            part = []
        part.append(at)
    if part:
        yield part


def _clauses(text: str, inside: Sequence[int], words: Sequence[Word]) -> Iterator[list[int]]:
    """The words of a sentence, parted at commas and at words that join, which are left out."""
    for part in _parts(text, inside, words, _COMMA):
        clause: list[int] = []
        for at in part:
            if words[at].text.lower() in _JOINING:
                yield clause
                clause = []
            else:
                clause.append(at)
        yield clause


def _told(text: str, words: Sequence[Word], run: Sequence[int], head: int) -> str:
    """The head as a label has it: in the plural, unless it is said as what has none."""
    before, word = text[: words[run[0]].start].lower().split()[-1:], words[head]
    return plural(word.stem) if before and before[0] in _ONE else word.text.lower()
