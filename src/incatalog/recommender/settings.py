"""Settings of the commands of `recommender`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from incatalog.config import Decode, Positive, Settings


@dataclass(frozen=True)
class RecommendSettings(Settings):
    """Recommend items that follow a history."""

    model: Path
    """Folder of a trained model."""
    history: tuple[str, ...]
    """Item ids, oldest first, separated by commas; one that holds a comma stands in double
    quotes."""
    k: Positive = 10
    """Items to recommend."""
    exclude: tuple[str, ...] = ()
    """Item ids never to recommend, separated by commas."""
    categories: tuple[str, ...] = ()
    """Recommend from these categories only, separated by commas."""
    exclude_seen: bool = True
    """Never recommend items of the history."""
    decode: Decode = "beam"
    """Rank the items the model would write first (beam), or have it write a list of items, each
    searched as a whole (list) or written token by token (greedy)."""
    format: Literal["table", "json"] = "table"
    """Print a table or JSON."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
