"""`incatalog guide fit`: how much a teacher should count in a model's answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from incatalog import metrics
from incatalog.artifacts import fingerprint
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, Holdout, leave_one_out
from incatalog.data.model_catalog import model_catalog
from incatalog.data.prepared import prepared_files
from incatalog.errors import DataError
from incatalog.evaluation.methods import (
    ask_model,
    check_language_model,
    load_recommender,
    model_files,
)
from incatalog.evaluation.reader import entries
from incatalog.evaluation.settings import GuideFitSettings, HeldOutSettings
from incatalog.journal import Journal
from incatalog.locks import lock_folder
from incatalog.metrics import Users
from incatalog.progress import with_progress
from incatalog.recommender.guide import Guide, Kind
from incatalog.recommender.guide_folder import empty_of, save_guide
from incatalog.recommender.model_card import write_card
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.held_out import sample_users
from incatalog.teacher.teacher import Teacher
from incatalog.teacher.teacher_folder import teacher_paths
from incatalog.teacher_service.client import HttpTeacher, open_teacher
from incatalog.teacher_service.published_teacher import require_probabilities

_K = 10
_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
_RESAMPLES = 1000
# Weights that were measured, so that an interrupted fit goes on; gone when it is done.
_LOG = ".guide-fit.jsonl"
_DECODES: dict[Kind, Literal["beam", "list"]] = {"ranking": "beam", "list": "list"}


@dataclass(frozen=True)
class FittedShare:
    """The best weight of a teacher, and the NDCG@10 of each user at every weight that was tried."""

    kind: Kind
    tried: Mapping[float, Users]

    @property
    def share(self) -> float:
        """The weight of the highest mean; of equal ones the least."""
        means = self.means
        return min(means, key=lambda share: (-means[share], share))

    @property
    def means(self) -> dict[float, float]:
        """Mean NDCG@10 by weight, ascending."""
        return {share: float(self.tried[share].mean()) for share in sorted(self.tried)}

    def verdict(self, seed: int) -> str:
        """What the best weight gains over the model alone and over the teacher alone, in a line."""
        best, means = self.share, self.means
        told = f"{self.kind}: weight {best:g}, NDCG@{_K} {means[best]:.4f}"
        for other, name in ((0.0, "the model alone"), (1.0, "the teacher alone")):
            if best == other:
                told += f"; guiding adds nothing over {name}"
                continue
            gains = (self.tried[best] - self.tried[other])[:, None]
            [gain] = metrics.bootstrap_intervals(gains, _RESAMPLES, seed)
            told += f"; {name} {means[other]:.4f} ({gain.value:+.4f}, {gain.low:+.4f} to "
            told += f"{gain.high:+.4f})"
            if gain.low <= 0:
                told += f", so that these users do not show a gain over {name}"
        return told


def fit_guide(settings: GuideFitSettings) -> Path:
    """Finds how much a teacher should count, in rankings and in lists, and keeps it with the model.

    A sample of users is asked for their validation items, as `incatalog evaluate recommend --split
    valid` does, at the weights 0, 1/4, 1/2, 3/4 and 1, then beside the best one at half the
    distance, and so on; test items are not looked at. The best NDCG@10 counts. The teacher is
    copied into the model's folder (`guide/`; a URL is kept as it is), and `guide.json` says the
    rest. An interrupted fit goes on when its command is repeated.

    Returns:
        The model's folder.

    Raises:
        ConfigError: A setting cannot work.
        DataError: The data is broken, or of another catalog than the model's.
        TeacherError: The teacher was fitted on another catalog, or does not answer.
        BackboneError: The model is incomplete or damaged.
    """
    model, console = settings.model, Console(stderr=True, soft_wrap=True, highlight=False)
    check_language_model(str(model))
    files = prepared_files(settings.data)
    own = model_catalog(model, settings.title_field)
    catalog = Catalog.load(settings.data, title_field=own.title_field)
    if own.fingerprint != catalog.fingerprint:
        raise DataError(
            f"--data {settings.data}: is another catalog than that of {model} (items, order or "
            "titles differ); give the data it was trained on"
        )
    teacher = open_teacher(settings.teacher, catalog, settings.device)
    require_probabilities(teacher, f"--teacher {settings.teacher}")
    empty = empty_of(teacher, settings.guide_empty)
    same = settings.named("data", "exclude_seen", "batch_size", "device", "verify")
    held_out = HeldOutSettings(str(model), out=model, split="valid", k=_K, **same)
    split = leave_one_out(Histories.load(settings.data, catalog))
    users = sample_users(len(split), settings.users, settings.seed)
    holdouts = [split.valid(user) for user in users]
    lock = lock_folder(model)
    known = _identity(settings, teacher, files)
    log = ShareLog(Journal(model / _LOG), known)
    recommender = load_recommender(held_out, catalog, settings.device)
    fitted: dict[Kind, FittedShare] = {}
    for kind in _DECODES:

        def measure(share: float, kind: Kind = kind) -> Users:
            guided = recommender.with_guide(Guide(teacher, catalog, share, share, empty))
            found = _ndcg(guided, kind, holdouts, held_out, console)
            console.print(f"{kind}: weight {share:g}, NDCG@{_K} {found.mean():.4f}")
            return found

        tried = try_shares(log.measured(kind, measure), settings.refinements)
        fitted[kind] = FittedShare(kind, tried)
    about = {
        "split": "valid",
        "users": len(users),
        **settings.named("seed", "exclude_seen"),
        f"NDCG@{_K}": {
            kind: {f"{share:g}": round(mean, 6) for share, mean in one.means.items()}
            for kind, one in fitted.items()
        },
    }
    shares = {"ranking": fitted["ranking"].share, "listing": fitted["list"].share}
    save_guide(model, settings.teacher, **shares, empty=empty, fitted=about)
    write_card(model)
    log.remove()
    if lock is not None:
        lock.release()
    console.print(share_table(fitted, len(users)))
    for one in fitted.values():
        console.print(one.verdict(settings.seed))
    console.print(f"written to {model}")
    return model


def try_shares(measure: Callable[[float], Users], refinements: int) -> dict[float, Users]:
    """Measures a grid of weights, then the neighbours of the best at half the distance, and so on.

    The best is that of the highest mean; of equal ones the least.
    """
    tried = {share: measure(share) for share in _GRID}
    step = _GRID[1]
    for _ in range(refinements):
        step /= 2
        best = min(tried, key=lambda share: (-tried[share].mean(), share))
        for share in (best - step, best + step):
            if 0 <= share <= 1:
                tried[share] = measure(share)
    return tried


def share_table(fitted: Mapping[Kind, FittedShare], users: int) -> Table:
    """NDCG@10 by weight, the best of each kind marked."""
    title = f"NDCG@{_K} of {users} users' validation items"
    table = Table("weight", *fitted, title=title, box=SIMPLE_HEAD)
    for share in sorted(set().union(*(one.tried for one in fitted.values()))):
        cells = []
        for one in fitted.values():
            mark = " *" if share == one.share else ""
            cells.append(f"{one.means[share]:.4f}{mark}" if share in one.tried else "")
        table.add_row(f"{share:g}", *cells)
    return table


class ShareLog:
    """What was measured of each weight, on disk; of a fit with other settings or files, nothing."""

    def __init__(self, journal: Journal, identity: Mapping[str, Any]) -> None:
        self._journal = journal
        records = journal.records()
        if not records or records[0] != identity:
            self.remove()
            journal.append(dict(identity))
            records = [identity]
        self._found = {(one["kind"], one["share"]): one["ndcg"] for one in records[1:]}

    def measured(self, kind: Kind, measure: Callable[[float], Users]) -> Callable[[float], Users]:
        """The same measure, which is not repeated for what is known."""

        def known(share: float) -> Users:
            if (kind, share) not in self._found:
                ndcg = measure(share).tolist()
                self._journal.append({"kind": kind, "share": share, "ndcg": ndcg})
                self._found[kind, share] = ndcg
            return np.array(self._found[kind, share])

        return known

    def remove(self) -> None:
        """Forgets everything."""
        self._journal.path.unlink(missing_ok=True)


def _identity(
    settings: GuideFitSettings, teacher: Teacher, files: Mapping[str, str | Path]
) -> dict[str, Any]:
    """What the measured figures depend on."""
    free = ("batch_size", "device", "verify", "refinements")
    own = {name: str(value) for name, value in asdict(settings).items() if name not in free}
    known = teacher.fingerprint if isinstance(teacher, HttpTeacher) else None
    parts: list[str | Path] = [*files.values(), *model_files(str(settings.model)).values()]
    if not known:
        parts += [Path(settings.teacher) / path for path in teacher_paths(settings.teacher)]
    digest = fingerprint(parts)
    return own | {"served": known, "files": digest}


def _ndcg(
    guided: Recommender,
    kind: Kind,
    holdouts: Sequence[Holdout],
    settings: HeldOutSettings,
    console: Console,
) -> Users:
    """NDCG@10 of each user."""
    answer, size = ask_model(guided, settings, _DECODES[kind]), settings.batch_size
    batches = [holdouts[at : at + size] for at in range(0, len(holdouts), size)]
    named = [
        entries(one)
        for batch in with_progress(batches, len(holdouts), f"guide {kind}", console)
        for one in answer(batch)
    ]
    return metrics.ndcg(named, [{one.target} for one in holdouts], _K)
