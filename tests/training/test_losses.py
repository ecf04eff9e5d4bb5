from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.config import LossType, ScopeType
from incatalog.errors import TrieError
from incatalog.training import output_layer
from incatalog.training.losses import (
    LabelledSpans,
    ScopedTargets,
    scoped_cross_entropy,
    scoped_targets,
)
from incatalog.trie.trie import ItemTrie

SOI, EOI, PAD, VOCAB, HIDDEN = 20, 21, 22, 24, 8
SCOPES = get_args(ScopeType)
LOSSES = get_args(LossType)


class Batch:
    """Samples written as lists of ids and item rows: a row in a tuple is a span."""

    def __init__(self, catalog: list[list[int]], samples: list[list[Any]]) -> None:
        self.catalog = catalog
        self.trie = ItemTrie.build(catalog)
        ids: list[list[int]] = []
        spans: list[tuple[int, int, int, int]] = []
        for number, sample in enumerate(samples):
            flat: list[int] = []
            for part in sample:
                if isinstance(part, tuple):
                    start = len(flat)
                    flat += [SOI, *catalog[part[0]], EOI]
                    spans.append((number, start, len(flat), part[0]))
                else:
                    flat.append(part)
            ids.append(flat)
        length = max(map(len, ids))
        self.ids = np.array([row + [PAD] * (length - len(row)) for row in ids], dtype=np.int32)
        self.labelled = self.ids != PAD
        self.labelled[:, 0] = False
        columns = np.array(spans, dtype=np.int64).reshape(-1, 4).T
        self.spans = LabelledSpans(*columns)

    def targets(self, scope: ScopeType = "every") -> ScopedTargets:
        return scoped_targets(
            self.trie, self.ids, self.labelled, self.spans, eoi_token_id=EOI, scope=scope
        )


def naive(
    batch: Batch,
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    scope: ScopeType,
    loss: LossType,
    gamma: float,
) -> torch.Tensor:
    """One position after another, over explicit sets of tokens from a scan of the catalog."""
    logits = hidden @ weight.T + bias
    total, labels = hidden.sum() * 0, 0
    span_of = {}
    for s, start, end, row in zip(
        batch.spans.sample, batch.spans.start, batch.spans.end, batch.spans.row, strict=True
    ):
        for t in range(start + 1, end):
            span_of[int(s), t] = (int(t - start - 1), int(row))
    for s in range(batch.ids.shape[0]):
        for t in range(1, batch.ids.shape[1]):
            if (s, t) not in span_of and not batch.labelled[s, t]:
                continue
            labels += 1
            allowed = list(range(VOCAB))
            if (s, t) in span_of and scope != "off":
                depth, row = span_of[s, t]
                prefix = batch.catalog[row][:depth]
                found = {[*item, EOI][depth] for item in batch.catalog if item[:depth] == prefix}
                single = len(found) == 1
                whole = (scope == "branching" and single) or (scope == "open" and found == {EOI})
                allowed = allowed if whole else sorted(found)
            logp = torch.log_softmax(logits[s, t - 1][allowed], 0)[
                allowed.index(int(batch.ids[s, t]))
            ]
            focal = loss == "focal" or (loss == "focal-items" and (s, t) in span_of)
            total = total - logp * ((1 - logp.exp()) ** gamma if focal else 1.0)
    return total / max(labels, 1)


def check_equal(batch: Batch, scope: ScopeType, loss: LossType, seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch.ids.shape, HIDDEN)
    tensors = [
        torch.randn(size, generator=generator).requires_grad_()
        for size in (shape, (VOCAB, HIDDEN), (VOCAB,))
    ]
    hidden, weight, bias = tensors
    expected = naive(batch, hidden, weight, bias, scope, loss, 2.0)
    wanted = torch.autograd.grad(expected, tensors, allow_unused=True)
    found = scoped_cross_entropy(hidden, weight, batch.targets(scope), bias=bias, loss=loss)
    got = torch.autograd.grad(found, tensors, allow_unused=True)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    for grad, reference, tensor in zip(got, wanted, tensors, strict=True):
        zero = torch.zeros_like(tensor)
        torch.testing.assert_close(
            zero if grad is None else grad,
            zero if reference is None else reference,
            atol=1e-5,
            rtol=1e-5,
        )


