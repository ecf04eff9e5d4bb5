"""A run of an evaluation on held-out items: its processes, its users, its results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from jaxtyping import Int64
from rich.table import Table

from incatalog import metrics
from incatalog.artifacts import atomic_path, open_run, read_json, write_json
from incatalog.data.interactions import (
    MIN_INTERACTIONS,
    Histories,
    Holdout,
    LeaveOneOut,
    leave_one_out,
)
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError
from incatalog.evaluation.batchlog import BatchLog, Shards, Work, in_batches
from incatalog.evaluation.finished import SUMMARY
from incatalog.evaluation.methods import asked_catalog, model_files
from incatalog.evaluation.settings import HeldOutSettings
from incatalog.teacher.held_out import sample_users
from incatalog.teacher_service.client import is_url, open_served

_T = TypeVar("_T")

# So many items may always be asked for, even of a smaller catalog.
_ALWAYS = 1000


class EvaluationRun:
    """An evaluation on held-out items, as one of its processes sees it.

    Each batch is written to disk when it is done, so an interrupted run continues where it was,
    with the same results. The processes of ``accelerate launch`` share the batches.
    """

    def __init__(
        self,
        stage: str,
        settings: HeldOutSettings,
        show: Callable[[Mapping[str, Any]], Sequence[Table]],
        inputs: Mapping[str, Path | None] | None = None,
        teachers: Mapping[str, str] | None = None,
    ) -> None:
        """Opens the run; one that is finished shows its summary again.

        Of the ``teachers``, those that are served elsewhere are inputs too.
        """
        self.settings = settings
        self._show = show
        self._logs: list[BatchLog] = []
        self.shards = Shards.current(settings.device)
        vectors = Path(settings.vectors) if settings.vectors else None
        if vectors is not None and not vectors.is_file():
            raise ConfigError(
                f"--vectors {vectors}: no such file; make item vectors with `incatalog items embed`"
            )
        own = {**prepared_files(settings.data), **model_files(settings.model)}
        files = {**own, "vectors": vectors, **(inputs or {})}
        if not self.shards.is_main:
            self.shards.wait()
        self.catalog = asked_catalog(settings)
        live = self.catalog.num_live
        most = max(live, _ALWAYS)
        if settings.k > most:
            has = f"the catalog {self.catalog.name} has {live} items"
            raise ConfigError(f"--k: found {settings.k}; expected at most {most}, as {has}")
        named = {"model": settings.model, **(teachers or {})}
        served = {name: url for name, url in named.items() if is_url(url)}
        found = {name: open_served(url, self.catalog) for name, url in served.items()}
        known = {name: teacher.fingerprint for name, teacher in found.items()}
        free = ("batch_size", "verify")
        self._run = open_run(
            settings.out, stage, settings, inputs=files, identities=known, free_fields=free
        )
        if self.shards.is_main:
            self.shards.wait()
        self._console = self.shards.console()
        for name, teacher in found.items():
            told = f"--{name} {served[name]}: {teacher.described}"
            self._console.print(told, soft_wrap=True, highlight=False)
        self.device = self.shards.device(settings.device)
        self.finished = self._run.finished
        if self.finished:
            self._console.print(f"{settings.out}: already evaluated", soft_wrap=True)
            self._print(read_json(settings.out / SUMMARY))

    @cached_property
    def split(self) -> LeaveOneOut:
        """The histories and what is held out of each."""
        histories = Histories.load(self.settings.data, self.catalog)
        # A test asks what came last; rows of elsewhere are no longer than question and answer.
        return leave_one_out(histories, 2 if self.settings.split == "test" else MIN_INTERACTIONS)

    @cached_property
    def _users(self) -> list[int]:
        return sample_users(len(self.split), self.settings.users, self.settings.seed)

    @property
    def user_ids(self) -> list[str]:
        """The users that are scored."""
        return [self.split.user_ids[user] for user in self._users]

    @cached_property
    def holdouts(self) -> list[Holdout]:
        """History and target of each of these users."""
        held_out = self.split.test if self.settings.split == "test" else self.split.valid
        return [held_out(user) for user in self._users]

    @cached_property
    def users_with_item(self) -> Int64[np.ndarray, " items"]:
        """How many users have each item in their training history."""
        counts = np.zeros(len(self.catalog), dtype=np.int64)
        for user in range(len(self.split)):
            counts[np.unique(self.split.train(user))] += 1
        return counts

    def in_batches(
        self, items: Sequence[_T], work: Work[_T], what: str, log_name: str = "batches"
    ) -> list[Any]:
        """What `work` gives for each item, as read back from JSON; see `in_batches`."""
        log = BatchLog(self.settings.out, self.shards, log_name)
        self._logs.append(log)
        return in_batches(items, self.settings.batch_size, work, log, what)

    def intervals(self, scores: Mapping[str, metrics.Users]) -> dict[str, dict[str, float]]:
        """Mean of each metric with its interval; one that is defined for no user is left out."""
        return metrics.named_intervals(scores, self.settings.bootstrap, self.settings.seed)

    def write_table(self, name: str, table: pl.DataFrame) -> None:
        """Writes a parquet file into the run folder."""
        with atomic_path(self.settings.out / name) as partial:
            table.write_parquet(partial)

    def finish(self, method: str, results: Mapping[str, Any], recorded: Mapping[str, Any]) -> Path:
        """Ends the run: a summary with these results, intervals recorded in the manifest."""
        summary = {"method": method, "users": len(self.holdouts), "k": self.settings.k, **results}
        write_json(self.settings.out / SUMMARY, summary)
        self._run.finish(**{name: interval["value"] for name, interval in recorded.items()})
        for log in self._logs:
            log.remove()
        self._print(summary)
        return self.settings.out

    def _print(self, summary: Mapping[str, Any]) -> None:
        for table in self._show(summary):
            self._console.print(table)
