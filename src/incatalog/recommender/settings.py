"""Settings of the commands of `recommender`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from incatalog.config import Decode, Fraction, Positive, Settings

# In place of a teacher: the guide that lies in the model's folder, if one does; none.
OWN: Final = "own"
OFF: Final = "off"
GUIDE_FILE = "guide.json"


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
    guide: str = OWN
    """Teacher that guides the model: a run folder, the URL of a served one, own (the guide in the
    model's folder, if one lies there) or off."""
    guide_weight: Fraction | None = None
    """How much the guide counts, from 0 (the model alone) to 1 (the guide alone); as fitted if not
    given, 0.7 (1 for an untrained model) where nothing was fitted."""
    title_field: str = ""
    """Field by which the model knows the items; the one of its training, which it remembers, and
    another one is refused."""
    format: Literal["table", "json"] = "table"
    """Print a table or JSON."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
