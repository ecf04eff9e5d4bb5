from __future__ import annotations

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from incatalog.packed.products import LaidOutLayers, has_onednn, rounded_up

pytestmark = pytest.mark.skipif(not has_onednn(), reason="this PyTorch has no oneDNN to lay out by")


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 7), (2, 7), (1, 3, 7), (2, 3, 7), (300, 7)])
def test_a_copy_computes_what_its_layer_does(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(7, 5, bias=bias), torch.randn(shape)
    product = LaidOutLayers([layer]).product(layer)
    assert product is not layer
    with torch.no_grad():
        found = product(inputs)
    torch.testing.assert_close(found, F.linear(inputs, layer.weight, layer.bias))
    assert found.is_contiguous()


@torch.no_grad()
@pytest.mark.parametrize("rows", [0, 1, 3, 64, 65, 127, 1025, 2048, 2049, 5000])
def test_any_number_of_rows_is_multiplied(rows: int) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(7, 5), torch.randn(1, rows, 7)
    found = LaidOutLayers([layer]).product(layer)(inputs)
    torch.testing.assert_close(found, F.linear(inputs, layer.weight, layer.bias))


def test_numbers_of_rows_that_are_multiplied_are_few() -> None:
    sizes = [rounded_up(rows) for rows in range(1, 2049)]
    assert all(rows <= size for rows, size in enumerate(sizes, start=1))
    assert len(set(sizes)) <= 30
    # Beyond a handful at most a quarter is in vain.
    assert all(size <= 1.25 * rows for rows, size in enumerate(sizes[64:], start=65))
    assert sizes[:9] == [1, 2, 4, 4, 8, 8, 8, 8, 16]
    assert [rounded_up(rows) for rows in (64, 65, 129, 1100, 2048)] == [64, 80, 160, 1280, 2048]


@torch.no_grad()
def test_products_of_many_sizes_do_not_pile_up() -> None:
    """oneDNN keeps a compiled product for each number of rows that it meets."""
    layers = [nn.Linear(256, 32 * width, bias=False) for width in range(1, 7)]
    products = [LaidOutLayers([layer]).product(layer) for layer in layers]

    def multiply(seed: int) -> None:
        for rows in np.random.default_rng(seed).permutation(1500)[:150].tolist():
            for product in products:
                product(torch.ones(rows + 1, 256))

    multiply(0)
    before = psutil.Process().memory_info().rss
    for seed in range(1, 4):
        multiply(seed)
    grown = psutil.Process().memory_info().rss - before
    assert grown < 60 * 2**20


def test_layers_are_left_as_they_were_and_those_of_others_untouched() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Doubled(4, 2), nn.Linear(2, 2))
    model[3].bfloat16()
    layers = LaidOutLayers(model.modules())
    assert all(layers.product(layer) is layer for layer in model[1:])
    inputs = torch.randn(3, 3)
    with torch.no_grad():
        expected = model[:3](inputs)
        with layers():
            assert "forward" in vars(model[0])
            torch.testing.assert_close(model[:3](inputs), expected)
        assert "forward" not in vars(model[0])
        # As offloading does: what others have put there stays, and computes.
        vars(model[0])["forward"] = offloaded = lambda given: torch.zeros(len(given), 4)
        with layers():
            assert model[0](inputs).eq(0).all()
        assert LaidOutLayers([model[0]]).product(model[0]) is model[0]
        assert vars(model[0]).pop("forward") is offloaded
        with pytest.raises(RuntimeError), layers():
            model(torch.randn(2, 4))
    assert "forward" not in vars(model[0])


@torch.no_grad()
def test_a_copy_of_a_weight_that_has_changed_is_not_used() -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(7, 5), torch.randn(2, 7)
    product = LaidOutLayers([layer]).product(layer)
    before = product(inputs)
    layer.weight += 1
    assert torch.equal(product(inputs), layer(inputs))
    assert not torch.allclose(product(inputs), before)
    product = LaidOutLayers([layer]).product(layer)
    layer.weight = nn.Parameter(torch.zeros(5, 7))
    assert torch.equal(product(inputs), layer.bias.expand(2, 5))


@pytest.mark.parametrize("bias", [False, True])
def test_gradients_pass_frozen_layers_and_trained_ones_are_left_out(bias: bool) -> None:
    torch.manual_seed(0)
    frozen, trained = nn.Linear(7, 5, bias=bias).requires_grad_(False), nn.Linear(5, 3)
    model = nn.Sequential(frozen, nn.Tanh(), trained)
    layers = LaidOutLayers(model, differentiable=True)
    assert layers.product(trained) is trained
    inputs = torch.randn(2, 3, 7, requires_grad=True)
    model(inputs).square().sum().backward()
    expected = [inputs.grad, trained.weight.grad]
    inputs.grad = trained.weight.grad = None
    with layers():
        found = model(inputs)
    found.square().sum().backward()
    torch.testing.assert_close([inputs.grad, trained.weight.grad], expected)


def test_mixed_precision_is_left_to_the_layer() -> None:
    layer, inputs = nn.Linear(7, 5).requires_grad_(False), torch.randn(2, 7)
    product = LaidOutLayers([layer], differentiable=True).product(layer)
    with torch.autocast("cpu", torch.bfloat16):
        assert product(inputs).dtype == torch.bfloat16
