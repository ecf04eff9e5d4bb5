"""What stands around a list of items, and lines that stand for one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from incatalog.assistant.facts import AskedFor, chosen, listed, together
from incatalog.data.catalog import Catalog

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MOST_NAMED = 2
# Behind what is known of an item, where something else was asked.
NO_MORE = "The catalog says no more of it."
NO_MORE_OF_THEM = "The catalog says no more of them."
# Lists begin with what fits best.
FIRST = "Of these I would take the first, which fits best."
# The name is not repeated, as it may be that of an item that does not exist.
UNMENTIONED = "The catalog knows nothing of a name that you gave, so this is a guess."
MISSING = "No title in the catalog is like that."


def opening(
    count: int, named: AskedFor, liked: Sequence[str], *, popular: bool, seed: object = 0
) -> str:
    """The line before a list, made of what was understood.

    Args:
        count: How many items follow.
        named: What the request named.
        liked: Titles of the history, oldest first.
        popular: Whether the list is what most people take, as nothing is known.
        seed: The words vary with it.
    """
    these = "this one" if count == 1 else f"these {number(count)}"
    fits, comes = ("fits", "comes") if count == 1 else ("fit", "come")
    asked, without = together(named.labels), listed(named.unwanted, "or")
    minding = _minding(named)
    but = f", without {without}" if without else ""
    things = together(named.labels, "something")
    if asked and minding:
        return f"You asked for {things}{but}; {minding}, {these} {comes} closest:"
    if asked:
        ways = (
            f"You asked for {things}{but}; {these} {fits} best:",
            f"{asked[:1].upper() + asked[1:]}{but}: {these} {fits} you best:",
        )
        return chosen(ways, seed)
    if minding:
        also = f" and without {without}" if without else ""
        return f"{minding[:1].upper()}{minding[1:]}{also}, {these} {comes} closest:"
    titles = listed(list(liked)[-_MOST_NAMED:][::-1])
    if without:
        after = f" after {titles}" if liked else ""
        return f"Without {without}, I would pick {these}{after}:"
    if liked:
        ways = (
            f"After {titles}, {these} should suit you:",
            f"Going by what you liked, such as {titles}, I would pick {these}:",
        )
        return chosen(ways, seed)
    if popular and count == 1:
        return "I do not know your taste yet; most people take this one:"
    if popular:
        return "I do not know your taste yet, so here is what most people take:"
    return f"Going by what you said, {these} {comes} closest:"


def lacking_line(lacking: Sequence[str]) -> str:
    """What is said where a limit is of something that the catalog does not know."""
    return f"The catalog has no {listed(list(lacking), 'or')}, so I could not go by them."


def _minding(named: AskedFor) -> str:
    """What an answer went by, though items may fit it more or less."""
    words = listed([f"“{word}”" for word in named.words[:_MOST_NAMED]])
    avoided = listed([f"“{text}”" for text in named.avoided[-_MOST_NAMED:]])
    parts = [f"with {words} in mind" if words else "", f"away from {avoided}" if avoided else ""]
    return " and ".join(filter(None, parts))


def having_line(unmet: Sequence[str], lacking: Sequence[str]) -> str:
    """What is said before the items that were asked for by name."""
    if unmet:
        return f"In the catalog, but not {listed(list(unmet), 'or')}:"
    # Whether they can be had is then not known.
    return lacking_line(lacking) if lacking else "Yes:"


def closing(count: int, wanted: int, *, liked: bool, seed: object = 0) -> str:
    """The line behind a list."""
    if count < wanted:
        return f"The catalog has no more than {'this one' if count == 1 else 'these'} that fit."
    if not liked:
        return "Tell me one that you like, and I can do better."
    them = "it is" if count == 1 else "any of them is"
    ways = (
        f"Ask me why {them} here, or say what you would rather have.",
        "Say which one comes closest, and I will look for more like it.",
        "Not quite? Tell me what to leave out.",
    )
    return chosen(ways, seed)


def nothing_fits(named: AskedFor) -> str:
    """What is said where no item fulfils what was asked."""
    asked = together([*named.labels, *(f"not {one}" for one in named.unwanted)])
    what = f"is {asked}" if asked else "fulfils that"
    return f"Nothing in the catalog {what}. Take one of the filters off, and ask again."


_SMALL_TALK: tuple[tuple[str, str], ...] = (
    (r"thank|thx|cheers|perfect|great|cool|awesome|nice|wonderful|lovely",
     "You are welcome. Say so whenever you want more."),
    (r"bye|good night|see you", "Goodbye, and enjoy it."),
    (r"how are you|what(?:'s| is) up", "Fine, thank you. What are you looking for today?"),
    (r"sorry|never mind", "No harm done. What would you like instead?"),
    (r"ok(?:ay)?|sure|got it", "All right. Ask me for more whenever you like."),
)  # fmt: skip


def small_talk(text: str, catalog: Catalog) -> str:
    """A line for a greeting, for thanks and the like."""
    for pattern, line in _SMALL_TALK:
        if re.search(rf"\b(?:{pattern})", text, re.IGNORECASE):
            return line
    return f"Hello! Name something you like from {catalog.name}, or say what you are looking for."


def help_line(catalog: Catalog) -> str:
    """What can be asked for."""
    kinds = [name for name, _ in sorted(
        ((name, len(catalog.category_rows(name))) for name in catalog.categories),
        key=lambda pair: -pair[1],
    )[:3]]  # fmt: skip
    such = f", such as {listed(kinds, 'or')}" if kinds else ""
    return (
        f"I recommend from the {catalog.num_live:,} items of {catalog.name}, and nothing else. "
        f"Name some you like, or say what you are looking for{such}. Ask me why about any of them."
    )


def redirect_line(catalog: Catalog) -> str:
    """What is said where nothing that the model says may be said."""
    return (
        f"I had better not say: all I know for certain is the catalog of {catalog.name}. "
        "Shall I recommend something from it?"
    )


def number(count: int) -> str:
    """A count in words, as far as one writes them."""
    return _NUMBERS[count] if 0 <= count < len(_NUMBERS) else f"{count:,}"