# Prefixes of one another, equal rows, a single token, a chain.
CATALOG = [[1, 2, 3], [1, 2], [1, 4, 5, 6], [7], [8, 9, 10, 11], [1, 2], [8, 9, 12]]
SAMPLES = [[0, 15, (0,), 16, (3,), 17], [0, (1,), (2,), 18, (4,), (6,), (5,)], [0, 1, 2]]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scope", SCOPES)
def test_equals_the_naive_reference(scope: ScopeType, loss: LossType) -> None:
    check_equal(Batch(CATALOG, SAMPLES), scope, loss)


def published(
    batch: Batch, logits: torch.Tensor, scope_mask_type: int, loss_type: int, *, closing: bool
) -> torch.Tensor:
    """The loss of RecLM-cgen by its formula: a dense mask of banned tokens, a mean over labels.

    Its mask covers the tokens of a title; with `closing` also the token behind them. Type 1 leaves
    positions with one continuation out, type 2 those that can only close, type 3 none. Loss 1 is
    focal where something is banned, loss 2 everywhere, loss 3 nowhere (gamma 2).
    """
    ids = torch.from_numpy(batch.ids).long()
    labelled = torch.from_numpy(batch.labelled)
    banned = torch.zeros(*ids.shape, VOCAB, dtype=torch.bool)
    spans = batch.spans
    columns = (spans.sample, spans.start, spans.end, spans.row)
    for sample, start, end, row in zip(*columns, strict=True):
        labelled[sample, start + 1 : end] = True
        for depth in range(end - start - 2 + closing):
            prefix = batch.catalog[row][:depth]
            may = {[*item, EOI][depth] for item in batch.catalog if item[:depth] == prefix}
            left_out = {1: len(may) < 2, 2: may == {EOI}, 3: False}
            if not left_out[scope_mask_type]:
                banned[sample, start + 1 + depth] = True
                banned[sample, start + 1 + depth, list(may)] = False
    logits = logits[:, :-1].masked_fill(banned[:, 1:], float("-inf"))
    surprise = -logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    weight = (1 - (-surprise).exp()) ** 2
    if loss_type != 2:
        somewhere = banned[:, 1:].any(-1) & (loss_type == 1)
        weight = torch.where(somewhere, weight, torch.ones_like(weight))
    return (surprise * weight)[labelled[:, 1:]].mean()


def test_the_published_mask_leaves_the_closing_token_out() -> None:
    batch = Batch(CATALOG, SAMPLES)
    logits = torch.randn(*batch.ids.shape, VOCAB, dtype=torch.float64)
    for loss in (1, 2, 3):
        # Only the closing token could tell these two types apart.
        open_, every = (published(batch, logits, kind, loss, closing=False) for kind in (2, 3))
        assert open_ == every
        assert every > published(batch, logits, 3, loss, closing=True)
        assert open_ > published(batch, logits, 2, loss, closing=True)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("scope", ["branching", "open", "every"])
def test_equals_the_published_loss_once_its_mask_covers_the_closing_token(
    scope: ScopeType, loss: LossType
) -> None:
    batch = Batch(CATALOG, SAMPLES)
    hidden = torch.randn(*batch.ids.shape, HIDDEN, dtype=torch.float64)
    weight = torch.randn(VOCAB, HIDDEN, dtype=torch.float64)
    kind = {"branching": 1, "open": 2, "every": 3}[scope]
    numbers: dict[LossType, int] = {"focal-items": 1, "focal": 2, "plain": 3}
    expected = published(batch, hidden @ weight.T, kind, numbers[loss], closing=True)
    found = scoped_cross_entropy(hidden, weight, batch.targets(scope), loss=loss)
    same = found.item() == pytest.approx(expected.item(), abs=1e-6)
    # Where it bans nothing inside a span, the published loss is not focal either.
    assert same == (loss != "focal-items" or scope == "every")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("states", [1, 3, 8])
