"""The two uses a loss makes of the output layer, in one differentiable function."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits at a time on an accelerator, and exponentials kept for a gradient on any device.
_MOST_LOGITS = 1 << 25
# As many as a CPU's caches hold between the product that makes them and the one that uses them.
_CACHED_LOGITS = 1 << 19


def focal(surprise: Float[Tensor, " labels"], gamma: float) -> Float[Tensor, " labels"]:
    """Focal loss ``(1 - p) ** gamma * -log p`` (arXiv 1708.02002) from ``-log p``."""
    # For gamma < 1 the power has no derivative at 0, where the product's is 0.
    wrong = torch.expm1(-surprise).neg().clamp(min=1e-12)
    return torch.pow(wrong, gamma) * surprise


def free_loss_and_rows(
    states: Float[Tensor, "free hidden"],
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None,
    tokens: Int64[Tensor, " free"],
    weighted: Bool[Tensor, " free"],
    gamma: float,
    row_tokens: Int64[Tensor, " rows"],
) -> tuple[Float[Tensor, ""], Float[Tensor, "rows hidden"]]:
    """Sum of the losses over the whole vocabulary, and single rows of the output layer.

    The softmax runs over blocks of the vocabulary, as FlashAttention (arXiv 2205.14135) runs over
    blocks of keys. A frozen weight is read once for as many states as the layer is wide, and the
    logits of a block are dropped before the next one's are made. Where the weight is trained, their
    exponentials wait in the memory of its gradient until their sum is known. Both results share
    that one gradient. States with ``weighted`` have focal loss.
    """
    differentiate = torch.is_grad_enabled()
    total, rows = _OutputLayer.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, tokens, weighted, gamma, row_tokens, differentiate
    )
    return total, rows


class _OutputLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        weighted: Tensor,
        gamma: float,
        row_tokens: Tensor,
        differentiate: bool,
    ) -> tuple[Tensor, Tensor]:
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        needs = [differentiate and needed for needed in ctx.needs_input_grad[:3]]
        # Memory costs time where it is first written, so it is not filled with zeros before.
        of_weight = torch.empty_like if len(tokens) else torch.zeros_like
        ctx.grads = _Gradients(
            torch.empty_like(states) if needs[0] else None,
            of_weight(weight) if needs[1] else None,
            torch.zeros_like(bias) if bias is not None and needs[2] else None,
        )
        with torch.autocast(kind, enabled=False):
            total = _vocabulary_loss(
                states, _Layer(weight, bias, dtype), tokens, weighted, gamma, ctx.grads
            )
        ctx.save_for_backward(row_tokens)
        return total, weight.index_select(0, row_tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor, d_rows: Tensor) -> tuple[Tensor | None, ...]:
        (row_tokens,) = ctx.saved_tensors
        grads, ctx.grads = ctx.grads, None
        for grad in grads:
            if grad is not None:
                grad.mul_(d_total)
        if grads.weight is not None:
            grads.weight.index_add_(0, row_tokens, d_rows.to(grads.weight.dtype))
        return (*grads, None, None, None, None, None)


class _Gradients(NamedTuple):
    """Filled part by part; None for what needs no gradient."""

    states: Float[Tensor, "free hidden"] | None
    weight: Float[Tensor, "vocab hidden"] | None
    bias: Float[Tensor, " vocab"] | None


class _Layer(NamedTuple):
    """An output layer, and the type it is multiplied in."""

    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"] | None
    dtype: torch.dtype

    def blocks(self, states: int) -> Iterator[slice]:
        """The vocabulary in blocks, for the logits of so many states."""
        most = _CACHED_LOGITS if self.weight.device.type == "cpu" else _MOST_LOGITS
        size = max(1, most // states)
        for start in range(0, len(self.weight), size):
            yield slice(start, min(start + size, len(self.weight)))


class _Softmax(NamedTuple):
    """The softmax of some states over the vocabulary."""

    normaliser: Float[Tensor, " states"]  # Logarithm of the sum of the exponentials of the logits
    own: Float[Tensor, " states"]  # Logit of the token each state is trained on
    others: Float[Tensor, "states hidden"]  # Rows weighted by probability, own token left out
    highest: list[Float[Tensor, " states"]]  # Highest logit up to each block, that block included


def _vocabulary_loss(
    states: Tensor, layer: _Layer, tokens: Tensor, weighted: Tensor, gamma: float, grads: _Gradients
) -> Tensor:
    """Sum of the losses; writes the gradients that are wanted."""
    total = states.new_zeros((), dtype=torch.float32)
    # The exponentials of all states at hand have to fit into the gradient of the weight.
    vocabulary, size = layer.weight.shape
    trained = grads.weight is not None or grads.bias is not None
    if trained:
        size = min(size, max(1, _MOST_LOGITS // vocabulary))
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        some, token = states[part].to(layer.dtype), tokens[part]
        kept = None
        if trained:
            # Only the first part finds it unwritten.
            room = grads.weight if start == 0 else None
            if room is None:
                room = layer.weight.new_empty(vocabulary, len(some))
            kept = room[:, : len(some)]
        softmax = _softmax(some, layer, token, kept=kept, with_others=grads.states is not None)
        surprise, slope = _surprise_and_slope(softmax, weighted[part], gamma)
        total += surprise.sum()
        # The slope of a state's own token is p - 1, exact here in every type of the layer.
        own_slope = slope * torch.expm1(softmax.own - softmax.normaliser)
        if grads.states is not None:
            own_row = layer.weight.index_select(0, token)
            grads.states[part] = softmax.others * slope[:, None] + own_row * own_slope[:, None]
        if kept is not None:
            scales = [slope * (top - softmax.normaliser).exp() for top in softmax.highest]
            _add_others(grads, some, layer, kept, scales, first=start == 0)
        if grads.weight is not None:
            own_state = (some * own_slope[:, None]).to(grads.weight.dtype)
            grads.weight.index_add_(0, token, own_state)
        if grads.bias is not None:
            grads.bias.index_add_(0, token, own_slope.to(grads.bias.dtype))
    return total


def _softmax(
    states: Float[Tensor, "states hidden"],
    layer: _Layer,
    tokens: Int64[Tensor, " states"],
    *,
    kept: Float[Tensor, "vocab states"] | None,
    with_others: bool,
) -> _Softmax:
    """The softmax of some states, block by block; ``others`` is 0 unless it is wanted.

    ``kept`` receives the exponentials of the logits less the highest up to their block, and 0 for
    the token that each state is trained on.
    """
    columns = states.T.contiguous()
    others = torch.zeros_like(columns, dtype=torch.float32)
    own, mass = torch.zeros_like(others[0]), torch.zeros_like(others[0])
    # Not minus infinity: a block with no other logit would give NaN.
    highest = [torch.full_like(own, torch.finfo(torch.float32).min)]
    for block in layer.blocks(len(states)):
        rows = layer.weight[block].to(layer.dtype)
        logits = (rows @ columns).float()
        if layer.bias is not None:
            logits += layer.bias[block, None]
        at = (tokens - block.start).clamp(0, len(rows) - 1)[None]
        inside = ((tokens >= block.start) & (tokens < block.stop))[None]
        own = torch.where(inside, logits.gather(0, at), own)[0]
        highest.append(torch.maximum(highest[-1], logits.amax(0)))
        shrink = (highest[-2] - highest[-1]).exp_()
        weights = logits.sub_(highest[-1]).exp_()
        mass = mass * shrink + weights.sum(0)
        weights.scatter_(0, at, weights.gather(0, at).masked_fill_(inside, 0.0))
        if kept is not None:
            kept[block] = weights
        if with_others:
            others.mul_(shrink).add_(rows.T @ weights.to(layer.dtype))
    return _Softmax(highest[-1] + mass.log(), own, others.div_(mass).T, highest[1:])


def _surprise_and_slope(
    softmax: _Softmax, weighted: Bool[Tensor, " states"], gamma: float
) -> tuple[Float[Tensor, " states"], Float[Tensor, " states"]]:
    """The loss of each state, and its derivative with respect to the cross entropy."""
    surprise = softmax.normaliser - softmax.own
    if not weighted.any():
        return surprise, torch.ones_like(surprise)
    with torch.enable_grad():
        surprise.requires_grad_()
        value = torch.where(weighted, focal(surprise, gamma), surprise)
        (slope,) = torch.autograd.grad(value.sum(), surprise)
    return value.detach(), slope


def _add_others(
    grads: _Gradients,
    states: Float[Tensor, "states hidden"],
    layer: _Layer,
    kept: Float[Tensor, "vocab states"],
    scales: Sequence[Float[Tensor, " states"]],
    *,
    first: bool,
) -> None:
    """Adds gradients of weight and bias by all tokens but the states' own.

    ``scales`` turns what :func:`_softmax` kept into slopes of the losses, block by block. In the
    first part ``kept`` lies where the gradient of the weight goes.
    """
    for block, scale in zip(layer.blocks(len(states)), scales, strict=True):
        weights = kept[block]
        if grads.bias is not None:
            grads.bias[block] += weights.float() @ scale
        if grads.weight is not None:
            product = weights.to(layer.dtype) @ (states * scale[:, None]).to(layer.dtype)
            if first:
                grads.weight[block] = product
            else:
                grads.weight[block] += product
