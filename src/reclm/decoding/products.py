"""Products with weights that do not change, by copies laid out as a CPU multiplies them fastest.

A library of matrix products either lays the weights out anew at every call or does without. oneDNN
keeps them laid out: with SmolLM2's layers it takes half the time for up to a hundred rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TypeGuard

import torch
import torch.nn.functional as F  # noqa: N812 - the name the PyTorch documentation uses
from jaxtyping import Float
from torch import Tensor, nn

Product = Callable[[Tensor], Tensor]


class LaidOutLayers:
    """Linear layers that are multiplied by copies of their weights for a while.

    A copy counts as long as its weight is the same tensor and no operation has changed that in
    place; afterwards the layer computes as ever. What is written past that (``weight.data``) is not
    noticed.

    Args:
        layers: Parts of a model. Taken are plain linear layers in float32 on a CPU: not those of
            subclasses of ``nn.Linear``, nor those that something else has given a way of their own.
    """

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        found = [layer for layer in layers if _is_plain(layer)] if _has_onednn() else []
        self._products: dict[nn.Module, Product] = {layer: _product_of(layer) for layer in found}

    def product(self, layer: nn.Module) -> Callable[..., Tensor]:
        """What computes a layer: its copy where there is one, else the layer itself."""
        return self._products.get(layer, layer)

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Computes so within the context; gradients do not pass."""
        changed = []
        try:
            for layer, product in self._products.items():
                if "forward" not in vars(layer):
                    vars(layer)["forward"] = product
                    changed.append(layer)
            yield
        finally:
            for layer in changed:
                del vars(layer)["forward"]


def _has_onednn() -> bool:
    operations = torch.ops.mkldnn
    needed = ("_linear_pointwise", "_reorder_linear_weight")
    return torch._C._has_mkldnn and all(hasattr(operations, name) for name in needed)


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and "forward" not in vars(layer)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
    )


def _product_of(layer: nn.Linear) -> Product:
    weight = layer.weight
    copied = _state(weight)
    # Inductor lays frozen weights out by the same two operations.
    laid_out = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)

    def product(inputs: Float[Tensor, "*rows features"]) -> Float[Tensor, "*rows outputs"]:
        if layer.weight is not weight or _state(weight) != copied or inputs.dtype != torch.float32:
            return F.linear(inputs, layer.weight, layer.bias)
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, laid_out, layer.bias, "none", [], ""
        )
        return outputs

    return product


def _state(weight: Tensor) -> tuple[int, int]:
    """Where a weight lies, and how often it was changed in place."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
