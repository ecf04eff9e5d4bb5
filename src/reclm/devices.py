"""Where tensors live."""

from __future__ import annotations

import torch

from reclm.errors import ConfigError


def resolve_device(device: str) -> torch.device:
    """The device a flag names; `auto` is CUDA where there is one.

    Raises:
        ConfigError: No such device.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--device {device}: not usable ({reason}); expected auto, cpu or cuda"
        ) from error
    return resolved
