"""Questions whether the catalog has something: "do you have The Matrix?", "is Alien in there?"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool

from incatalog.assistant.known_names import KnownNames
from incatalog.data.catalog import Catalog
from incatalog.data.where import Condition
from incatalog.data.word_forms import has_words
from incatalog.steering.wish import Filter

_THERE = (
    r"(?:in (?:there|here|it|stock|the (?:catalog(?:ue)?|list)|your (?:catalog(?:ue)?|list|shop|"
    r"store|collection|assortment))|available|on (?:the|your) list)"
)
_QUESTIONS = (
    re.compile(r"\b(?:do you (?:also |still )?(?:have|sell|carry|stock|offer|know)|"
               r"have you (?:got|heard of))\s+"
               r"(?P<name>[^?!.;\n]+)", re.IGNORECASE),
    re.compile(rf"\b(?:is|are)\s+(?P<name>[^?!;\n]+?)\s+{_THERE}\b", re.IGNORECASE),
)  # fmt: skip
_AROUND = re.compile(
    rf"^(?:the\s+)?(?:film|movie|book|game|product|item|title|one called)\s+|\s+{_THERE}$|"
    r"\s+(?:please|too|as well|by any chance)$|^[\"“'‘]+|[\"”'’]+$",
    re.IGNORECASE,
)
# What begins so is no name, but a wish.
_WISH = re.compile(
    r"(?:any|some|something|anything|someone|more|others?|another|an?|enough|good|nice|it|this|that|"
    r"these|those|them|there|one|ones|all|your|my|me|us|what|why|how|when|where|who|whom|whose|"
    r"which|whether|if|about|of|cheap\w*|new\w*|old\w*|similar)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset(("the", "a", "an"))
# More titles than these share a word, and are no answer to whether there is one.
_MOST = 3


@dataclass(frozen=True)
class Having:
    """What the catalog has of a name that was asked for.

    Attributes:
        rows: The items of that name, or whose titles have all of its words.
        missing: Whether no title has a word of it.
        unmet: What was asked of them and does not hold for all, such as "in stock".
    """

    rows: tuple[int, ...] = ()
    missing: bool = False
    unmet: tuple[str, ...] = ()

    def asked(self, filters: Sequence[Filter], catalog: Catalog) -> Having:
        """With what the filters ask of the items: whether they can be had, and other truths."""
        truths = [one for one in filters if _is_truth(one.condition)]
        rows = list(self.rows)
        unmet = [one.label for one in truths if not one.condition.rows(catalog)[rows].all()]
        return replace(self, unmet=tuple(unmet))


def name_asked_for(text: str) -> str | None:
    """The name in a question whether the catalog has it; None in others."""
    for question in _QUESTIONS:
        if match := question.search(text):
            name, before = match["name"].strip(), ""
            while name != before:
                before, name = name, _AROUND.sub("", name).strip()
            return name if _WORD.search(name) and not _WISH.match(name) else None
    return None


def _is_truth(condition: Condition) -> bool:
    return condition.value is True or (condition.op, condition.value) == ("gt", 0)


def having(
    text: str,
    catalog: Catalog,
    live: Bool[np.ndarray, " items"],
    known: KnownNames,
    *,
    understood: bool,
) -> Having | None:
    """What the catalog has of what a question asks for by its name.

    Args:
        text: The question.
        catalog: The items.
        live: Which of them may be named now.
        known: Their names.
        understood: Whether the question names a kind of item, and so may ask for any of it.

    Returns:
        None where nothing is asked for by a name, or where too many titles have it.
    """
    name = name_asked_for(text)
    if name is None:
        return None
    row = known.row(name)
    if row is not None and live[row]:
        return Having((row,))
    words = [word for word in _WORD.findall(name.lower()) if word not in _ARTICLES]
    if understood or not words:
        return None
    rows = np.flatnonzero(live).tolist()
    titles = [(one, catalog.item(one).title.lower()) for one in rows]
    every = has_words(" ".join(words))
    found = tuple(one for one, title in titles if every(title))
    if found:
        return Having(found) if len(found) <= _MOST else None
    either = [has_words(word) for word in words]
    return Having(missing=not any(has(title) for _, title in titles for has in either))
