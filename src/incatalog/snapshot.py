"""The state of a training in one file: its tensors, how far it got, and a checksum of both."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from incatalog.artifacts import atomic_path
from incatalog.errors import ArtifactError


def save_snapshot(path: Path, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
    """Writes tensors, and what else it takes to go on as JSON, atomically."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(progress)
    with atomic_path(path) as partial:
        save_file(kept, partial, metadata={"progress": text, "sha256": _digest(kept, text)})


def load_snapshot(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Reads what `save_snapshot` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["progress"]
        if _digest(tensors, text) != metadata["sha256"]:
            raise ValueError("its checksum differs")
        return tensors, json.loads(text)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> ArtifactError:
    """Says that a training cannot go on from a snapshot, and why."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ArtifactError(
        f"{path}: damaged checkpoint ({reason}); delete the run folder and start anew"
    )


def _digest(tensors: Mapping[str, Tensor], progress: str) -> str:
    digest = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
