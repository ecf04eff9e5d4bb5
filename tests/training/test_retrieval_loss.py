from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from incatalog.errors import TrieError
from incatalog.model.head import RetrievalHead
from incatalog.training.losses import LabelledSpans
from incatalog.training.retrieval_loss import (
    ItemTargets,
    retrieval_cross_entropy,
    retrieval_targets,
    sampled_scores,
    seen_before,
)
from incatalog.training.soft_targets import SpanTargets


def spans(*rows: tuple[int, int, int, int]) -> LabelledSpans:
    return LabelledSpans(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)


def by_hand() -> RetrievalHead:
    """Hidden states of width 2, three items with vectors (0, 0), (2, 0), (0, 2) over sqrt(2)."""
    head = RetrievalHead(2, 3, 2)
    head.projection.weight.data = torch.eye(2)
    head.projection.bias.data.zero_()
    head.vectors.data = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    head.vectors.requires_grad_(True)
    return head


def test_loss_and_gradients_equal_those_worked_out_by_hand() -> None:
    head = by_hand()
    # The state at position 1 is chosen so that the scores are 0, log 2 and 0.
    x = math.log(2) / math.sqrt(2)
    hidden = torch.tensor([[[9.0, 9.0], [x, 0.0], [9.0, 9.0]]], requires_grad=True)
    targets = ItemTargets(torch.tensor([1]), torch.tensor([1]))
    loss = retrieval_cross_entropy(hidden, head, targets)
    loss.backward()
    # Probabilities 1/4, 1/2, 1/4; the right item is the second.
    assert loss.item() == pytest.approx(math.log(2))
    slope = np.array([1 / 4, 1 / 2 - 1, 1 / 4])
    query = np.array([x, 0.0]) / math.sqrt(2)
    np.testing.assert_allclose(head.vectors.grad, np.outer(slope, query), atol=1e-6)
    d_query = slope @ np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]]) / math.sqrt(2)
    np.testing.assert_allclose(head.projection.bias.grad, d_query, atol=1e-6)
    np.testing.assert_allclose(head.projection.weight.grad, np.outer(d_query, [x, 0.0]), atol=1e-6)
    expected = np.zeros((1, 3, 2))
    expected[0, 1] = d_query
    np.testing.assert_allclose(hidden.grad, expected, atol=1e-6)


def test_mean_is_over_spans_or_over_those_of_the_whole_step() -> None:
    head = by_hand()
    hidden = torch.randn(2, 3, 2)
    targets = ItemTargets(torch.tensor([0, 4, 5]), torch.tensor([2, 0, 0]))
    logits = torch.nn.functional.linear(
        hidden.view(-1, 2)[[0, 4, 5]] / math.sqrt(2), head.vectors.data
    )
    each = torch.nn.functional.cross_entropy(logits, targets.row, reduction="none")
    assert retrieval_cross_entropy(hidden, head, targets).item() == pytest.approx(
        each.mean().item()
    )
    shared = retrieval_cross_entropy(hidden, head, targets, num_spans=torch.tensor(12))
    assert shared.item() == pytest.approx(each.sum().item() / 12)


def test_what_was_seen_has_no_part_of_the_softmax() -> None:
    span, row = seen_before([4, 2, 4, 7, 2], [False, True, True, True, True])
    assert span.tolist() == [0, 1, 2, 2, 3, 3]
    assert row.tolist() == [4, 2, 2, 4, 4, 7]
    assert [len(part) for part in seen_before([3], [True])] == [0, 0]
    head, hidden = by_hand(), torch.randn(1, 3, 2)
    # The second span cannot name the first item, the third none of the others.
    barred = torch.tensor([1, 2, 2]), torch.tensor([0, 1, 2])
    rows = torch.tensor([2, 1, 0])
    targets = ItemTargets(torch.tensor([0, 1, 2]), rows, None, *barred)
    scores = torch.nn.functional.linear(hidden[0] / math.sqrt(2), head.vectors.data)
    scores[barred] = -math.inf
    expected = -(scores - scores.logsumexp(1, keepdim=True))[torch.arange(3), rows].mean()
    loss = retrieval_cross_entropy(hidden, head, targets)
    assert loss.item() == pytest.approx(expected.item())
    loss.backward()
    assert torch.isfinite(head.vectors.grad).all()


