from __future__ import annotations

import numpy as np

from incatalog.data.catalog import Catalog, Item
from incatalog.steering.described_items import all_described
from incatalog.steering.kinds import Kinds
from incatalog.steering.likeness import Likeness
from incatalog.steering.sentences import Sentences
from shelves import FILMS, LetterEncoder


def test_an_item_is_meant_as_much_as_its_categories_together() -> None:
    sentences = Sentences(LetterEncoder(), "letters")
    likeness = Likeness.of(all_described(FILMS), sentences)
    kinds = Kinds.of(FILMS, likeness)
    assert kinds is not None
    [vector] = sentences.questions(["horror"])
    found = np.exp(kinds.log_meant(vector)) - 0.02
    vectors, odds = likeness.all_vectors().astype(float), {}
    for name in FILMS.categories:
        centre = vectors[FILMS.category_rows(name)].mean(axis=0)
        odds[name] = np.exp(centre @ vector / np.linalg.norm(centre) / 0.035)
    total = sum(odds.values())
    for row, item in enumerate(FILMS.items):
        expected = sum(odds[name] for name in item.categories) / total
        np.testing.assert_allclose(found[row], expected, atol=1e-4)


def test_where_there_is_nothing_to_choose_from() -> None:
    plain = Catalog.from_items([Item("1", "A", categories=("X",)), Item("2", "B")])
    read = Likeness.of(all_described(plain), Sentences(LetterEncoder(), "letters"))
    assert Kinds.of(plain, read) is None
    assert Kinds.of(FILMS, Likeness.of(all_described(FILMS), None)) is None
