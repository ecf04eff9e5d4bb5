"""The one exception family of incatalog, and the helper for optional dependencies."""

from __future__ import annotations

import importlib
from pathlib import Path
from traceback import walk_tb
from types import ModuleType


class IncatalogError(Exception):
    """Base of every error a user of incatalog can cause or has to act on.

    The message is one line: where (file and line, field or flag), what was found, what was
    expected, and the next step. The command line prints it without a traceback.
    """


class DataError(IncatalogError):
    """An input file or record cannot be used."""

    @classmethod
    def at(cls, path: str | Path, message: str, *, line: int | None = None) -> DataError:
        """Builds the error with its place in front: ``path:line: message``."""
        place = f"{path}:{line}" if line is not None else f"{path}"
        return cls(f"{place}: {message}")


class ConfigError(IncatalogError):
    """A flag or configuration field has a value that cannot work."""


class ContextLengthError(ConfigError):
    """A prompt leaves the model no room for an answer."""


class ArtifactError(IncatalogError):
    """A run folder, manifest or checkpoint is missing, foreign or damaged."""


class StorageError(IncatalogError):
    """A file cannot be written: no room, a limit, no permission."""


class CatalogError(IncatalogError):
    """A catalog lacks what was asked of it: an item id, a category, an item to recommend."""


class NoItemLeftError(CatalogError):
    """An item span was opened, but the exclusions leave no item that could stand in it."""


class BlockedError(NoItemLeftError):
    """Items are left, but something beside the catalog's rules bans what they go on with."""


class SpanError(IncatalogError):
    """Text within an item span leads to no item: a prompt's, or what no constraint wrote."""


class TokenizerError(IncatalogError):
    """The tokenizer does not fit: a control token is missing, or it is not the one trained with."""


class TrieError(IncatalogError):
    """A prefix tree is damaged, or was asked about a prefix that no item has."""


class SemanticIdError(IncatalogError):
    """Semantic IDs are missing, malformed, do not fit the catalog, or cannot be made."""


class VectorError(IncatalogError):
    """Item vectors are missing, damaged, or do not fit the catalog."""


class TeacherError(IncatalogError):
    """The teacher cannot answer."""


class ServiceError(IncatalogError):
    """A running service does not answer, or refuses a request."""


class StateError(IncatalogError):
    """What services keep cannot be reached just now; nothing was changed by who asked."""


class OutcomeError(StateError):
    """The connection broke while a change was being kept: it may hold, and may not."""


class ScorerError(IncatalogError):
    """A scorer of rewritten titles cannot answer; a reward is never made up in its place."""


class TrackerError(IncatalogError):
    """A tracker of experiments does not take the log of a training."""


class BackboneError(IncatalogError):
    """A language model cannot be created, loaded, adapted or saved."""


class HubError(IncatalogError):
    """The Hugging Face hub does not give or take a model, or is not to be asked."""


class MissingExtraError(IncatalogError, ImportError):
    """An optional dependency is not installed."""


class InstallationError(IncatalogError, ImportError):
    """A package that is installed cannot be imported, and takes others with it."""


def packages_in(error: BaseException) -> set[str]:
    """The packages whose code an error went through."""
    return {
        str(frame.f_globals.get("__name__", "")).partition(".")[0]
        for frame, _ in walk_tb(error.__traceback__)
    }


def first_line(error: Exception) -> str:
    """The first line of an error's message, with the one that it announces."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]) if lines else ""


def require(module: str, *, extra: str) -> ModuleType:
    """Imports an optional dependency, which the named extra of the package brings."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module} is not installed; run: pip install 'incatalog[{extra}]'"
        ) from error


NOT_NUMBERS = "the model's scores are not numbers; expected finite ones (try float32 or bfloat16)"
