from __future__ import annotations

import numpy as np
import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import DataError
from incatalog.teacher.words import WordsOptions, WordsTeacher, given_vectors, text_vectors

CATALOG = Catalog.from_items(
    [
        Item("a", "Red pen", "writes", ("Pens",)),
        Item("b", "Red ink", "fills", ("Inks",)),
        Item("c", "Blue cup", "holds &amp; warms", ("Cups",)),
        Item("d", "Green pen", "writes", ("Pens",)),
        Item("e", "???"),
    ],
    name="office",
)
NONE = np.zeros(5)


def test_words_that_fewer_items_have_count_more() -> None:
    # "red" and "pen" are each in two of five texts: idf = ln(6 / 3) + 1; others ln(6 / 2) + 1.
    common, rare = np.log(2) + 1, np.log(3) + 1
    found = text_vectors(CATALOG, "t").toarray()
    lengths = [np.hypot(common, common), np.hypot(common, rare), np.hypot(common, rare)]
    pen, ink, green = (found[row] for row in (0, 1, 3))
    assert pen @ ink == pytest.approx(common**2 / lengths[0] / lengths[1])
    assert pen @ green == pytest.approx(common**2 / lengths[0] / lengths[2])
    assert ink @ green == 0
    assert not found[4].any()


def test_the_wording_says_what_is_read() -> None:
    pens = {w: text_vectors(CATALOG, w).toarray()[[0, 3]] for w in ("t", "tc", "td", "tdc")}
    likeness = {wording: float(a @ b) for wording, (a, b) in pens.items()}
    assert likeness["t"] < likeness["tc"] < likeness["tdc"]
    assert likeness["t"] < likeness["td"] < likeness["tdc"]
    # Ten words are in titles and descriptions; the name of an HTML entity is none of them.
    assert text_vectors(CATALOG, "td").shape[1] == 10


def test_newer_items_count_more_and_none_speaks_for_itself() -> None:
    teacher = WordsTeacher.from_catalog(CATALOG, NONE, WordsOptions("t", newest=2, recency=0.5))
    vectors = text_vectors(CATALOG, "t").toarray()
    likeness = vectors @ vectors.T
    np.fill_diagonal(likeness, 0.0)
    found = teacher.scores([[2, 0, 1], [1, 2]])
    np.testing.assert_allclose(found[0], likeness[1] + 0.5 * likeness[0], atol=1e-6)
    np.testing.assert_allclose(found[1], likeness[2] + 0.5 * likeness[1], atol=1e-6)


def test_vectors_from_elsewhere_are_compared_without_their_mean() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(5, 4)) + 100
    teacher = WordsTeacher(CATALOG, NONE, given_vectors(vectors), WordsOptions(""))
    centred = vectors - vectors.mean(axis=0)
    cosines = centred @ centred[2] / np.linalg.norm(centred, axis=1) / np.linalg.norm(centred[2])
    cosines[2] = 0
    np.testing.assert_allclose(teacher.scores([[2]])[0], cosines, atol=1e-6)


def test_a_history_left_out_changes_nothing_but_the_popularity() -> None:
    teacher = WordsTeacher.from_catalog(CATALOG, np.array([3.0, 1, 0, 0, 0]))
    plain, without = (teacher.scores([[0], []], left_out=o) for o in (None, [[0, 1], [0, 0, 1]]))
    np.testing.assert_array_equal(plain[0], without[0])
    assert plain[1, 1] > plain[1, 2]
    assert without[1, 1] == without[1, 2]


def test_a_catalog_without_a_word_is_named() -> None:
    empty = Catalog.from_items([Item("a", "?"), Item("b", "!")], name="signs")
    with pytest.raises(DataError, match="catalog signs: no item has a word in its text"):
        text_vectors(empty, "t")
