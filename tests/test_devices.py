from __future__ import annotations

import pytest
import torch

from incatalog.devices import resolve_device, trains_on_cpu
from incatalog.errors import ConfigError


def test_auto_takes_cuda_where_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "cuda:99", "", "meta"])
def test_devices_that_are_not_there_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--device {name}: not usable"):
        resolve_device(name)


def test_a_training_takes_the_cpu_only_where_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trains_on_cpu("cpu")
    assert trains_on_cpu("auto")
    with pytest.raises(ConfigError, match="--device cuda: not usable"):
        trains_on_cpu("cuda")
    with pytest.raises(ConfigError, match=r"--device cpu:0: .*expected auto, cpu or cuda; choose"):
        trains_on_cpu("cpu:0")
