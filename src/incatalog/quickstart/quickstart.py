"""`incatalog quickstart`: from two files of a shop to a chat that recommends."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from rich.console import Console

from incatalog.data.settings import CheckSettings, ColumnSettings, TableSettings
from incatalog.errors import DataError
from incatalog.quickstart.blend_quality import BLEND
from incatalog.quickstart.settings import QuickstartSettings
from incatalog.quickstart.stages import DATA, SERVICE_FILE, Stages

_STAGE = "data table"


def run_quickstart(settings: QuickstartSettings) -> Path:
    """Guesses the columns, prepares the data, fits a blend, says how good it is, and serves.

    What is done is kept when the command is repeated; where the files have changed, everything is
    made anew. ``out`` holds ``data``, ``knn``, ``blend``, ``quality.json`` and ``serve.yaml``, with
    which `incatalog serve --config` starts the service again.

    Returns:
        The path of ``serve.yaml``.

    Raises:
        ConfigError: A setting cannot work, or the port is taken.
        DataError: A file cannot be used, or columns cannot be told; names all of them.
        BackboneError: The model is missing, or cannot chat.
        ArtifactError: ``out`` holds something else.
    """
    from incatalog.data.settling import settled
    from incatalog.quickstart.chat_model import local_model

    console, out = Console(), Path(settings.out)
    stages = Stages(out, 4, console)
    if settings.serve:
        check_port(settings.port)
    stages.begin("The two files")
    columns = {one.name: getattr(settings, one.name) for one in dataclasses.fields(ColumnSettings)}
    table = settled(
        TableSettings(settings.orders, settings.products, out / DATA, **columns), always_show=True
    )
    model = local_model(settings.model)
    stages.begin("Catalog and histories")
    _prepare(stages, table)
    stages.begin("A blend of recommenders, fitted and compared with popularity")
    quality = stages.fit(settings.minutes, settings.seed)
    console.print(quality.table())
    stages.say(quality.sentence())
    stages.begin("Service and page")
    path = stages.describe_service(out.resolve().name, model, settings.port)
    stages.say(f"written to {out}: {DATA}, {BLEND}, {SERVICE_FILE}")
    serve_or_say(stages, path, settings.port, serving=settings.serve)
    return path


def check_port(port: int) -> None:
    """Refuses a port that is taken, before anything takes long."""
    from incatalog.web.listener import bound

    bound("127.0.0.1", port).close()


def serve_or_say(stages: Stages, path: Path, port: int, *, serving: bool) -> None:
    """Serves what a file describes, or prints the command that does."""
    if not serving:
        where = f"http://127.0.0.1:{port}" if port else "the address that it prints"
        stages.say(f"next: incatalog serve --config {path}   (the page is then at {where})")
        return
    if port:
        stages.say(f"loading the model; the page is at http://127.0.0.1:{port}   (Ctrl+C ends it)")
    sys.stdout.flush()
    flags = ["--config", str(path), "--port", str(port)]
    # In the place of this process, which holds what fitting took of memory.
    os.execv(sys.executable, [sys.executable, "-m", "incatalog.cli", "serve", *flags])


def _prepare(stages: Stages, table: TableSettings) -> None:
    """Prepares the tables, unless they are those of the last time, and checks the result."""
    from incatalog.data.check import examined
    from incatalog.data.tables import prepare_table

    inputs = {"interactions": Path(table.interactions), "items": Path(table.items)}
    if stages.kept(DATA, table, inputs):
        stages.say(f"{stages.out / DATA} is of these files already")
    else:
        prepare_table(table)
    report = examined(CheckSettings(stages.out / DATA))
    if not report.trainable:
        problem = report.problems[0]
        raise DataError.at(stages.out / DATA, f"{problem}; see incatalog data check")
    stages.say(
        f"{report.users:,} customers with {report.interactions:,} orders of "
        f"{report.items:,} products in {report.categories:,} categories"
    )
