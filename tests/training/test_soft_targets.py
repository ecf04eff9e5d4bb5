from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.training.losses import LabelledSpans, scoped_cross_entropy, scoped_targets
from incatalog.training.soft_targets import SpanTargets, item_choices
from soft_spans import EOI, HIDDEN, VOCAB, Spans

tokens = st.integers(0, 4)
catalogs = st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=2, max_size=12)


def spans_of(draw: st.DrawFn, written: list[int], num_items: int) -> SpanTargets:
    """Random targets for spans: some items listed, perhaps all or none, some of no share."""
    hard, rest, sizes, rows, share = [], [], [], [], []
    for _ in written:
        count = draw(st.integers(0, num_items))
        rows += draw(st.permutations(range(num_items)))[:count]
        share += draw(
            st.lists(st.sampled_from([0.0, 1e-7, 0.01, 0.3, 0.5]), min_size=count, max_size=count)
        )
        sizes.append(count)
        hard.append(draw(st.sampled_from([0.0, 0.2, 1.0])))
        rest.append(draw(st.sampled_from([0.0, 1e-5, 0.04])))
    return SpanTargets(
        np.array(hard), np.array(rest), np.cumsum([0, *sizes]), np.array(rows, dtype=np.int32),
        np.array(share, dtype=np.float32),
    )  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(catalog=catalogs, data=st.data())
def test_targets_equal_the_dense_reference(catalog: list[list[int]], data: st.DataObject) -> None:
    rows = st.integers(0, len(catalog) - 1)
    written = data.draw(st.lists(rows, min_size=1, max_size=5))
    soft = spans_of(data.draw, written, len(catalog))
    Spans(catalog, written, soft).check(np.ones(len(catalog)))


@settings(max_examples=40, deadline=None)
@given(
    catalog=st.lists(
        st.lists(tokens, min_size=1, max_size=4).map(tuple), min_size=4, max_size=12, unique=True
    ),
    ratio=st.sampled_from([0.0, 0.3, 1.0]),
    data=st.data(),
)
def test_spellings_share_what_is_expected_of_their_item(
    catalog: list[tuple[int, ...]], ratio: float, data: st.DataObject
) -> None:
    titles = data.draw(st.integers(2, len(catalog) - 1))
    others = [data.draw(st.integers(0, titles - 1)) for _ in catalog[titles:]]
    items = [*range(titles), *others]
    written = data.draw(st.lists(st.integers(0, len(catalog) - 1), min_size=1, max_size=4))
    soft = spans_of(data.draw, written, titles)
    count = np.bincount(items)
    part = [
        1.0 if count[item] == 1 else 1 - ratio if row < titles else ratio / (count[item] - 1)
        for row, item in enumerate(items)
    ]
    Spans([list(one) for one in catalog], written, soft, items, ratio).check(np.array(part))


@settings(max_examples=20, deadline=None)
@given(catalog=catalogs, seed=st.integers(0, 99), data=st.data())
def test_loss_and_gradients_equal_those_of_the_dense_reference(
    catalog: list[list[int]], seed: int, data: st.DataObject
) -> None:
    rows = st.integers(0, len(catalog) - 1)
    written = data.draw(st.lists(rows, min_size=1, max_size=4))
    spans = Spans(catalog, written, spans_of(data.draw, written, len(catalog)))
    generator = torch.Generator().manual_seed(seed)
    shape = (*spans.ids.shape, HIDDEN)
    tensors = [
        torch.randn(size, generator=generator).requires_grad_()
        for size in (shape, (VOCAB, HIDDEN), (VOCAB,))
    ]
    hidden, weight, bias = tensors
    logits = hidden @ weight.T + bias
    total = logits.sum() * 0
    for (span, depth), q in spans.expected(np.ones(len(catalog))).items():
        logp = torch.log_softmax(logits[span, depth + 1, list(q)], 0)
        total = total - torch.tensor(list(q.values()), dtype=torch.float32) @ logp
    total = total / spans.targets.num_labels
    found = scoped_cross_entropy(hidden, weight, spans.targets, bias=bias)
    torch.testing.assert_close(found, total, atol=1e-5, rtol=1e-5)
    for got, wanted in zip(
        torch.autograd.grad(found, tensors, allow_unused=True),
        torch.autograd.grad(total, tensors, allow_unused=True),
        strict=True,
    ):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero.expand_as(wanted) if got is None else got, wanted, atol=1e-5, rtol=1e-5
        )


