"""What stands around a list of items, and lines that stand for one."""

from __future__ import annotations

from collections.abc import Sequence

from incatalog.assistant.facts import chosen, listed
from incatalog.data.catalog import Catalog

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_MOST_NAMED = 2
# Behind what is known of an item, where something else was asked.
NO_MORE = " The catalog says no more of it."


def opening(
    count: int, labels: Sequence[str], liked: Sequence[str], *, popular: bool, seed: object = 0
) -> str:
    """The line before a list, made of what was understood.

    Args:
        count: How many items follow.
        labels: What the request named, in words.
        liked: Titles of the history, oldest first.
        popular: Whether the list is what most people take, as nothing is known.
        seed: The words vary with it.
    """
    these = "this one" if count == 1 else f"these {number(count)}"
    fits = "fits" if count == 1 else "fit"
    if labels:
        asked = listed(labels)
        ways = (
            f"You asked for {asked}; {these} {fits} best:",
            f"{asked[:1].upper() + asked[1:]}: {these} {fits} you best:",
        )
        return chosen(ways[:1] if len(labels) > 1 else ways, seed)
    if liked:
        named = listed(list(liked)[-_MOST_NAMED:][::-1])
        ways = (
            f"After {named}, {these} should suit you:",
            f"Going by what you liked, such as {named}, I would pick {these}:",
        )
        return chosen(ways, seed)
    if popular:
        return (
            "I do not know your taste yet, so here is what most people take:"
            if count > 1
            else "I do not know your taste yet; most people take this one:"
        )
    return f"Going by what you said, {these} {'comes' if count == 1 else 'come'} closest:"


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


def nothing_fits(labels: Sequence[str]) -> str:
    """What is said where no item fulfils what was asked."""
    asked = f" of {listed(labels)}" if labels else ""
    return f"Nothing in the catalog fulfils all{asked}. Take one of the filters off, and ask again."


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
