"""The guide of a model folder: `guide.json`, and a complete copy of its teacher in `guide/`."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from incatalog.artifacts import read_json, write_json
from incatalog.checksums import file_checksums
from incatalog.config import EmptyHistory
from incatalog.data.catalog import Catalog
from incatalog.errors import ArtifactError, ConfigError, DataError, TeacherError
from incatalog.recommender.guide import USUAL_SHARE, Guide
from incatalog.recommender.settings import GUIDE_FILE, OFF, OWN
from incatalog.steering.balance import STEERING_FILE
from incatalog.teacher.teacher_folder import copy_teacher
from incatalog.teacher_service.client import is_url, open_served
from incatalog.teacher_service.published_teacher import require_probabilities

if TYPE_CHECKING:
    from incatalog.teacher.teacher import Teacher

GUIDE_FOLDER = "guide"

_FILES, _TEACHER = "files", "teacher"
_AGAIN = "restore it, or run `incatalog guide fit` again"


@dataclass(frozen=True)
class GuideChoice:
    """Which guide to take, as flags say it."""

    teacher: str = OWN  # a run folder, the URL of a served teacher, or one of the two words
    share: float | None = None  # how much it counts; None for as it was fitted, or else as usual
    empty: EmptyHistory | None = None  # None for as it was fitted, or else `empty_of`
    trained: bool = True  # whether the model was; else its own opinion counts nothing by default
    patience: float | None = None  # seconds to wait for a served teacher; None for its client's own

    def load(self, model: str | Path, catalog: Catalog, device: str = "auto") -> Guide | None:
        """The guide of a model on a catalog, or none.

        Raises:
            ArtifactError: What lies in the model's folder is not as it was written.
            ConfigError: There is no such teacher, or a share and nothing it could be that of.
            TeacherError: The teacher is damaged, or was fitted on another catalog.
        """
        if self.teacher == OFF:
            self._refuse_share("is off")
            return None
        if self.teacher != OWN:
            teacher = self._opened(self.teacher, catalog, device)
            usual = USUAL_SHARE if self.trained else 1.0
            share = usual if self.share is None else self.share
            return Guide(teacher, catalog, share, share, empty_of(teacher, self.empty))
        path = Path(model) / GUIDE_FILE
        if not path.exists():
            self._refuse_share(f"is lacking in {model}; name a teacher with --guide")
            return None
        found = _read(path)
        try:
            teacher = self._opened(_location(path, found), catalog, device)
        except TeacherError as error:
            raise TeacherError(f"{path}: {error}; or go without the guide: --guide off") from error
        kept = found["ranking"], found["list"]
        ranking, listing = kept if self.share is None else (self.share, self.share)
        empty = found["empty"] if self.empty is None else empty_of(teacher, self.empty)
        return Guide(teacher, catalog, ranking, listing, empty)

    def folder(self, model: str | Path) -> Path | None:
        """The run folder of the teacher; None where there is none, or it is served elsewhere."""
        own = Path(model) / GUIDE_FOLDER
        if self.teacher == OWN:
            return own if own.is_dir() else None
        return None if self.teacher == OFF or is_url(self.teacher) else Path(self.teacher)

    def _refuse_share(self, why: str) -> None:
        if self.share is not None:
            raise ConfigError(f"--guide-weight {self.share}: the guide {why}, or leave it out")

    def _opened(self, location: str, catalog: Catalog, device: str) -> Teacher:
        if is_url(location):
            hasty: dict[str, Any] = {"timeout": self.patience, "tries": _SERVING_TRIES}
            teacher = open_served(location, catalog, **({} if self.patience is None else hasty))
            require_probabilities(teacher, f"--guide {location}")
            return teacher
        if not Path(location).is_dir():
            expected = "the run folder of a teacher, the URL of a served one, or off"
            raise ConfigError(f"--guide {location}: no such folder; expected {expected}")
        # What some kinds of teachers need, a model without a guide does not.
        from incatalog.teacher.teacher import load_teacher

        return load_teacher(location, catalog, device)


# Who waits for an answer is told of a failure soon.
_SERVING_TRIES = 2


def empty_of(teacher: Teacher, wanted: EmptyHistory | None) -> EmptyHistory:
    """What a teacher says of a user without history.

    That is popularity where nothing else is wanted, but nothing of a teacher that answers no
    history without items, such as a network alone.

    Raises:
        ConfigError: Popularity is wanted of such a teacher.
    """
    if wanted == "nothing":
        return wanted
    try:
        teacher.log_probabilities([[]])
    except TeacherError as error:
        if wanted is not None:
            hint = "blend it with one that counts (`incatalog teacher blend`), or say nothing"
            raise ConfigError(f"--guide-empty {wanted}: {error}; {hint}") from error
        return "nothing"
    return "popularity"


def own_guide_files(model: str | Path) -> dict[str, Path]:
    """The files of a model's own guide by their paths in the folder; none without a guide."""
    folder = Path(model)
    if not (folder / GUIDE_FILE).exists():
        return {}
    files = {GUIDE_FILE: folder / GUIDE_FILE}
    for name in _read(folder / GUIDE_FILE)[_FILES]:
        files[f"{GUIDE_FOLDER}/{name}"] = folder / GUIDE_FOLDER / name
    return files


