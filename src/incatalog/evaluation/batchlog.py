"""Long evaluations: batches that survive a kill and are shared out over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

from incatalog.errors import ArtifactError, ConfigError, require
from incatalog.journal import Journal
from incatalog.progress import with_progress

_T = TypeVar("_T")
Work = Callable[[list[_T]], list[Any]]  # Gives a result for each item of a batch.

# A process that is done waits for the slowest, which may take hours.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Shards:
    """This process among those that share an evaluation, and among those of its machine."""

    index: int = 0
    count: int = 1
    local_index: int = 0

    @classmethod
    def current(cls, device: str) -> Shards:
        """The processes that `accelerate launch` (or torchrun) has started; else this one alone."""
        started = int(os.environ.get("WORLD_SIZE", "1"))
        if started == 1:
            return cls()
        missing = [name for name in ("RANK", "MASTER_ADDR") if name not in os.environ]
        if missing:
            raise ConfigError(
                f"WORLD_SIZE {started}: set without {' and '.join(missing)}; start processes with "
                "`accelerate launch` or torchrun, or unset it"
            )
        accelerate = require("accelerate", extra="evaluate")
        from incatalog.devices import resolve_device

        # Without this accelerate would leave each of them alone where there is no GPU.
        on_cpu = resolve_device(device).type == "cpu"
        state = accelerate.PartialState(cpu=on_cpu, timeout=_PATIENCE)
        met = state.num_processes
        if met != started:
            raise ConfigError(
                f"--device {device}: {started} processes were started and {met} found one another; "
                "start them with `accelerate launch` or torchrun"
            )
        return cls(state.process_index, met, state.local_process_index)

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.count > 1:
            require("accelerate", extra="evaluate").PartialState().wait_for_everyone()

    def device(self, wanted: str) -> str:
        """The device of this process; with ``auto`` each takes its own GPU."""
        if wanted != "auto" or self.count == 1:
            return wanted
        import torch

        gpus = torch.cuda.device_count()
        return f"cuda:{self.local_index % gpus}" if gpus else "cpu"

    def console(self) -> Console:
        """Standard error of the process that writes the results; the others are silent."""
        return Console(stderr=True, quiet=not self.is_main)


class BatchLog:
    """Results of finished batches, one line of a journal a batch, one file a process.

    A line that a kill has cut short is dropped, and its whole batch is done again. How many
    processes wrote the files does not matter.
    """

    def __init__(self, folder: Path, shards: Shards, name: str = "batches") -> None:
        """Uses the files ``{name}-*.jsonl`` of a run folder."""
        self.folder, self.shards = folder, shards
        self._pattern = f"{name}-*.jsonl"
        self._own = Journal(folder / f"{name}-{shards.index}.jsonl")

    def results(self) -> dict[int, Any]:
        """Result of each position that is done."""
        found: dict[int, Any] = {}
        for path in sorted(self.folder.glob(self._pattern)):
            for number, record in enumerate(Journal(path).records(), start=1):
                try:
                    found |= zip(record["positions"], record["results"], strict=True)
                except (ValueError, KeyError, TypeError, RecursionError) as error:
                    raise ArtifactError(
                        f"{path}:{number}: not the results of a batch; delete {path.name} to do "
                        "its batches again"
                    ) from error
        return found

    def append(self, positions: Sequence[int], results: Sequence[Any]) -> None:
        """Adds a finished batch; it is on the disk when this returns."""
        self._own.append({"positions": list(positions), "results": results})

    def remove(self) -> None:
        """Deletes the files of all processes, once the results are written."""
        for path in self.folder.glob(self._pattern):
            path.unlink()


def in_batches(
    items: Sequence[_T], size: int, work: Work[_T], log: BatchLog, what: str
) -> list[Any]:
    """Does the work on all items, this process on its share of them.

    The main process gets the result of every item, as read back from JSON; the others get an empty
    list. Batches are cut the same way whichever process does them and however often a run was
    interrupted, so that results are the same to the bit.
    """
    done, shards, count = log.results(), log.shards, len(items)
    shards.wait()
    batches = (range(count)[start : start + size] for start in range(0, count, size))
    todo = [left for batch in batches if (left := [p for p in batch if p not in done])]
    own = todo[shards.index :: shards.count]
    for batch in with_progress(own, sum(map(len, own)), what, shards.console()):
        log.append(batch, work([items[position] for position in batch]))
    shards.wait()
    if not shards.is_main:
        return []
    found = log.results()
    missing = [position for position in range(count) if position not in found]
    if missing:
        raise ArtifactError(
            f"{log.folder}: {len(missing)} of {count} results that were written are gone; another "
            "command uses this folder, wait for it or choose another --out"
        )
    return [found[position] for position in range(count)]
