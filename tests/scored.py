"""Finished runs of `incatalog evaluate recommend`, made from the places of the held-out items."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from incatalog import metrics
from incatalog.evaluation.finished import RECOMMEND, FinishedRun

MISSED = 0


def scored_run(
    folder: Path,
    method: str,
    places: Sequence[int],
    *,
    k: int = 3,
    outside: int = 0,
    inputs: Mapping[str, str] | None = None,
    config: Mapping[str, Any] | None = None,
    **summary: Any,
) -> FinishedRun:
    """A run whose answers have the held-out item at these places, from 1, or miss it.

    The last `outside` entries of every answer are in no catalog.
    """
    folder.mkdir(parents=True)
    users = [f"u{number}" for number in range(len(places))]
    items: list[list[str | None]] = []
    for user, place in zip(users, places, strict=True):
        other = [f"{method[0]}{number}" for number in range(1, k + 1)]
        items.append([f"i{user}" if at == place else one for at, one in enumerate(other, start=1)])
        items[-1][k - outside :] = [None] * outside
    hits = np.array([float(0 < place <= k) for place in places])
    gains = np.array([1 / math.log2(p + 1) if 0 < p <= k else 0.0 for p in places])
    ood = np.full(len(places), outside / k)
    scores = {f"HR@{k}": hits, f"NDCG@{k}": gains, f"OOD@{k}": ood}
    found = {
        "method": method,
        "users": len(users),
        "k": k,
        "metrics": metrics.named_intervals(scores, 200, 0),
        **summary,
    }
    given = {"data": "shop", "split": "test", "exclude_seen": True, **(config or {})}
    manifest = {"stage": RECOMMEND, "status": "finished", "config": given, "data": inputs or {}}
    table = {
        "user_id": users,
        "history_length": [4] * len(users),
        "target": [f"i{user}" for user in users],
        "items": items,
        "named": [[f"Title {one}" if one else "Made Up" for one in answer] for answer in items],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "summary.json").write_text(json.dumps(found))
    frame = pl.DataFrame(table | scores, schema_overrides={"items": pl.List(pl.String)})
    frame.write_parquet(folder / "users.parquet")
    return FinishedRun.load(folder, RECOMMEND)