@pytest.mark.parametrize("negatives", [0, 2])
def test_no_span_is_no_loss_and_zero_gradients(negatives: int) -> None:
    head = by_hand()
    hidden = torch.randn(1, 4, 2, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    loss = retrieval_cross_entropy(hidden, head, ItemTargets(none, none), negatives=negatives)
    loss.backward()
    assert loss.item() == 0
    for tensor in (hidden, *head.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_estimated_sum_is_right_on_average() -> None:
    """Over all draws of one item, the mean of the denominators is the sum over all items."""
    torch.manual_seed(0)
    head = RetrievalHead.create(4, np.random.default_rng(0).standard_normal((9, 3)).astype("f"))
    query = head.query(torch.randn(3, 4) * 3)
    rows = torch.tensor([5, 2, 5])
    denominators = []
    for drawn in range(9):
        scores, right = sampled_scores(query, head, rows, torch.tensor([drawn]))
        assert scores[range(3), right].tolist() == head.scores(query)[range(3), rows].tolist()
        denominators.append(scores.exp().sum(1))
    expected = head.scores(query).exp().sum(1)
    torch.testing.assert_close(torch.stack(denominators).mean(0), expected)


def test_drawing_every_item_gives_nearly_the_exact_loss() -> None:
    torch.manual_seed(0)
    head = RetrievalHead.create(4, np.random.default_rng(0).standard_normal((50, 3)).astype("f"))
    hidden = torch.randn(1, 6, 4)
    targets = ItemTargets(torch.arange(6), torch.tensor([4, 8, 4, 30, 1, 0]))
    exact = retrieval_cross_entropy(hidden, head, targets).item()
    sampled = retrieval_cross_entropy(hidden, head, targets, negatives=20_000).item()
    assert sampled == pytest.approx(exact, rel=0.02)


def test_targets_are_text_outside_spans_and_the_state_before_each_span() -> None:
    # Two samples: text, span of item 7, text; general text only. 0 pads.
    ids = np.array([[5, 6, 1, 8, 9, 2, 6, 3], [5, 6, 7, 3, 0, 0, 0, 0]])
    labelled = np.array([[0, 0, 1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0, 0, 0]], dtype=bool)
    language, items = retrieval_targets(ids, labelled, spans((0, 2, 6, 7)))
    assert items.position.tolist() == [1]
    assert items.row.tolist() == [7]
    # The opening token (1) is language, the item's tokens (8, 9) and the closing one (2) are not.
    assert language.free_token.tolist() == [1, 6, 3, 6, 7, 3]
    assert language.free_position.tolist() == [1, 5, 6, 8, 9, 10]
    assert language.num_labels == 6
    assert language.block_shape == ()
    with pytest.raises(TrieError, match="begins with an item span"):
        retrieval_targets(ids, labelled, spans((0, 2, 6, 7), (1, 0, 3, 7)))


def test_soft_targets_equal_the_distribution_written_out() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(7, 3, generator=generator).numpy()
    head = RetrievalHead.create(4, values, train_vectors=True)
    hidden = torch.randn(1, 9, 4, generator=generator).requires_grad_()
    ids = np.zeros((1, 9), dtype=np.int64)
    soft = SpanTargets(
        np.array([0.2, 1.0]), np.array([0.05, 0.0]), np.array([0, 3, 3]),
        np.array([6, 2, 0], dtype=np.int32), np.array([0.5, 0.3, 0.0], dtype=np.float32),
    )  # fmt: skip
    _, targets = retrieval_targets(ids, ids > 0, spans((0, 1, 4, 2), (0, 5, 8, 3)), (7, soft))
    q = torch.zeros(2, 7)
    # The four others have a twentieth each, which adds up to 1.
    q[0] = 0.8 * torch.tensor([0.0, 0.05, 0.3, 0.05, 0.05, 0.05, 0.5])
    q[0, 2] += 0.2
    q[1, 3] = 1
    logp = torch.log_softmax(head.scores(head.query(hidden[0, [0, 4]])), -1)
    expected = -(q * logp).sum() / 2
    found = retrieval_cross_entropy(hidden, head, targets)
    tensors = [hidden, *(one for one in head.parameters() if one.requires_grad)]
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, tensors)
    for got, grad in zip(torch.autograd.grad(found, tensors), wanted, strict=True):
        torch.testing.assert_close(got, grad, atol=1e-6, rtol=1e-5)
    shared = retrieval_cross_entropy(hidden, head, targets, num_spans=6)
    assert shared.item() == pytest.approx(expected.item() / 3)
