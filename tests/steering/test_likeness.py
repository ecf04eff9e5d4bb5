from __future__ import annotations

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer

from incatalog.steering.likeness import Likeness
from incatalog.steering.sentences import Sentences
from incatalog.steering.stems import stems
from shelves import LetterEncoder

TEXTS = ("red pens", "blue pens, blue paper", "a paper shredder", "pens")


def expected(texts: tuple[str, ...], words: dict[str, float]) -> np.ndarray:
    """Cosine of 1 + log(count) with count times rarity, on a table of all words."""
    counter = CountVectorizer(analyzer=stems)
    counts = counter.fit_transform(texts).toarray().astype(float)
    names = counter.get_feature_names_out()
    rarity = np.log(len(texts) / (counts > 0).sum(axis=0)) / np.log(len(texts))
    rows = np.where(counts > 0, 1 + np.log(np.maximum(counts, 1)), 0)
    asked = np.array([words.get(name, 0) for name in names]) * rarity
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    unknown = sum(value**2 for name, value in words.items() if name not in names)
    return rows @ asked / np.sqrt((asked**2).sum() + unknown)


def test_words_weigh_by_their_rarity() -> None:
    likeness = Likeness.of(TEXTS, None)
    for words in ({"pen": 1.0}, {"blue": 1.0, "pen": 0.5}, {"paper": 1.0, "zebra": 1.0}):
        found = likeness.by_words(list(words.items()))
        np.testing.assert_allclose(found, expected(TEXTS, words), atol=1e-12)


def test_vectors_compare_by_their_cosine() -> None:
    sentences = Sentences(LetterEncoder(), "letters")
    likeness = Likeness.of(TEXTS, sentences)
    [vector] = sentences.questions(["pen"])
    found = likeness.by_vectors(vector)
    np.testing.assert_allclose(found, sentences.items(TEXTS) @ vector, atol=1e-6)
    own = likeness.to_items([0])
    assert own.argmax() == 0
    np.testing.assert_allclose(own[0], 1, atol=1e-6)


def test_versions_share_what_is_read() -> None:
    encoder = LetterEncoder()
    before = Likeness.of(TEXTS, Sentences(encoder, "letters"))
    old = before.by_words([("pen", 1.0)])
    after = before.with_texts({1: "green ink", 4: "pens for boards"}, 5)
    assert encoder.read[-2:] == ["green ink", "pens for boards"]
    assert len(encoder.read) == 6
    changed = (TEXTS[0], "green ink", *TEXTS[2:], "pens for boards")
    fresh = Likeness.of(changed, Sentences(LetterEncoder(), "letters"))
    np.testing.assert_allclose(after.all_vectors(), fresh.all_vectors())
    assert (after.by_words([("green", 1.0)]) > 0).tolist() == [False, True, False, False, False]
    # Rarities are those of all texts that were ever read, so only the order is the same.
    assert np.argsort(before.by_words([("pen", 1.0)])).tolist() == np.argsort(old).tolist()
    assert before.with_texts({}, 4) is before


def test_likeness_to_items_by_words_alone() -> None:
    likeness = Likeness.of(TEXTS, None)
    assert np.argsort(-likeness.to_items([1]), kind="stable").tolist()[:2] == [1, 2]