@pytest.mark.parametrize("rows", [1, 5, VOCAB])
def test_logits_in_parts_are_the_same(
    loss: LossType, states: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_layer, "_MOST_LOGITS", states * VOCAB)
    monkeypatch.setattr(output_layer, "_CACHED_LOGITS", rows * states)
    check_equal(Batch(CATALOG, SAMPLES), "open", loss)


@pytest.mark.parametrize("rows", [1, 5, VOCAB])
@pytest.mark.parametrize("trained", ["nothing", "weight", "bias"])
def test_far_apart_logits_neither_overflow_nor_lose_the_token(
    trained: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_layer, "_CACHED_LOGITS", 2 * rows)
    # Exponentials of logits 200 apart have no place in float32; token 4 is barred altogether.
    logits = torch.linspace(-300.0, 300.0, VOCAB).repeat(2, 1)
    logits[1] = logits[1].flip(0)
    bias = torch.zeros(VOCAB)
    bias[4] = float("-inf")
    states = torch.eye(2).requires_grad_()
    weight = logits.T.contiguous().requires_grad_(trained == "weight")
    bias.requires_grad_(trained == "bias")
    tokens = torch.tensor([VOCAB - 1, 5])
    total, _ = output_layer.free_loss_and_rows(
        states, weight, bias, tokens, torch.zeros(2, dtype=torch.bool), 2.0, tokens
    )
    total.backward()
    exact_states = states.detach().double().requires_grad_()
    exact_weight = weight.detach().double().requires_grad_()
    exact_bias = bias.detach().double().requires_grad_()
    logp = (exact_states @ exact_weight.T + exact_bias).log_softmax(1)
    expected = -logp.gather(1, tokens[:, None]).sum()
    expected.backward()
    torch.testing.assert_close(total, expected.float())
    for found, exact in (
        (states, exact_states), (weight, exact_weight), (bias, exact_bias)
    ):  # fmt: skip
        if found.grad is not None:
            assert exact.grad is not None
            torch.testing.assert_close(found.grad, exact.grad.float(), atol=1e-4, rtol=1e-4)
    assert {"weight": weight.grad, "bias": bias.grad}.get(trained, 0) is not None


