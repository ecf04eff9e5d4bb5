from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from reclm.decoding.products import FewRows, few_rows_linear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(1, 7), (2, 7), (1, 3, 7), (2, 3, 7), (6, 7), (7, 7), (0, 7)])
def test_it_is_a_linear_layer(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, inputs = nn.Linear(7, 5, bias=bias), torch.randn(shape)
    found = few_rows_linear(inputs, layer.weight, layer.bias)
    torch.testing.assert_close(found, F.linear(inputs, layer.weight, layer.bias))
    assert found.is_contiguous()


def test_layers_are_changed_for_few_rows_only_and_left_as_they_were() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), Doubled(4, 2))
    few = FewRows(model)
    inputs = torch.randn(3, 3)
    expected = model(inputs)
    with few(3):
        assert "forward" in vars(model[0])
        assert "forward" not in vars(model[2])
        torch.testing.assert_close(model(inputs), expected)
    assert "forward" not in vars(model[0])
    # As offloading does: what others have put there stays, and computes.
    vars(model[0])["forward"] = offloaded = lambda given: torch.zeros(len(given), 4)
    with few(3):
        assert model[0](inputs).eq(0).all()
    assert vars(model[0]).pop("forward") is offloaded
    with few(1):
        assert "forward" not in vars(model[0])
    with pytest.raises(RuntimeError, match="shapes"), few(2):
        model(torch.randn(2, 4))
    assert "forward" not in vars(model[0])
