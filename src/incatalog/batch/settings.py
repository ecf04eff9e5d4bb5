"""Settings of `incatalog batch`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import Headings, NonNegative, Positive, PositiveFloat
from incatalog.recommender.settings import AskedSettings


@dataclass(frozen=True, kw_only=True)
class BatchSettings(AskedSettings):
    """Make lists for all users of a Parquet file, by any number of processes.

    Example:
        incatalog batch --model runs/tiny --histories users.parquet --out runs/lists
        incatalog batch --model runs/tiny --histories users.parquet --out runs/lists --on ray
    """

    headings: ClassVar[Headings] = {
        "whose list": "histories",
        "which items": "",
        "model": "batch_size",
        "output": "out shard_users",
        "engine": "engine vllm",
        "processes": "on workers lease",
    }

    histories: Path
    """Parquet file, or folder of Parquet files, with user_id and history (a list of item ids,
    oldest first), and if wanted exclude (a list of item ids) and boost (factors by item id)."""
    out: Path
    """Folder for the lists, which any number of processes and hosts may fill together: start the
    same command as often as you like, and again after an interruption."""
    shard_users: Positive = 10_000
    """Users of a shard at most: each row group of the histories is one shard, or several."""
    batch_size: Positive = 64
    """Users asked for side by side; lists do not depend on it but for the rounding of scores."""
    engine: Literal["incatalog", "vllm"] = "incatalog"
    """Who computes: the engine of this package, or vLLM, which is held to the same catalog, writes
    lists token by token (--decode greedy), and wants an environment of its own."""
    vllm: tuple[str, ...] = ()
    """Argument of vLLM's engine as NAME=VALUE, such as tensor-parallel-size=2, the flag once for
    each; with --engine vllm."""
    on: Literal["local", "ray"] = "local"
    """Where the work is done: in this process, or by actors of Ray, in the cluster that RAY_ADDRESS
    names or else on this machine."""
    workers: NonNegative = 0
    """Ray actors; 0 takes one for each GPU of the cluster, or for each node where there is none."""
    lease: PositiveFloat = 60.0
    """Seconds without a sign of life after which another process takes over a shard; that of a
    process that is known to be dead is taken over at once."""
