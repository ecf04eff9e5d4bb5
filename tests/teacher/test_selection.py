from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher import selection
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher import InProcessTeacher


@pytest.fixture
def popularity(catalog: Catalog) -> Popularity:
    """Row r is better than row r + 1."""
    return Popularity(np.arange(len(catalog))[::-1].copy(), catalog)


def test_the_best_come_first_and_history_is_left_out(popularity: Popularity) -> None:
    assert popularity.top_k([[0, 2], []], 3).tolist() == [[1, 3, 4], [0, 1, 2]]


def test_items_of_the_history_stay_when_asked(popularity: Popularity) -> None:
    assert popularity.top_k([[0, 2]], 3, exclude_seen=False).tolist() == [[0, 1, 2]]


def test_minus_one_fills_up_where_too_few_remain(popularity: Popularity) -> None:
    found = popularity.top_k([[5], [5]], 4, candidates=[[7, 5, 3, 3], None], excluded=[[3], None])
    assert found.tolist() == [[7, -1, -1, -1], [0, 1, 2, 3]]


def test_k_may_exceed_the_catalog(popularity: Popularity) -> None:
    found = popularity.top_k([[0]], 30)
    assert found[0, :23].tolist() == list(range(1, 24))
    assert (found[0, 23:] == -1).all()


def test_an_empty_candidate_list_allows_nothing(popularity: Popularity) -> None:
    assert popularity.top_k([[0]], 2, candidates=[[]]).tolist() == [[-1, -1]]


def test_no_histories_no_answers(popularity: Popularity) -> None:
    assert popularity.top_k([], 3).shape == (0, 3)
    assert popularity.ranking([], []) == []
    assert popularity.scores([]).shape == (0, popularity.num_items)


def test_categories_in_and_out(popularity: Popularity) -> None:
    found = popularity.top_k([[]] * 4, 3, categories=["+odd", "-odd", "-few", None])
    assert found.tolist() == [[1, 3, 5], [0, 2, 4], [3, 4, 5], [0, 1, 2]]


def test_filters_combine(popularity: Popularity) -> None:
    found = popularity.top_k(
        [[3]], 3, candidates=[[1, 2, 3, 5, 9]], excluded=[[5]], categories=["+odd"]
    )
    assert found.tolist() == [[1, 9, -1]]


def test_ranks_are_those_in_the_whole_order(popularity: Popularity) -> None:
    ranks = popularity.ranking([[0, 1], [4]], [[5, 0, 5], []])
    assert [r.tolist() for r in ranks] == [[6, 1, 6], []]


