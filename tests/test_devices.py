from __future__ import annotations

import pytest
import torch

from reclm.devices import resolve_device
from reclm.errors import ConfigError


def test_auto_takes_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", ""])
def test_devices_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {name}: not usable"):
        resolve_device(name)
