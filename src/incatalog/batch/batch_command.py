"""`incatalog batch`: lists for all users of a Parquet file, made by any number of processes."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace

from rich.console import Console

from incatalog.batch.batch_job import BatchJob, JobReport, rooted, tell_unread
from incatalog.batch.settings import BatchSettings
from incatalog.batch.shard_folder import Tally
from incatalog.batch.user_table import UserTable
from incatalog.errors import require
from incatalog.model.hub import with_model_here
from incatalog.recommender.asking import asked_rules, refuse_model_flags
from incatalog.recommender.item_names import ItemNames
from incatalog.recommender.opening import catalog_of, model_kind


def make_lists(settings: BatchSettings, console: Console | None = None) -> None:
    """Makes the lists of a folder that are not made yet, together with whoever does so too.

    Each shard of users is a file ``shards/NUMBER.parquet`` with the columns user_id, items, scores
    and catalog_version. It returns when all shards are done, by this process or by others.

    Args:
        settings: The settings.
        console: Where progress is told; standard error by default.

    Raises:
        ArtifactError: The folder belongs to other settings or inputs, or a file in it is damaged.
        CatalogError: A flag names no item of the catalog, or several.
        ConfigError: A flag cannot work.
        DataError: The table of users lacks a column, has a broken row, or a user twice.
        TeacherError: The guide is one of another catalog, or does not answer.
    """
    ray, vllm = settings.on == "ray", settings.engine == "vllm"
    settings.refuse_first([
        (bool(settings.workers) and not ray, "workers",
         "counts actors of Ray; add --on ray, or start the command so often"),
        (vllm and settings.decode == "beam", "decode",
         "searches all items, and vLLM writes lists token by token; take greedy"),
        (vllm and settings.first_share is not None, "first_share",
         "is about items found as a whole, and vLLM writes them token by token; leave it out"),
        (bool(settings.vllm) and not vllm, "vllm", "is for --engine vllm; add that"),
    ])  # fmt: skip
    if vllm:
        from incatalog.vllm.async_engine import checked_arguments

        if not ray:
            require("vllm.version", extra="vllm")
        checked_arguments(settings.vllm)
    if ray:
        require("ray", extra="ray")
    settings = rooted(with_model_here(settings))
    kind = model_kind(settings.model)
    refuse_model_flags(settings, kind)
    settings.refuse_first([
        (vllm and kind == "teacher", "engine",
         f"{settings.model} is a teacher, which is asked by itself; leave it out"),
    ])  # fmt: skip
    table = UserTable.open(settings.histories)
    catalog = catalog_of(settings.model, kind, settings.data, settings.title_field)
    rules = asked_rules(settings, catalog, ItemNames(catalog))
    job = BatchJob.open(settings, kind, catalog, table)
    tell_unread(table)
    job.check()
    if ray:
        from incatalog.batch.ray_actors import work_on_ray

        with JobReport(job, console) as report:
            alone = replace(settings, on="local", workers=0)
            work_on_ray(make_lists, alone, settings.workers, job, report)
    elif job.left:
        # Before the first list, so that nothing is loaded where nothing is left.
        from incatalog.batch.list_makers import open_lists

        with (
            closing(open_lists(settings, kind, catalog, rules)) as maker,
            JobReport(job, console) as report,
        ):
            job.work(maker, report)
    _tell(settings, job.finish())


def _tell(settings: BatchSettings, tally: Tally) -> None:
    """Says what the lists are not."""
    if tally.unknown:
        named = ", ".join(map(repr, tally.named))
        told = f"{tally.unknown} ids left out, as the catalog has no such item, such as {named}"
        sys.stderr.write(f"notice: {settings.histories}: {told}\n")
    if tally.short:
        of = f"{tally.short} of {tally.users} users, none at all for {tally.empty}"
        sys.stderr.write(f"notice: --k {settings.k}: fewer items are left for {of}\n")
