"""The process that serves a teacher: `incatalog teacher serve`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rich.console import Console

from incatalog.data.catalog import Catalog
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError, require
from incatalog.teacher.sasrec import WEIGHTS_FILE
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher_service.settings import TeacherServeConfig
from incatalog.web.listener import bound, serve_app


def serve_teacher(config: TeacherServeConfig) -> None:
    """Serves until SIGTERM or SIGINT, then answers what it has accepted and returns.

    Raises:
        ConfigError: A setting cannot work, or the port is taken.
        DataError: The data is missing or broken.
        TeacherError: No teacher there, a damaged one, or one of another catalog.
        MissingExtraError: FastAPI, uvicorn or the Prometheus client is not installed.
    """
    for package in ("fastapi", "prometheus_client", "uvicorn"):
        require(package, extra="serve")
    from incatalog.teacher_service.teacher_endpoints import TeacherService

    _check(config)
    prepared_files(config.data)
    catalog = Catalog.load(config.data)
    with bound(config.host, config.port) as listener:
        teacher = load_teacher(config.model, catalog, config.device)
        service = TeacherService(
            teacher, catalog, config, _fingerprint(config.model / WEIGHTS_FILE, catalog)
        )
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        serve_app(
            service.app(),
            listener,
            # Whatever was accepted is answered or given up within `timeout`.
            grace=config.timeout,
            announce=lambda address: console.print(
                f"teacher: {len(catalog)} items of {catalog.name} on {address} ({teacher.device})"
            ),
        )
    console.print(
        f"teacher: stopped; {service.batcher.accepted} questions accepted, "
        f"{service.telemetry.answered} answered"
    )


def _fingerprint(weights: Path, catalog: Catalog) -> str:
    with weights.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(catalog.fingerprint.encode())
    # Unlike the catalog's fingerprint, answers depend on categories too.
    members = {name: catalog.category_rows(name).tolist() for name in catalog.categories}
    digest.update(json.dumps(members).encode())
    return digest.hexdigest()


def _check(config: TeacherServeConfig) -> None:
    for field in ("max_batch", "max_queue", "max_k", "max_rows", "max_body"):
        if getattr(config, field) < 1:
            flag = "--" + field.replace("_", "-")
            raise ConfigError(f"{flag}: expected at least 1, got {getattr(config, field)}")
    if not 0 <= config.port <= 65535:
        raise ConfigError(f"--port: expected 0 to 65535, got {config.port}")
    if not config.max_wait >= 0:
        raise ConfigError(f"--max-wait: expected 0 seconds or more, got {config.max_wait}")
    if not config.timeout > 0:
        raise ConfigError(f"--timeout: expected more than 0 seconds, got {config.timeout}")
    if not config.model.is_dir():
        raise ConfigError(f"--model {config.model}: no such folder; fit one with `teacher fit`")
