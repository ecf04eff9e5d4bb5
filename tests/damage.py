"""Damage to files, as disks, copies and hands do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor


def edit_tensors(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Writes a file of safetensors anew with other tensors and the same metadata."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    change(tensors)
    save_file(tensors, path, metadata=metadata)


def drop_tensor(path: Path, part: str) -> str:
    """Takes out the first tensor whose name holds `part`; its name."""
    dropped = []

    def change(tensors: dict[str, Tensor]) -> None:
        dropped.append(next(name for name in sorted(tensors) if part in name))
        del tensors[dropped[0]]

    edit_tensors(path, change)
    return dropped[0]


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    """Changes a JSON document in place."""
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def flip_bit(path: Path, byte: int | None = None) -> None:
    """Turns one bit of a byte over, by default of the one in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if byte is None else byte] ^= 1
    path.write_bytes(content)


def cut(path: Path, length: int = 64) -> None:
    """Takes bytes off the end."""
    path.write_bytes(path.read_bytes()[:-length])
