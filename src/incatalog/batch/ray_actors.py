"""Ray places the processes: each of its actors makes shards as a process on its own does."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rich.console import Console

from incatalog.batch.batch_job import BatchJob, JobReport
from incatalog.batch.settings import BatchSettings
from incatalog.errors import IncatalogError, ServiceError, first_line, require

_SECONDS_BETWEEN_LOOKS = 1.0
# An actor that dies, with its node or alone, begins again; claims keep what it has done.
_RESTARTS = 3

Make = Callable[[BatchSettings, Console], None]


class _Worker:
    """What an actor runs."""

    def work(self, make: Make, settings: BatchSettings) -> None:
        make(settings, Console(quiet=True))


def work_on_ray(
    make: Make, settings: BatchSettings, workers: int, job: BatchJob, report: JobReport
) -> None:
    """Makes all shards that are left by actors of Ray.

    One that fails does not end the others.

    Args:
        make: What each of them does with its settings.
        settings: Those of each actor.
        workers: How many there are; 0 for one a GPU, or one a node.
        job: The folder.
        report: Tells how far all of them are.

    Raises:
        IncatalogError: What the first actor failed with, where shards are left then.
        MissingExtraError: Ray is not installed.
        ServiceError: No actor is left, as Ray or their nodes failed.
    """
    ray: Any = require("ray", extra="ray")
    if not job.left:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    mine = not ray.is_initialized()
    if mine:
        ray.init(log_to_driver=False, logging_level="ERROR", include_dashboard=False)
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0)) if settings.device != "cpu" else 0
        count = workers or gpus or len(ray.nodes())
        share = min(1.0, gpus / count)
        kind = ray.remote(_Worker).options(
            num_cpus=1, num_gpus=share, max_restarts=_RESTARTS, max_task_retries=_RESTARTS
        )
        waiting = [kind.remote().work.remote(make, settings) for _ in range(count)]
        failures: list[Exception] = []
        while waiting:
            over, waiting = ray.wait(waiting, timeout=_SECONDS_BETWEEN_LOOKS)
            report.look(job.left)
            for one in over:
                try:
                    ray.get(one)
                except ray.exceptions.RayError as error:
                    failures.append(getattr(error, "cause", None) or error)
    finally:
        if mine:
            ray.shutdown()
    if failures and job.left:
        first = failures[0]
        if isinstance(first, IncatalogError):
            raise first
        why = f"{len(failures)} of {count} actors failed ({first_line(first)})"
        raise ServiceError(f"--on ray: {why}; repeat the command to go on") from first
