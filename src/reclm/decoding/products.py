"""Products of a few rows with a large matrix, in the order a CPU is quicker at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch.nn.functional as F  # noqa: N812 - the name the PyTorch documentation uses
from jaxtyping import Float
from torch import Tensor, nn

# With more rows the library's own order is as quick.
_FEW = range(2, 7)


def few_rows_linear(
    inputs: Float[Tensor, "*rows features"],
    weight: Float[Tensor, "outputs features"],
    bias: Float[Tensor, " outputs"] | None = None,
) -> Float[Tensor, "*rows outputs"]:
    """A linear layer, as the product of its weight with the inputs where these are few rows.

    For one row the library knows better; from two to six this order was measured to be quicker.
    """
    rows = inputs.numel() // inputs.shape[-1]
    if rows not in _FEW:
        return F.linear(inputs, weight, bias)
    product = (weight @ inputs.reshape(rows, -1).T).T.contiguous()
    shaped = product.view(*inputs.shape[:-1], -1)
    return shaped if bias is None else shaped + bias


class FewRows:
    """The plain linear layers of a model, computed by :func:`few_rows_linear` for a while.

    Args:
        model: The model; layers of subclasses of ``nn.Linear``, and those that something else has
            given a way of their own, compute as ever.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = [module for module in model.modules() if type(module) is nn.Linear]
        self._forwards = [_forward_of(layer) for layer in self._layers]

    @contextlib.contextmanager
    def __call__(self, rows: int) -> Iterator[None]:
        """Computes so within the context, if that many rows are few."""
        if rows not in _FEW:
            yield
            return
        changed = []
        try:
            for layer, forward in zip(self._layers, self._forwards, strict=True):
                if "forward" not in vars(layer):
                    vars(layer)["forward"] = forward
                    changed.append(layer)
            yield
        finally:
            for layer in changed:
                del vars(layer)["forward"]


def _forward_of(layer: nn.Linear) -> Callable[[Tensor], Tensor]:
    def forward(inputs: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows outputs"]:
        return few_rows_linear(inputs, layer.weight, layer.bias)

    return forward
