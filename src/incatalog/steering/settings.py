"""Settings of the commands of `steering`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.config import NonNegative, Positive, Settings


@dataclass(frozen=True)
class SteeringFitSettings(Settings):
    """Fit how much what is said counts beside a teacher, and keep it in the teacher's folder.

    Example:
        incatalog steering fit --data data --teacher runs/blend
    """

    data: Path
    """Folder of the prepared data that the teacher was fitted on; only validation items are looked
    at."""
    teacher: Path
    """Run folder of a teacher; its steering.json is written."""
    encoder: str = "minilm"
    """What compares messages with items: `minilm`, `words`, or the folder of a
    sentence-transformers model."""
    users: Positive = 300
    """Users to fit on at most, sampled by `seed`."""
    exclude_seen: bool = True
    """Never recommend items of the user's history."""
    device: str = "auto"
    """Device the teacher runs on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of the user sample and of the requests."""
