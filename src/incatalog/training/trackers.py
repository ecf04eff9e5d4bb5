"""Where the log of a training goes beside its own lines: TensorBoard, and trackers of experiments.

TensorBoard's log is ours and lies in the run folder; for the others transformers has callbacks.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from incatalog.errors import ConfigError, MissingExtraError, TrackerError, first_line, packages_in

TENSORBOARD = "tensorboard"
NONE = "none"
# By the names that transformers has for them, which are those of the packages and of our extras.
TRACKERS = ("mlflow", "wandb", "trackio")


def check_trackers(names: Sequence[str]) -> None:
    """Checks the values of ``--report-to``, and that every tracker can be imported.

    Raises:
        ConfigError: No such tracker, one that is named twice, or some beside `none`.
        MissingExtraError: A tracker is not installed.
        TrackerError: A tracker is installed, and breaks when it is imported.
    """
    given = f"--report-to {' '.join(names)}"
    known = (TENSORBOARD, *TRACKERS, NONE)
    if not names or not set(names) <= set(known):
        raise ConfigError(f"{given.strip()}: expected some of {', '.join(known)}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{given}: names one twice")
    if NONE in names and len(names) > 1:
        raise ConfigError(f"{given}: {NONE} stands alone; leave it out, or the others")
    for name in trackers(names):
        _import(name)


def trackers(names: Sequence[str]) -> list[str]:
    """Those of the names for which transformers brings a callback."""
    return [name for name in names if name in TRACKERS]


def run_name(folder: Path) -> str:
    """What a run is called in a tracker: the last two names of its folder."""
    return "/".join(folder.resolve().parts[-2:]).lstrip("/")


@contextlib.contextmanager
def telling_trackers(names: Sequence[str]) -> Iterator[None]:
    """Within it, what goes wrong inside of a tracker is told as one line that names it.

    Raises:
        TrackerError: A server that does not answer, a key that is wanted, a full disk.
    """
    try:
        yield
    except Exception as error:
        packages = packages_in(error)
        for name in trackers(names):
            if name in packages:
                told = first_line(error).rstrip(".") or type(error).__name__
                raise TrackerError(
                    f"--report-to {name}: {told}; once that is mended the same command goes on "
                    "from its newest checkpoint, without the tracker too"
                ) from error
        raise


def _import(name: str) -> None:
    flag = f"--report-to {name}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise TrackerError(
                f"{flag}: lacks {error.name}; run: pip install 'incatalog[{name}]'"
            ) from error
        module = None
    except Exception as error:
        raise TrackerError(f"{flag}: cannot be imported: {first_line(error)}") from error
    # A folder of that name in the working directory, which some trackers leave, is no package.
    if module is None or module.__file__ is None:
        raise MissingExtraError(
            f"{flag}: {name} is not installed; run: pip install 'incatalog[{name}]'"
        )
