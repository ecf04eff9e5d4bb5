"""Where tensors live."""

from __future__ import annotations

import torch

from incatalog.errors import ConfigError, first_line


def resolve_device(device: str) -> torch.device:
    """The device a flag names; `auto` is CUDA where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(1, device=resolved).tolist()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ConfigError(
            f"--device {device}: not usable ({first_line(error)}); expected auto, cpu or cuda"
        ) from error
    return resolved


def trains_on_cpu(device: str) -> bool:
    """Whether a training runs on the CPU; if not, each process takes a CUDA device of its own."""
    found = resolve_device(device)
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(
            f"--device {device}: a training takes the devices it sees; expected auto, cpu or cuda; "
            "choose among several by CUDA_VISIBLE_DEVICES"
        )
    return found.type == "cpu"
