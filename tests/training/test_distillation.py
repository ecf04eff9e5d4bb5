from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.errors import TeacherError
from incatalog.training.distillation import Asked, Distiller, Expected
from incatalog.training.soft_targets import SpanTargets
from soft_spans import EOI, Spans, TableTeacher


def split_of(*histories: list[int]) -> LeaveOneOut:
    """Users with these training items; two more are held out."""
    named = [f"u{user}" for user in range(len(histories))]
    return leave_one_out(Histories.from_lists(named, [[*items, 0, 1] for items in histories]))


def distiller(teacher: Any, split: LeaveOneOut, **changes: Any) -> Distiller:
    options = {"share": 0.8, "temperature": 1.0, "best": 3} | changes
    return Distiller(teacher, split, **options)


def table(items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(items, items)).astype(np.float32)


def dense(expected: Expected, items: int) -> np.ndarray:
    share = np.full(items, expected.rest)
    share[expected.best] = expected.share
    share[expected.seen] = 0
    return share


def softmax(values: np.ndarray) -> np.ndarray:
    weights = np.exp(values - values.max())
    return weights / weights.sum()


@settings(max_examples=40, deadline=None)
@given(
    items=st.integers(3, 30),
    best=st.integers(1, 40),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    seed=st.integers(0, 99),
)
def test_expected_are_the_best_items_and_equal_parts_of_the_rest(
    items: int, best: int, temperature: float, seed: int
) -> None:
    values = table(items, seed)
    teacher = TableTeacher(values, temperature=2.0)
    history, whole = [2, 0], [2, 0, 1]
    asked = Asked(0, tuple(history))
    made = distiller(teacher, split_of(whole), best=best, temperature=temperature)
    found = made.expected([asked])[asked]

    scores = values[history].sum(0).astype(np.float64)
    scores[whole] -= 0.5
    scores[history] = -np.inf
    share = softmax(scores / (2.0 * temperature))
    order = np.argsort(-share, kind="stable")[: min(best, items - 2)]
    assert found.best.tolist() == order.tolist()
    np.testing.assert_allclose(found.share, share[order], rtol=1e-5)
    others = np.setdiff1d(np.arange(items), [*order, *history])
    if len(others):
        assert found.rest == pytest.approx(share[others].mean(), rel=1e-4)
    assert dense(found, items).sum() == pytest.approx(1, abs=1e-5)


def test_a_batch_is_one_question_and_answers_are_kept() -> None:
    teacher = TableTeacher(table(9))
    made = distiller(teacher, split_of([2, 3, 4], [5, 6, 7]))
    asked = [Asked(0, (2,)), Asked(0, (2, 3)), Asked(1, (2,)), Asked(0, (2,))]
    first = made.expected(asked)
    assert teacher.asked == [(3, True)]
    # The same history of another user leaves out other items.
    assert first[asked[0]].share.tolist() != first[asked[2]].share.tolist()
    again = made.expected([*asked, Asked(1, (5,))])
    assert teacher.asked == [(3, True), (1, True)]
    assert again[asked[1]] is first[asked[1]]


def test_many_items_are_asked_about_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = distiller(TableTeacher(table(9)), split_of([2, 3, 4]))
    asked = [Asked(0, (row,)) for row in range(5)]
    monkeypatch.setattr("incatalog.training.distillation._MOST_SCORES", 2 * 9)
    teacher = TableTeacher(table(9))
    parts = distiller(teacher, split_of([2, 3, 4])).expected(asked)
    assert [count for count, _ in teacher.asked] == [2, 2, 1]
    for question, found in whole.expected(asked).items():
        np.testing.assert_array_equal(parts[question].best, found.best)
        np.testing.assert_array_equal(parts[question].share, found.share)


def test_items_of_hardly_any_probability_are_still_in_order() -> None:
    values = np.zeros((6, 6), dtype=np.float32)
    values[2] = [900, 300, 0, 600, -np.inf, 0]
    made = distiller(TableTeacher(values), split_of([2, 3, 4]), best=9)
    found = made.expected([Asked(0, (2,))])[Asked(0, (2,))]
    assert found.best.tolist() == [0, 3, 1, 5]
    assert found.share.tolist() == [1, 0, 0, 0]
    assert found.rest == 0
    assert found.draw(np.random.default_rng(0), 6) == 0


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_a_named_error(wrong: float) -> None:
    values = table(5)
    values[3, 4] = wrong
    made = distiller(TableTeacher(values), split_of([2, 3, 4]))
    with pytest.raises(TeacherError, match=r"teacher: found .* after the history \[3\]"):
        made.expected([Asked(0, (2,)), Asked(0, (3,))])


