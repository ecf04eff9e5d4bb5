"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from incatalog.config import Decode


@dataclass(frozen=True)
class RecommendConfig:
    """Recommend items that follow a history.

    Attributes:
        model: Folder of a trained model.
        history: Item ids, oldest first, separated by commas; one that holds a comma stands in
            double quotes.
        k: Items to recommend.
        exclude: Item ids never to recommend, separated by commas.
        categories: Recommend from these categories only, separated by commas.
        exclude_seen: Never recommend items of the history.
        decode: Rank the items the model would write first (beam), or have it write a list.
        format: Print a table or JSON.
        device: Device to run on; auto takes CUDA where there is one.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
    """

    model: Path
    history: tuple[str, ...]
    k: int = 10
    exclude: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    exclude_seen: bool = True
    decode: Decode = "beam"
    format: Literal["table", "json"] = "table"
    device: str = "auto"
    verify: bool = True
