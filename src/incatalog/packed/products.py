"""Products with weights that do not change, by copies laid out as a CPU multiplies them fastest.

A library of matrix products either lays the weights out anew at every call or does without. oneDNN
keeps them laid out, which pays for layers of some size (``benchmarks/products.py``).
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F  # noqa: N812 - the name the PyTorch documentation uses
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Product = Callable[[Tensor], Tensor]
Inputs = Float[Tensor, "*rows features"]
Outputs = Float[Tensor, "*rows outputs"]

# Rows that are multiplied at once; and numbers of rows, beyond which there are four an octave.
_MOST_ROWS = 2048
_SMALL = (0, 1, 2, 4, 8, 16, 24, 32, 48, 64)


class LaidOutLayers:
    """Linear layers that are multiplied by copies of their weights for a while.

    A copy counts as long as its weight is the same tensor and no operation has changed that in
    place; afterwards the layer computes as ever. What is written past that (``weight.data``) is not
    noticed. Taken are plain linear layers in float32 on a CPU. If ``differentiable``, gradients
    pass, by a second copy, and layers that are trained are left out.
    """

    def __init__(self, layers: Iterable[nn.Module], *, differentiable: bool = False) -> None:
        found = [layer for layer in layers if _is_plain(layer)] if has_onednn() else []
        if differentiable:
            found = [one for one in found if not any(p.requires_grad for p in one.parameters())]
        products = [_product_of(layer, differentiable=differentiable) for layer in found]
        self._products: dict[nn.Module, Product] = dict(zip(found, products, strict=True))

    def product(self, layer: nn.Module) -> Callable[..., Tensor]:
        """What computes a layer: its copy where there is one, else the layer itself."""
        return self._products.get(layer, layer)

    def enter(self) -> None:
        """Computes so from now on, until :meth:`leave`."""
        for layer, product in self._products.items():
            vars(layer).setdefault("forward", product)

    def leave(self) -> None:
        """Computes as ever again; may be called at any time, and more than once."""
        for layer, product in self._products.items():
            if vars(layer).get("forward") is product:
                del vars(layer)["forward"]

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """Computes so within the context."""
        try:
            self.enter()
            yield
        finally:
            self.leave()


@cache
def has_onednn() -> bool:
    """Whether this build of PyTorch has the operations, and this processor computes them."""
    needed = ("_linear_pointwise", "_reorder_linear_weight")
    if not (torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in needed)):
        return False
    weight, inputs = torch.arange(6.0).view(2, 3), torch.ones(1, 3)
    try:
        return torch.equal(_multiplied(inputs, _laid_out(weight), None), inputs @ weight.T)
    except RuntimeError:
        return False


def _is_plain(layer: nn.Module) -> TypeGuard[nn.Linear]:
    return (
        type(layer) is nn.Linear
        and "forward" not in vars(layer)
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.float32
    )


def _product_of(layer: nn.Linear, *, differentiable: bool) -> Product:
    weight, copied = layer.weight, _state(layer.weight)
    forward = _laid_out(weight)
    backward = _laid_out(weight.T.contiguous()) if differentiable else None

    def product(inputs: Inputs) -> Outputs:
        mixed = inputs.dtype != torch.float32 or torch.is_autocast_enabled("cpu")
        if mixed or layer.weight is not weight or _state(weight) != copied:
            return F.linear(inputs, layer.weight, layer.bias)
        if backward is None:
            return _multiplied(inputs, forward, layer.bias)
        return _Product.apply(inputs, forward, backward, layer.bias)  # type: ignore[no-any-return, no-untyped-call]

    return product


class _Product(torch.autograd.Function):
    """A frozen linear layer; its gradient is the product with the transposed weight."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, forward: Tensor, backward: Tensor, bias: Tensor | None
    ) -> Tensor:
        # Not saved as others are: they never change, and their layout is no business of autograd.
        ctx.transposed = backward
        return _multiplied(inputs, forward, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return _multiplied(gradient.contiguous(), ctx.transposed, None), None, None, None


# Inductor lays frozen weights out, and multiplies by them, by the same two operations.
def _laid_out(weight: Tensor) -> Tensor:
    copied: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
    return copied


def _multiplied(inputs: Inputs, laid_out: Tensor, bias: Tensor | None) -> Outputs:
    rows = inputs.reshape(-1, inputs.shape[-1])
    parts = [_multiplied_at_once(part, laid_out, bias) for part in torch.split(rows, _MOST_ROWS)]
    outputs = parts[0] if len(parts) == 1 else torch.cat(parts)
    return outputs.view(*inputs.shape[:-1], outputs.shape[-1])


def _multiplied_at_once(rows: Inputs, laid_out: Tensor, bias: Tensor | None) -> Outputs:
    count = len(rows)
    missing = rounded_up(count) - count
    padded = F.pad(rows, (0, 0, 0, missing)) if missing else rows
    outputs: Tensor = torch.ops.mkldnn._linear_pointwise(padded, laid_out, bias, "none", [], "")
    return outputs[:count]


def rounded_up(rows: int) -> int:
    """The number of rows that is multiplied in place of this one, at least as many.

    oneDNN compiles a product for each number of rows that it meets, which takes longer than most
    products, and keeps a thousand of them, which takes much memory.
    """
    if rows <= _SMALL[-1]:
        return _SMALL[bisect_left(_SMALL, rows)]
    step = 1 << ((rows - 1).bit_length() - 3)
    return -(-rows // step) * step


def _state(weight: Tensor) -> tuple[int, int]:
    """Where a weight lies, and how often it was changed in place."""
    return weight.data_ptr(), 0 if weight.is_inference() else weight._version
