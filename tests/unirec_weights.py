"""Weights under the names of UniRec's SASRec, and what UniRec makes of them."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def state_dict(
    seed: int = 0, items: int = 24, *, hidden: int, inner: int, layers: int, length: int
) -> dict[str, Tensor]:
    """Random weights under the names and in the shapes of UniRec's SASRec."""
    shapes: dict[str, tuple[int, ...]] = {
        "item_embedding.weight": (items + 1, hidden),
        "position_embedding.weight": (length + 1, hidden),
    }
    for layer in range(layers):
        attention = f"trm_encoder.layer.{layer}.multi_head_attention"
        for name in ("query", "key", "value", "dense"):
            shapes[f"{attention}.{name}.weight"] = (hidden, hidden)
            shapes[f"{attention}.{name}.bias"] = (hidden,)
        shapes[f"{attention}.LayerNorm.weight"] = (hidden,)
        shapes[f"{attention}.LayerNorm.bias"] = (hidden,)
        forward = f"trm_encoder.layer.{layer}.feed_forward"
        shapes[f"{forward}.dense_1.weight"] = (inner, hidden)
        shapes[f"{forward}.dense_1.bias"] = (inner,)
        shapes[f"{forward}.dense_2.weight"] = (hidden, inner)
        shapes[f"{forward}.dense_2.bias"] = (hidden,)
        shapes[f"{forward}.LayerNorm.weight"] = (hidden,)
        shapes[f"{forward}.LayerNorm.bias"] = (hidden,)
    shapes["LayerNorm.weight"] = (hidden,)
    shapes["LayerNorm.bias"] = (hidden,)
    generator = torch.Generator().manual_seed(seed)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.3 for name, shape in shapes.items()
    }
    weights["item_embedding.weight"][0] = 0
    return weights


def _gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))


FORMULAS = {
    "gelu": _gelu,
    "relu": lambda x: x * (x > 0),
    "swish": lambda x: x / (1 + torch.exp(-x)),
    "tanh": lambda x: (torch.exp(2 * x) - 1) / (torch.exp(2 * x) + 1),
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
}


def reference(
    weights: dict[str, Tensor],
    numbers: list[int],
    heads: int = 2,
    activation: str = "gelu",
    eps: float = 1e-12,
) -> Tensor:
    """Scores of item numbers 1, 2, … after a history, as UniRec computes them, in double precision.

    The window is always full: zeros on the left, place 0 is the oldest. Masking adds -10000.
    """
    w = {name: value.double() for name, value in weights.items()}

    def norm(x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        spread = (centred**2).mean(-1, keepdim=True)
        return centred / torch.sqrt(spread + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    length = len(w["position_embedding.weight"]) - 1
    window = ([0] * length + numbers)[-length:]
    states = w["item_embedding.weight"][window] + w["position_embedding.weight"][:length]
    states = norm(states, "LayerNorm")
    mask = torch.zeros(length, length, dtype=torch.double)
    for query in range(length):
        for key in range(length):
            if key > query or window[key] == 0:
                mask[query, key] = -10000
    layers = sum(name.endswith("query.weight") for name in w)
    for layer in range(layers):
        name = f"trm_encoder.layer.{layer}.multi_head_attention"
        queries, keys, values = (linear(states, f"{name}.{k}") for k in ("query", "key", "value"))
        width = queries.shape[1] // heads
        mixed = []
        for head in range(heads):
            part = slice(head * width, (head + 1) * width)
            logits = queries[:, part] @ keys[:, part].T / math.sqrt(width) + mask
            shares = torch.exp(logits - logits.max(-1, keepdim=True).values)
            mixed.append(shares / shares.sum(-1, keepdim=True) @ values[:, part])
        states = norm(linear(torch.cat(mixed, -1), f"{name}.dense") + states, f"{name}.LayerNorm")
        name = f"trm_encoder.layer.{layer}.feed_forward"
        inner = FORMULAS[activation](linear(states, f"{name}.dense_1"))
        states = norm(linear(inner, f"{name}.dense_2") + states, f"{name}.LayerNorm")
    return w["item_embedding.weight"][1:] @ states[-1]