def test_gradient_of_a_well_known_token_is_exact_in_half_precision() -> None:
    states = torch.zeros(1, HIDDEN)
    states[0, 0] = 1.0
    weight = torch.zeros(VOCAB, HIDDEN)
    weight[7, 0] = 9.0
    weight.requires_grad_()
    token, weighted = torch.tensor([7]), torch.zeros(1, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        total, _ = output_layer.free_loss_and_rows(
            states, weight, None, token, weighted, 2.0, token
        )
    total.backward()
    assert weight.grad is not None
    # p - 1 is -0.0028, less than bfloat16 tells apart next to 1.
    p = np.exp(9.0) / (np.exp(9.0) + VOCAB - 1)
    assert weight.grad[7, 0].item() == pytest.approx(p - 1, rel=1e-4)
    assert weight.grad[6, 0].item() == pytest.approx((1 - p) / (VOCAB - 1), rel=0.01)


def test_frozen_output_layer_gets_no_gradient() -> None:
    batch = Batch(CATALOG, SAMPLES)
    hidden = torch.randn(*batch.ids.shape, HIDDEN)
    weight = torch.randn(VOCAB, HIDDEN)
    found = []
    for frozen in (True, False):
        states = hidden.clone().requires_grad_()
        rows = weight.clone().requires_grad_(not frozen)
        scoped_cross_entropy(states, rows, batch.targets()).backward()
        found.append(states.grad)
        assert (rows.grad is None) == frozen
    assert torch.equal(*found)


def test_mixed_precision_is_close_and_keeps_types() -> None:
    batch = Batch(CATALOG, SAMPLES)
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(*batch.ids.shape, HIDDEN, generator=generator).requires_grad_()
    weight = torch.randn(VOCAB, HIDDEN, generator=generator).requires_grad_()
    exact = scoped_cross_entropy(hidden, weight, batch.targets())
    wanted = torch.autograd.grad(exact, (hidden, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = scoped_cross_entropy(hidden, weight, batch.targets())
    found = torch.autograd.grad(mixed, (hidden, weight))
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, exact, atol=0.02, rtol=0.02)
    for grad, reference in zip(found, wanted, strict=True):
        assert grad.dtype == torch.float32
        torch.testing.assert_close(grad, reference, atol=0.02, rtol=0.05)


tokens = st.integers(0, 5)
catalogs = st.lists(st.lists(tokens, min_size=1, max_size=4), min_size=1, max_size=12)


@settings(max_examples=40, deadline=None)
@given(
    catalog=catalogs,
    draws=st.lists(
        st.lists(st.one_of(st.integers(0, 19), st.tuples(st.integers(0, 99))), max_size=8),
        min_size=1,
        max_size=3,
    ),
    scope=st.sampled_from(SCOPES),
    loss=st.sampled_from(LOSSES),
    seed=st.integers(0, 999),
)
def test_equals_the_naive_reference_on_random_catalogs(
    catalog: list[list[int]],
    draws: list[list[Any]],
    scope: ScopeType,
    loss: LossType,
    seed: int,
) -> None:
    samples = [
        [0, *(((p[0] % len(catalog)),) if isinstance(p, tuple) else p for p in draw)]
        for draw in draws
    ]
    check_equal(Batch(catalog, samples), scope, loss, seed)


def test_one_item_catalog_costs_nothing_inside_its_span() -> None:
    batch = Batch([[1, 2, 3]], [[0, (0,)]])
    targets = batch.targets("every")
    assert targets.block_shape == ()
    assert targets.free_token.tolist() == [SOI]
    assert targets.num_labels == 5


def test_scopes_differ_only_in_positions_with_one_continuation() -> None:
    batch = Batch(CATALOG, [[0, (4,)]])  # decisions: 8 at the root, 11 against 12
    assert batch.targets("every").free_token.tolist() == [SOI]
    assert batch.targets("open").free_token.tolist() == [SOI, EOI]
    assert batch.targets("branching").free_token.tolist() == [SOI, 9, 11, EOI]
    assert batch.targets("branching").free_in_span.tolist() == [False, True, True, True]
    assert batch.targets("off").free_token.tolist() == [SOI, 8, 9, 10, 11, EOI]
    assert batch.targets("off").block_shape == ()
    assert {batch.targets(scope).num_labels for scope in SCOPES} == {6}


@pytest.mark.parametrize("loss", LOSSES)
def test_without_a_scope_it_is_the_cross_entropy_of_the_whole_vocabulary(loss: LossType) -> None:
    batch = Batch(CATALOG, SAMPLES)
    # A span of what is only read carries no labels but its own.
    batch.labelled[1, 1:4] = False
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(*batch.ids.shape, HIDDEN, generator=generator)
    weight = torch.randn(VOCAB, HIDDEN, generator=generator)
    inside = np.zeros_like(batch.labelled)
    for sample, start, end in zip(
        batch.spans.sample, batch.spans.start, batch.spans.end, strict=True
    ):
        inside[sample, start + 1 : end] = True
    labelled = torch.from_numpy(batch.labelled | inside)[:, 1:]
    logits, ids = hidden[:, :-1] @ weight.T, torch.from_numpy(batch.ids).long()[:, 1:]
    each = torch.nn.functional.cross_entropy(logits[labelled], ids[labelled], reduction="none")
    weighs = torch.from_numpy(inside)[:, 1:][labelled] | (loss == "focal")
    weights = (1 - (-each).exp()) ** 2
    expected = torch.where(weighs, each * weights, each) if loss != "plain" else each
    found = scoped_cross_entropy(hidden, weight, batch.targets("off"), loss=loss)
    torch.testing.assert_close(found, expected.mean())


def test_closing_is_a_decision_where_a_longer_title_goes_on() -> None:
    batch = Batch([[1], [1, 2]], [[0, (0,)]])
    for scope in set(SCOPES) - {"off"}:
        targets = batch.targets(scope)
        assert targets.block_shape == ((1, 1, 2),)
        assert targets.child_token.tolist() == [2, EOI]
        assert targets.decision_choice.tolist() == [1]


def test_uniform_logits_give_the_logarithm_of_the_number_of_children() -> None:
    batch = Batch([[1], [2], [3], [4]], [[0, (2,)]])
    hidden, weight = torch.zeros(1, 4, HIDDEN), torch.zeros(VOCAB, HIDDEN)
    loss = scoped_cross_entropy(hidden, weight, batch.targets())
    # <SOI> over the vocabulary, one of four items, and a forced closing.
    torch.testing.assert_close(loss, torch.tensor((np.log(VOCAB) + np.log(4)) / 3).float())


def test_all_decisions_of_a_node_share_one_product() -> None:
    batch = Batch([[i, j] for i in range(4) for j in range(4)], [[0, (0,), (5,), (5,), (7,)]])
    # The root decided four times; nodes 0 (once) and 1 (three times) of four children each.
    assert sorted(batch.targets().block_shape) == [(1, 1, 4), (2, 4, 4)]


def test_batch_without_labels_is_zero_with_zero_gradients() -> None:
    batch = Batch(CATALOG, [[0, 1, 2]])
    batch.labelled[:] = False
    targets = batch.targets()
    assert targets.num_labels == 0
    hidden = torch.randn(1, 3, HIDDEN, requires_grad=True)
    loss = scoped_cross_entropy(hidden, torch.randn(VOCAB, HIDDEN), targets)
    loss.backward()
    assert loss.item() == 0.0
    assert hidden.grad is not None
    assert not hidden.grad.any()


def test_parts_of_a_batch_add_up_over_a_common_count() -> None:
    whole = Batch(CATALOG, SAMPLES)
    weight = torch.randn(VOCAB, HIDDEN)
    hidden = torch.randn(*whole.ids.shape, HIDDEN)
    count = whole.targets().num_labels
    parts = 0.0
    for number, sample in enumerate(SAMPLES):
        part = Batch(CATALOG, [sample])
        states = hidden[number : number + 1, : part.ids.shape[1]]
        parts += scoped_cross_entropy(states, weight, part.targets(), num_labels=count).item()
    assert parts == pytest.approx(scoped_cross_entropy(hidden, weight, whole.targets()).item())


def test_target_outside_the_catalog_is_a_named_error() -> None:
    batch = Batch(CATALOG, [[0, (4,)]])
    batch.spans.row[0] = 7
    with pytest.raises(TrieError, match="item row 7"):
        batch.targets()


def test_span_cut_inside_is_a_named_error() -> None:
    batch = Batch(CATALOG, [[0, (4,)]])
    batch.ids, batch.labelled = batch.ids[:, :-1], batch.labelled[:, :-1]
    with pytest.raises(TrieError, match="item row 4 at token 1: is not whole"):
        batch.targets()
    batch.spans.end[0] -= 1
    with pytest.raises(TrieError, match="is not whole"):
        batch.targets()


def test_gradients_reach_only_children_and_are_finite_for_sure_predictions() -> None:
    batch = Batch([[1], [2], [3]], [[0, (2,)]])
    batch.labelled[:] = False
    weight = torch.zeros(VOCAB, HIDDEN)
    weight[3] = 100.0
    weight.requires_grad_()
    hidden = torch.ones(1, 4, HIDDEN, requires_grad=True)
    scoped_cross_entropy(hidden, weight, batch.targets(), loss="focal", gamma=0.5).backward()
    assert hidden.grad is not None
    assert weight.grad is not None
    assert torch.isfinite(hidden.grad).all()
    assert torch.isfinite(weight.grad).all()
    assert set(torch.nonzero(weight.grad.abs().sum(1)).flatten().tolist()) <= {1, 2, 3}
