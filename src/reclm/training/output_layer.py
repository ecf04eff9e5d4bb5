"""The two uses a loss makes of the output layer, in one differentiable function."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Logits of the whole vocabulary that exist at a time.
_MOST_LOGITS = 1 << 25


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

    Logits are made in parts and turned into gradients at once, so they never exist all together,
    and both results share one gradient of the weight's size.

    Args:
        states: States before the output layer.
        weight: Rows of the output layer.
        bias: Its bias.
        tokens: Token each state is trained on.
        weighted: Whether its cross entropy is weighted as focal loss.
        gamma: Exponent of the focal loss.
        row_tokens: Rows of the weight to hand out; may repeat.
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
        needs = [differentiate and needed for needed in ctx.needs_input_grad[:3]]
        kind = states.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):
            total, grads = _vocabulary_loss(
                states.to(dtype), weight.to(dtype), bias, tokens, weighted, gamma, needs
            )
        ctx.grads = [
            None if grad is None else grad.to(given.dtype)
            for grad, given in zip(grads, (states, weight, weight), strict=True)
        ]
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
        if grads[1] is not None:
            grads[1].index_add_(0, row_tokens, d_rows.to(grads[1].dtype))
        return (*grads, None, None, None, None, None)


def _vocabulary_loss(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    weighted: Tensor,
    gamma: float,
    needs: list[bool],
) -> tuple[Tensor, list[Tensor | None]]:
    """Sum of the losses, and its gradients with respect to states, weight and bias as needed."""
    total = states.new_zeros((), dtype=torch.float32)
    grads: list[Tensor | None] = [
        torch.empty_like(states) if needs[0] else None,
        torch.zeros_like(weight) if needs[1] and not len(tokens) else None,
        torch.zeros_like(bias) if bias is not None and needs[2] else None,
    ]
    size = max(1, _MOST_LOGITS // len(weight))
    for start in range(0, len(tokens), size):
        part = slice(start, start + size)
        token = tokens[part, None]
        logits = functional.linear(states[part], weight).float()
        if bias is not None:
            logits += bias
        normaliser = logits.logsumexp(1, keepdim=True)
        surprise = (normaliser - logits.gather(1, token)).squeeze(1)
        slope = torch.ones_like(surprise)
        if weighted[part].any():
            with torch.enable_grad():
                surprise.requires_grad_()
                value = torch.where(weighted[part], focal(surprise, gamma), surprise)
                (slope,) = torch.autograd.grad(value.sum(), surprise)
            surprise = value.detach()
        total += surprise.sum()
        if not any(needs):
            continue
        logits.sub_(normaliser).exp_()
        logits.scatter_add_(1, token, torch.full_like(logits[:, :1], -1.0))
        logits.mul_(slope[:, None])
        if grads[2] is not None:
            grads[2] += logits.sum(0)
        slopes = logits.to(weight.dtype)
        if grads[0] is not None:
            torch.mm(slopes, weight, out=grads[0][part])
        if needs[1]:
            if grads[1] is None:
                grads[1] = slopes.T @ states[part]
            else:
                grads[1].addmm_(slopes.T, states[part])
    return total, grads