def test_targets_worked_out_by_hand() -> None:
    # Root: 1 (three items), 2, 3. Node [1]: 4, 5, 6. Item 1 has half of it all, item 3 a fifth,
    # and three others a tenth each.
    catalog = [[1, 4], [1, 5], [1, 6], [2], [3]]
    soft = SpanTargets(
        np.array([0.2]), np.array([0.1]), np.array([0, 2]),
        np.array([3, 1], dtype=np.int32), np.array([0.2, 0.5], dtype=np.float32),
    )  # fmt: skip
    found = Spans(catalog, [0], soft).found()
    assert found[0, 0] == pytest.approx({1: 0.2 + 0.8 * 0.7, 2: 0.8 * 0.2, 3: 0.8 * 0.1})
    seventh = 0.8 / 7
    assert found[0, 1] == pytest.approx({4: 0.2 + seventh, 5: 5 * seventh, 6: seventh})


def test_written_items_alone_are_the_loss_without_soft_targets() -> None:
    catalog = [[1, 4], [1, 5], [1, 6], [2], [2, 3]]
    spans = Spans(catalog, [0, 3, 4], SpanTargets.written(3))
    hidden, weight = torch.randn(*spans.ids.shape, HIDDEN), torch.randn(VOCAB, HIDDEN)
    found = scoped_cross_entropy(hidden, weight, spans.targets)
    rows = np.array([0, 3, 4])
    sizes = np.array([2, 1, 2])
    plain = scoped_targets(
        spans.trie, spans.ids, np.zeros(spans.ids.shape, dtype=bool),
        LabelledSpans(np.arange(3), np.ones(3, dtype=np.int64), sizes + 3, rows), eoi_token_id=EOI,
    )  # fmt: skip
    torch.testing.assert_close(found, scoped_cross_entropy(hidden, weight, plain))


def test_targets_go_to_another_device_whole() -> None:
    targets = Spans([[1], [2]], [0], SpanTargets.written(1)).targets.to("meta")
    assert targets.soft is not None
    assert {targets.free_token.device.type, targets.soft.extra.device.type} == {"meta"}


def test_joined_targets_keep_their_spans_apart() -> None:
    one = SpanTargets(
        np.array([0.5, 0.0]), np.array([0.1, 0.2]), np.array([0, 1, 3]),
        np.array([7, 8, 9], dtype=np.int32), np.array([0.3, 0.2, 0.1], dtype=np.float32),
    )  # fmt: skip
    joined = SpanTargets.joined([SpanTargets.written(1), one, one])
    assert joined.hard.tolist() == [1, 0.5, 0, 0.5, 0]
    assert joined.rest.tolist() == [0, 0.1, 0.2, 0.1, 0.2]
    parts = [joined.rows[a:b].tolist() for a, b in pairwise(joined.offsets)]
    assert parts == [[], [7], [8, 9], [7], [8, 9]]


def test_items_taken_whole_have_their_normalised_share() -> None:
    soft = SpanTargets(
        np.array([0.2, 1.0, 0.0]), np.array([0.1, 0.0, 0.0]), np.array([0, 2, 2, 3]),
        np.array([3, 1, 0], dtype=np.int32), np.array([0.2, 0.5, 0.0], dtype=np.float32),
    )  # fmt: skip
    choices = item_choices(soft, 4)
    dense = choices.even[:, None] * choices.below
    dense.view(-1).index_add_(0, choices.listed, choices.extra)
    # The items sum to 0.9; what is written counts where nothing else may stand.
    np.testing.assert_allclose(dense[0], 0.8 / 0.9 * np.array([0.1, 0.5, 0.1, 0.2]), atol=1e-6)
    assert choices.hard.tolist() == pytest.approx([0.2, 1.0, 1.0])
    assert not dense[1:].any()


def test_paths_of_a_catalog_of_one_item_are_empty() -> None:
    spans = Spans([[1, 2]], [0], SpanTargets.written(1))
    assert spans.targets.block_shape == ()
    loss = scoped_cross_entropy(
        torch.randn(1, 5, HIDDEN), torch.randn(VOCAB, HIDDEN), spans.targets
    )
    assert math.isfinite(loss.item())