def test_nothing_is_expected_where_every_item_was_seen() -> None:
    made = distiller(TableTeacher(table(3)), split_of([2, 0, 1]))
    asked = Asked(0, (0, 1, 2))
    found = made.expected([asked])[asked]
    assert found.nothing
    assert made.first(1, found, np.random.default_rng(0)) == 1
    for targets in (made.answer_targets([1], 1, found), *made.history_targets([found, None])):
        assert targets.hard.tolist() == [1]
        assert not len(targets.rows)


def expectation(items: int, best: int, seed: int = 0) -> tuple[Distiller, Expected]:
    made = distiller(TableTeacher(table(items, seed)), split_of([1, 0]), best=best)
    asked = Asked(0, (1, 0))
    return made, made.expected([asked])[asked]


def test_first_items_are_drawn_as_often_as_they_are_expected() -> None:
    items, count = 8, 20_000
    made, expected = expectation(items, 3)
    drawn = [made.first(5, expected, np.random.default_rng([0, n])) for n in range(count)]
    mixture = 0.8 * dense(expected, items)
    mixture[5] += 0.2
    found = np.bincount(drawn, minlength=items) / count
    np.testing.assert_allclose(found, mixture, atol=4 * np.sqrt(0.25 / count))
    assert found[[0, 1]].tolist() == [0, 0]
    assert drawn[:50] == [made.first(5, expected, np.random.default_rng([0, n])) for n in range(50)]


def test_targets_of_a_history_are_the_teachers_and_what_is_written() -> None:
    made, expected = expectation(7, 3)
    first, second = made.history_targets([None, expected])
    assert first.hard.tolist() == [1]
    assert second.hard.tolist() == pytest.approx([0.2])
    assert second.rows.tolist() == [*expected.best, 0, 1]
    assert second.share.tolist() == [*expected.share, 0, 0]
    assert second.rest.tolist() == [expected.rest]


def share_of(targets: SpanTargets, span: int, items: int) -> np.ndarray:
    share = np.full(items, targets.rest[span])
    here = slice(targets.offsets[span], targets.offsets[span + 1])
    share[targets.rows[here]] = targets.share[here]
    return share


@pytest.mark.parametrize("target", [0, 2, 6])
def test_answers_begin_with_the_mixture_and_go_on_without_what_they_named(target: int) -> None:
    """The target is an item of the history, one of the best, or another."""
    items = 9
    made, expected = expectation(items, 3, seed=1)
    assert expected.best.tolist() == [2, 4, 7]
    best = [row for row in expected.best.tolist() if row != target]
    answer = [5, *best]
    targets = made.answer_targets(answer, target, expected)
    mixture = 0.8 * dense(expected, items)
    mixture[target] += 0.2
    np.testing.assert_allclose(share_of(targets, 0, items), mixture, atol=1e-6)
    assert targets.hard.tolist() == pytest.approx([0] + [0.2] * len(best))
    for place in range(1, len(answer)):
        left = dense(expected, items)
        left[answer[:place]] = 0
        np.testing.assert_allclose(share_of(targets, place, items), left, atol=1e-6)


tokens = st.integers(0, 3)


@settings(max_examples=25, deadline=None)
@given(
    catalog=st.lists(
        st.lists(tokens, min_size=1, max_size=4).map(tuple), min_size=4, max_size=14, unique=True
    ),
    best=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.5, 0.8, 1.0]),
    seed=st.integers(0, 99),
)
def test_decisions_of_a_drawn_item_add_up_to_the_divergence_of_the_items(
    catalog: list[tuple[int, ...]], best: int, share: float, seed: int
) -> None:
    """Drawn as it is, an answer's first item costs the cross entropy of the two distributions."""
    items, target = len(catalog), 2
    made = distiller(TableTeacher(table(items, seed)), split_of([1, 0]), best=best, share=share)
    asked = Asked(0, (1, 0))
    expected = made.expected([asked])[asked]
    mixture = share * dense(expected, items)
    mixture[target] += 1 - share

    # A model: at each node some distribution over its children.
    rng = np.random.default_rng(seed)
    model: dict[tuple[int, ...], dict[int, float]] = {}
    rows = [list(one) for one in catalog]
    drawn = [row for row in range(items) if mixture[row] > 0]
    targets = [made.answer_targets([row], target, expected) for row in drawn]
    spans = Spans(rows, drawn, SpanTargets.joined(targets))
    divergence, log_probability = 0.0, np.zeros(len(drawn))
    for (span, depth), q in spans.found().items():
        prefix = catalog[drawn[span]][:depth]
        if prefix not in model:
            weights = rng.random(len(q)) + 0.01
            model[prefix] = dict(zip(sorted(q), weights / weights.sum(), strict=True))
        logs = {token: np.log(p) for token, p in model[prefix].items()}
        cost = -sum(part * logs[token] for token, part in q.items())
        divergence += mixture[drawn[span]] * cost
        log_probability[span] += logs[[*catalog[drawn[span]], EOI][depth]]
    wanted = -(mixture[drawn] * log_probability).sum()
    assert divergence == pytest.approx(wanted, abs=1e-5)