def verify_own_guide(model: str | Path) -> None:
    """Refuses a model's own guide if its files are not those that its description names.

    Raises:
        ArtifactError: They are not.
    """
    path = Path(model) / GUIDE_FILE
    if path.exists():
        _location(path, _read(path))


def save_guide(
    model: str | Path,
    teacher: str,
    *,
    ranking: float,
    listing: float,
    empty: EmptyHistory,
    fitted: Mapping[str, Any],
) -> None:
    """Makes a model folder a guided one.

    A teacher's run folder is copied, logs and checkpoints left out; a URL is kept as it is. The
    description comes last and names the files of the copy, so that a killed writer leaves the guide
    that was there, or one that is refused.
    """
    folder = Path(model)
    files: dict[str, str] = {}
    if not is_url(teacher):
        target = folder / GUIDE_FOLDER
        if Path(teacher).resolve() != target.resolve():
            copy_teacher(teacher, target)
            if (fit := Path(teacher) / STEERING_FILE).exists():
                shutil.copyfile(fit, target / STEERING_FILE)
        files = file_checksums(target)
    shares = {"ranking": ranking, "list": listing, "empty": empty}
    where = teacher if is_url(teacher) else GUIDE_FOLDER
    known = {_TEACHER: where, _FILES: files, "fitted": dict(fitted)}
    write_json(folder / GUIDE_FILE, shares | known)
    if is_url(teacher):
        shutil.rmtree(folder / GUIDE_FOLDER, ignore_errors=True)


def _read(path: Path) -> dict[str, Any]:
    """A description whose fields are what they should be."""
    try:
        found = read_json(path)
    except DataError as error:
        raise ArtifactError(f"{error}; {_AGAIN}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path}: holds no JSON object; {_AGAIN}")
    for name in ("ranking", "list"):
        share: Any = found.get(name)
        if type(share) not in (int, float) or not 0 <= share <= 1:
            raise ArtifactError(f"{path}: {name}: found {share!r}; expected 0 to 1; {_AGAIN}")
    teacher = found.get(_TEACHER)
    fits = {
        "empty": found.get("empty") in get_args(EmptyHistory),
        _TEACHER: teacher == GUIDE_FOLDER or is_url(str(teacher)),
        _FILES: isinstance(found.get(_FILES), dict),
    }
    for name, right in fits.items():
        if not right:
            raise ArtifactError(f"{path}: {name}: found {found.get(name)!r}; {_AGAIN}")
    return found


def _location(path: Path, found: Mapping[str, Any]) -> str:
    """Where the teacher of a description is, once its files are known to be those it names."""
    if found[_TEACHER] != GUIDE_FOLDER:
        return str(found[_TEACHER])
    folder = path.parent / GUIDE_FOLDER
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: is gone, and {path} names it; {_AGAIN}")
    there = file_checksums(folder)
    for name in sorted(found[_FILES].keys() | there.keys()):
        if found[_FILES].get(name) != there.get(name):
            raise ArtifactError(f"{folder / name}: is not the file that {path} names; {_AGAIN}")
    return str(folder)
