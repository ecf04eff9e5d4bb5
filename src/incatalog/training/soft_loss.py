"""Cross entropy against a sparse distribution over choices, without ever writing it out."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

# Stands for minus infinity where it is multiplied by zero.
NO_CHILD = -1e30


def soft_cross_entropy(
    logits: Float[Tensor, "nodes decisions children"],
    choice: Int64[Tensor, " slots"],
    hard: Float[Tensor, " slots"],
    even: Float[Tensor, " slots"],
    below: Float[Tensor, "nodes children"],
    listed: Int64[Tensor, " listed"],
    extra: Float[Tensor, " listed"],
) -> Float[Tensor, ""]:
    """Sum over decisions of ``-sum q log softmax(logits)``, in nats.

    The distribution of a decision gives each child ``even`` times what is ``below`` it, the right
    child ``hard`` more, and the children ``listed`` (numbered through all decisions) ``extra``
    more. A decision whose ``choice`` is negative pads, and so does a logit of :data:`NO_CHILD`.
    """
    total: Tensor = _SoftCrossEntropy.apply(  # type: ignore[no-untyped-call]
        logits, choice, hard, even, below, listed, extra
    )
    return total


class _SoftCrossEntropy(torch.autograd.Function):
    """The gradient is softmax less distribution, written into one tensor like the logits."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        choice: Tensor,
        hard: Tensor,
        even: Tensor,
        below: Tensor,
        listed: Tensor,
        extra: Tensor,
    ) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            logp = torch.log_softmax(logits, -1)
            flat = logp.view(-1)
            first = torch.arange(len(choice), device=choice.device) * logits.shape[-1]
            right = first + choice.clamp(min=0)
            evenly = torch.bmm(logp, below[..., None]).view(-1)
            total = torch.dot(flat[right], hard) + torch.dot(evenly, even)
            total = total + torch.dot(flat[listed], extra)
        ctx.save_for_backward(logp, choice, hard, even, below, listed, extra, right)
        return -total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_total: Tensor) -> tuple[Tensor | None, ...]:
        logp, choice, hard, even, below, listed, extra, right = ctx.saved_tensors
        slope = logp.exp()
        nodes, decisions, _ = slope.shape
        slope.masked_fill_((choice < 0).view(nodes, decisions, 1), 0.0)
        slope.baddbmm_(even.view(nodes, decisions, 1), below[:, None], alpha=-1)
        flat = slope.view(-1)
        flat.index_add_(0, right, hard, alpha=-1)
        flat.index_add_(0, listed, extra, alpha=-1)
        return (slope.mul_(d_total), None, None, None, None, None, None)
