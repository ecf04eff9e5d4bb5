"""Singular and plural: the form in which words are compared, and texts that have some words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_WORD = re.compile(r"[^\W_]+")
# What the usual rules would get wrong.
_IRREGULAR = {
    "children": "child", "men": "man", "women": "woman", "people": "person", "movies": "movie",
    "series": "series", "news": "news", "feet": "foot", "teeth": "tooth", "mice": "mouse",
    "wolves": "wolf", "knives": "knife", "lives": "life", "wives": "wife", "shelves": "shelf",
    "ties": "tie", "pies": "pie", "zombies": "zombie", "cookies": "cookie", "selfies": "selfie",
}  # fmt: skip
_KEPT = ("ss", "us", "is", "as", "os")


def stem(word: str) -> str:
    """A word in lower case without accents, and in the singular as far as its letters say."""
    word = unicodedata.normalize("NFKD", word.casefold())
    word = "".join(letter for letter in word if not unicodedata.combining(letter))
    word = re.sub(r"['’]s?$", "", word).replace("'", "").replace("’", "")
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if len(word) < 4 or not word.endswith("s") or word.endswith(_KEPT):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word[:-1]


def plural(word: str) -> str:
    """The usual plural of a word in lower case."""
    if stem(word) != word:
        return word
    if word in _PLURALS:
        return _PLURALS[word]
    if re.search(r"[^aeiou]y$", word):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def has_words(text: str) -> Callable[[str], bool]:
    """What says of a text whether it has all words of another, each in the singular or plural.

    Capitals count, so that both should be in lower case.
    """
    patterns = [re.compile(_pattern(word)) for word in dict.fromkeys(_WORD.findall(text))]
    return lambda other: all(pattern.search(other) for pattern in patterns)


def _pattern(word: str) -> str:
    one = stem(word)
    forms = {word}
    # An id in capitals is no noun.
    if word == word.casefold():
        forms |= {one, plural(one)}
        forms |= {form for form in (f"{one}s", f"{one}es") if stem(form) == one}
    told = "|".join(map(re.escape, sorted(forms, key=len, reverse=True)))
    return rf"(?<![^\W_])(?:{told})(?![^\W_])"


_PLURALS = {one: many for many, one in _IRREGULAR.items() if many != one}
