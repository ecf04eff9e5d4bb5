"""Names in a model's prose: items of the catalog, and those that are none.

A model that was not trained on a catalog names whatever it has read of. What looks like the name of
an item and is none must not reach people who were promised the catalog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from incatalog.assistant.known_names import KnownNames
from incatalog.dialogue.list_lines import LIST_MARK


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_QUOTED = re.compile(
    r"[\"“”«]([^\"“”«»\n]{2,120})[\"“”»]"
    r"|(?<![\w'’])['‘]([A-Z0-9][^'’\n]{1,80}(?:['’]\w[^'’\n]{0,60})?)['’](?!\w)"
)
_MARKED = re.compile(r"(\*{1,3}|_{1,3})(?=\S)([^*_\n]{2,120}?)(?<=\S)\1")
_LIST_LINE = re.compile(rf"{LIST_MARK}(.+)$", re.MULTILINE)
# Behind these a list line says what its name is.
_HEAD_END = re.compile(r"\s+[-–—:(]|[:,;(]|\s+by\s|[.!?](?:\s|$)")
_DATED = re.compile(r"\((?:1[89]|20)\d\d\)")
_WORD = re.compile(r"[^\W_](?:[^\W_]|['’.\-/](?=[^\W_]))*")
_JOINING = _words(
    """
    of the and a an in on to for from with at by de la le du des der die das von vs n &
    """
)
_ARTICLES = ("the", "a", "an")
# Between words of one name.
_BETWEEN = re.compile(r"[ \t]+|:[ \t]+|[ \t]*&[ \t]*")
_SENTENCE_START = re.compile(r"(?:^|[.!?…:;\n][\"'”’)*_]*\s+|^\s*|[\n]\s*)[\"'“‘(*_\-–•\d.)\s]*$")
# What a person's or a place's name stands behind.
_PERSON = re.compile(
    r"(?:\bby|\bstarring|\bstars|\bactor|\bactress|\bactors|\bdirector|\bdirectors|\bauthor|"
    r"\bwriter|\bcomposer|\bsinger|\bmr\.?|\bmrs\.?|\bms\.?|\bdr\.?|\bname is|\bnamed|\bi am|\bi'm)"
    r"[ \t]+$",
    re.IGNORECASE,
)
_TELLS = re.compile(
    r"\s+(?:is|was|follows|tells|stars|features|has|takes|explores|centers|revolves|offers|"
    r"combines|shows|remains|became|won)\b"
)
# Words that have a capital in any prose.
_CAPITAL = _words(
    """
    i i'm i'll i've i'd ok okay ai tv dvd cd vhs usa uk us eu english american british french
    german italian spanish chinese japanese korean indian european african asian russian latin
    australian canadian irish mexican swedish monday tuesday wednesday thursday friday saturday
    sunday january february march april may june july august september october november december
    christmas halloween easter hollywood bollywood internet english-language
    """
)
# Words that begin a sentence, or stand in front of a name there, and are no name themselves.
_STARTING = _words(
    """
    a about absolutely add after again all also although an and another any anyone anything are as
    ask at based be because before both but by can certainly choose consider could did do does
    each either enjoy even every everyone everything example feel few finally find first for from
    get give given glad go good great had happy has have having he hello her here hey hi his how
    however i if in is it its just keep let let's like look looking many maybe me more most my
    next no none not nothing now of of course oh on once one only or other others otherwise our
    out overall perhaps personally pick please remember say see several share she should since so
    some someone something sometimes sorry sounds still such sure take tell thank thanks that
    that's the their them then there there's these they they're this those though to today
    together tonight too try two type under unfortunately until use usually very watch we we're
    welcome well were what what's whatever when where whether which while who whose why will wish
    with without would yes yet you you're you've your yours goodbye bye greetings
    """
)


class Name(NamedTuple):
    """Where a text has what looks like the name of an item."""

    start: int
    end: int
    row: int | None  # None where it is no item


def names_in(text: str, known: KnownNames) -> list[Name]:
    """What looks like the names of items in a text, in its order, none within another.

    These are what stands in quotes or is marked, the heads of lists, what a year in brackets
    follows, and words with capitals within a sentence, but for persons' names where the text says
    so, the words of categories, and what everyone writes with a capital.
    """
    found: list[Name] = []
    taken = bytearray(len(text))
    for start, end in _places(text, known):
        start, end = _trimmed(text, start, end)
        if start < end and taken.find(1, start, end) < 0:
            taken[start:end] = b"\1" * (end - start)
            found.append(Name(start, end, known.row(text[start:end])))
    return sorted(found)


def _places(text: str, known: KnownNames) -> Iterator[tuple[int, int]]:
    yield from known.written_out(text)
    for quoted in _QUOTED.finditer(text):
        group = 1 if quoted[1] is not None else 2
        if _is_name(quoted[group], known):
            yield quoted.span(group)
    for marked in _MARKED.finditer(text):
        if _is_name(marked[2].rstrip(":"), known):
            yield marked.span(2)
    for dated in _DATED.finditer(text):
        start = _run_before(text, dated.start(), dated.end(), known)
        if start is not None:
            yield start, dated.end()
    for line in _LIST_LINE.finditer(text):
        head = _HEAD_END.split(line[1], maxsplit=1)[0]
        if _is_name(head, known) and _is_titled(head):
            yield line.start(1), line.start(1) + len(head)
    yield from _runs(text, known)


def _is_name(text: str, known: KnownNames) -> bool:
    """Whether what stands out in a text is called like an item."""
    text = text.strip(" .,!?;:")
    if known.row(text) is not None:
        return True
    words = _WORD.findall(text)
    if not words or len(words) > 12 or not (text[0].isupper() or text[0].isdigit()):
        return False
    named = [word for word in words if not _usual(word, known) and word[0].isupper()]
    # A whole sentence that is quoted has one capital, in front.
    return bool(named) and (_is_titled(text) or len(words) <= 2)


def _is_titled(text: str) -> bool:
    words = [word for word in _WORD.findall(text) if word.casefold() not in _JOINING]
    return bool(words) and all(not word[0].islower() for word in words)


def _usual(word: str, known: KnownNames) -> bool:
    """Whether a word with a capital need not be part of a name."""
    plain = word.casefold().replace("’", "'").removesuffix("'s")
    if plain in _CAPITAL or plain in known.words or plain.isdigit():
        return True
    parts = plain.split("-")
    return len(parts) > 1 and all(part in known.words or part in _CAPITAL for part in parts)


def _run_before(text: str, at: int, end: int, known: KnownNames) -> int | None:
    """Where the words with capitals begin that stand directly in front of a year.

    The longest name of an item counts; what begins a sentence ("Try Heat") is no part of another.
    """
    starts: list[tuple[int, str]] = []
    at = len(text[:at].rstrip())
    for word in reversed(list(_WORD.finditer(text, 0, at))):
        between = text[word.end() : at]
        if not re.fullmatch(r"[\s,:&!?.'’\-]*", between) or "\n" in between:
            break
        if word[0][0].isupper() or word[0][0].isdigit():
            starts.append((word.start(), word[0].casefold()))
        elif word[0].casefold() not in _JOINING:
            break
        at = word.start()
    for start, _ in reversed(starts):
        if known.row(text[start:end]) is not None:
            return start
    while len(starts) > 1 and starts[-1][1] in _STARTING and starts[-1][1] not in _ARTICLES:
        starts.pop()
    return starts[-1][0] if starts else None


def _runs(text: str, known: KnownNames) -> Iterator[tuple[int, int]]:
    """Words with capitals within sentences, with the small words that join them."""
    run: list[re.Match[str]] = []
    for word in _WORD.finditer(text):
        if run and not _BETWEEN.fullmatch(text[run[-1].end() : word.start()]):
            yield from _run(text, run, known)
            run = []
        if word[0][0].isupper() or (run and (word[0].casefold() in _JOINING or word[0].isdigit())):
            run.append(word)
        elif run:
            yield from _run(text, run, known)
            run = []
    if run:
        yield from _run(text, run, known)


def _run(text: str, run: list[re.Match[str]], known: KnownNames) -> Iterator[tuple[int, int]]:
    """What of some joined words is called like an item."""
    while run and run[-1][0].casefold() in _JOINING and run[-1][0][0].islower():
        run = run[:-1]
    if not run:
        return
    start, end = run[0].start(), run[-1].end()
    first = bool(_SENTENCE_START.search(text[:start]))
    if len(run) > 1 and known.row(text[start:end]) is not None:
        yield start, end
        return
    parts = [part for part in _parted(run) if part]
    if len(parts) > 1:
        spans = [(part[0].start(), part[-1].end()) for part in parts]
        if all(known.row(text[slice(*span)]) is not None for span in spans):
            yield from spans
            return
    if _PERSON.search(text[:start]):
        return
    if first and run[0][0].casefold().replace("’", "'") in _STARTING:
        named = [word for word in run[1:] if word[0][0].isupper()]
        # The article belongs to the name.
        if not (run[0][0].casefold() in _ARTICLES and named):
            run = run[1:]
            while run and run[0][0].casefold() in _JOINING:
                run = run[1:]
            first = False
        if not named:
            return
    if not run:
        return
    start = run[0].start()
    named = [word for word in run if word[0][0].isupper() and not _usual(word[0], known)]
    if not named or all(word[0].casefold() in _STARTING for word in named):
        return
    if first and len(run) == 1:
        word = run[0][0]
        short = known.row(word) is not None
        usual = word.endswith(("s", "ing", "ly"))
        if short and not _TELLS.match(text, run[0].end()):
            return
        if not short and (usual or not _TELLS.match(text, run[0].end())):
            return
    elif first and len(named) == 1 and named[0] is run[0] and len(run) > 1:
        # "Drama and Comedy": the first word has its capital from the sentence.
        rest = [word for word in run[1:] if word[0][0].isupper()]
        if rest and all(_usual(word[0], known) for word in rest):
            return
    yield start, end


def _parted(run: list[re.Match[str]]) -> list[list[re.Match[str]]]:
    """Names that are joined by "and"."""
    parts: list[list[re.Match[str]]] = [[]]
    for word in run:
        if word[0] in ("and", "or", "&"):
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] in " \t\n*_\"'“”‘’":
        start += 1
    while end > start and text[end - 1] in " \t\n*_\"'“”‘’,;:":
        end -= 1
    return start, end