def test_ranks_skip_filtered_items(popularity: Popularity) -> None:
    ranks = popularity.ranking(
        [[0, 1]], [[5, 0, 4, 7]], excluded=[[2]], categories=["+odd"], exclude_seen=True
    )
    # Left are 3, 5, 7, …: 0 and 1 are seen, 2 is excluded, 4 is even.
    assert ranks[0].tolist() == [2, -1, -1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"histories": [[1], [2, 24]]}, "history 1: row 24 not in the catalog; expected rows 0"),
        ({"histories": [[-1, 30, -1]]}, "history 0: row -1, 30 not in the catalog"),
        ({"histories": [[0]], "excluded": [[99]]}, "excluded 0: row 99 not in the catalog"),
        ({"histories": [[0]], "candidates": [[-5]]}, "candidates 0: row -5 not in the catalog"),
        ({"histories": [[0]], "candidates": []}, "candidates: found 0 entries; expected 1"),
        ({"histories": [[0]], "excluded": [[1], [2]]}, "excluded: found 2 entries; expected 1"),
        ({"histories": [[0]], "categories": []}, "categories: found 0 entries; expected 1"),
        ({"histories": [[0]], "categories": ["odd"]}, "categories: found 'odd'; expected +NAME"),
        ({"histories": [[0.5]]}, "history 0: found float64 values"),
        ({"histories": [["i1"]]}, "history 0: found <U2 values"),
        ({"histories": [[[1, 2]]]}, "history 0: found int64 values in 2 dimensions"),
        ({"histories": [[0]], "k": 0}, "k: found 0; expected at least 1"),
    ],
)
def test_what_cannot_be_answered_is_named(
    popularity: Popularity, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(TeacherError) as raised:
        popularity.top_k(**({"k": 3} | arguments))  # type: ignore[arg-type]
    assert message in str(raised.value)


def test_an_unknown_category_is_named(popularity: Popularity) -> None:
    with pytest.raises(CatalogError, match="evem"):
        popularity.top_k([[0]], 3, categories=["+evem"])


def test_a_network_needs_an_item(teacher: InProcessTeacher) -> None:
    with pytest.raises(TeacherError, match="history 1: empty"):
        teacher.top_k([[1], [], [2]], 3)


rows = st.lists(st.integers(0, 9), max_size=12)
optional_rows = st.none() | rows


@st.composite
def questions(draw: st.DrawFn) -> dict[str, object]:
    batch = draw(st.integers(1, 5))

    def per_history(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
        return st.none() | st.lists(strategy, min_size=batch, max_size=batch)

    return {
        "histories": draw(st.lists(rows, min_size=batch, max_size=batch)),
        "candidates": draw(per_history(optional_rows)),
        "excluded": draw(per_history(optional_rows)),
        "categories": draw(per_history(st.sampled_from([None, "+a", "-a", "+b", "-b"]))),
        "exclude_seen": draw(st.booleans()),
    }


CATEGORY_ROWS = {"a": {0, 1, 4, 7}, "b": {1, 2}}
SMALL = Catalog.from_items(
    [
        Item(f"{row}", f"T{row}", categories=tuple(c for c in "ab" if row in CATEGORY_ROWS[c]))
        for row in range(10)
    ],
    name="small",
)


def allowed(question: dict[str, object], index: int, *, use_candidates: bool) -> set[int]:
    def own(name: str) -> Sequence[int] | str | None:
        lists = question[name]
        return None if lists is None else lists[index]  # type: ignore[index, no-any-return]

    left = set(range(10))
    if use_candidates and own("candidates") is not None:
        left &= set(own("candidates"))  # type: ignore[arg-type]
    left -= set(own("excluded") or ())  # type: ignore[arg-type]
    if question["exclude_seen"]:
        left -= set(own("histories"))  # type: ignore[arg-type]
    category = own("categories")
    if category is not None:
        members = CATEGORY_ROWS[category[1]]  # type: ignore[index]
        left = left & members if category[0] == "+" else left - members
    return left


@settings(max_examples=300, deadline=None)
@given(
    question=questions(),
    counts=st.lists(st.integers(0, 3), min_size=10, max_size=10),
    k=st.integers(1, 12),
)
def test_answers_equal_brute_force_with_ties(
    question: dict[str, object], counts: list[int], k: int
) -> None:
    popularity = Popularity(np.array(counts), SMALL)
    found = popularity.top_k(k=k, **question)  # type: ignore[arg-type]
    histories: list[list[int]] = question["histories"]  # type: ignore[assignment]
    for index in range(len(histories)):
        left = allowed(question, index, use_candidates=True)
        order = sorted(left, key=lambda row: (-counts[row], row))[:k]
        assert found[index].tolist() == order + [-1] * (k - len(order))


@settings(max_examples=200, deadline=None)
@given(
    question=questions(),
    counts=st.lists(st.integers(0, 3), min_size=10, max_size=10),
    data=st.data(),
)
def test_ranks_equal_brute_force_with_ties(
    question: dict[str, object], counts: list[int], data: st.DataObject
) -> None:
    histories: list[list[int]] = question["histories"]  # type: ignore[assignment]
    asked = data.draw(st.lists(rows, min_size=len(histories), max_size=len(histories)))
    filters = {k: v for k, v in question.items() if k != "candidates"}
    found = Popularity(np.array(counts), SMALL).ranking(candidates=asked, **filters)  # type: ignore[arg-type]
    for index, candidates in enumerate(asked):
        left = allowed(question, index, use_candidates=False)
        order = sorted(left, key=lambda row: (-counts[row], row))
        expected = [order.index(row) + 1 if row in left else -1 for row in candidates]
        assert found[index].tolist() == expected


def test_answers_do_not_depend_on_the_block(
    teacher: InProcessTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 24, size=length) for length in rng.integers(1, 12, size=40)]
    whole = teacher.top_k(histories, 5)
    ranks = np.stack(teacher.ranking(histories, [[0, 1, 2]] * 40))
    monkeypatch.setattr(selection, "_BLOCK_HISTORIES", 3)
    np.testing.assert_array_equal(teacher.top_k(histories, 5), whole)
    np.testing.assert_array_equal(np.stack(teacher.ranking(histories, [[0, 1, 2]] * 40)), ranks)
