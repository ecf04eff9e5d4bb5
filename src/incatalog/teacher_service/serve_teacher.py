"""The process that serves a teacher: `incatalog teacher serve`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from rich.console import Console

from incatalog.data.catalog import Catalog
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError, require
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_folder import teacher_paths
from incatalog.teacher_service.settings import TeacherServeSettings
from incatalog.web.listener import bound, serve_app


def serve_teacher(settings: TeacherServeSettings) -> None:
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

    folder = settings.model
    if not folder.is_dir():
        raise ConfigError(f"--model {folder}: no such folder; fit one with `teacher fit`")
    prepared_files(settings.data)
    catalog = Catalog.load(settings.data)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with bound(settings.host, settings.port) as listener:
        teacher = load_teacher(folder, catalog, settings.device)
        fingerprint = teacher_fingerprint(folder, catalog)
        service = TeacherService(teacher, catalog, settings, fingerprint)

        def announce(address: str) -> None:
            items = f"{len(catalog)} items of {catalog.name}"
            console.print(f"teacher: {items} on {address} ({teacher.kind}, {teacher.device})")

        # What was accepted is answered or given up within `timeout`.
        serve_app(service.app(), listener, grace=settings.timeout, announce=announce)
    accepted, answered = service.batcher.accepted, service.telemetry.answered
    console.print(f"teacher: stopped; {accepted} questions accepted, {answered} answered")


def teacher_fingerprint(folder: Path, catalog: Catalog) -> str:
    """Tells a teacher from others by all that its answers depend on, parts in subfolders too."""
    digest = hashlib.sha256()
    for name in teacher_paths(folder):
        with (folder / name).open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        digest.update(f"{name.as_posix()}\0{content}\0".encode())
    digest.update(catalog.fingerprint.encode())
    # Unlike the catalog's fingerprint, answers depend on categories too.
    members = {name: catalog.category_rows(name).tolist() for name in catalog.categories}
    digest.update(json.dumps(members).encode())
    return digest.hexdigest()
