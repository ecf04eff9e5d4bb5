"""Models on the Hugging Face hub: asked for by name, downloaded once, then read from the cache."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from incatalog.errors import ConfigError, HubError, first_line

_S = TypeVar("_S")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")
NO_NAME = "neither a folder here nor a name of the hub; expected a folder or org/name"
_LOG_IN = "set HF_TOKEN, or run `hf auth login`"
# Files that run code when they are read.
PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt", "*.joblib", "*.dill")
# What is never read here: pickles, weights of other programs, what a training leaves.
_UNREAD = [
    *PICKLES,
    *("*.h5", "*.msgpack", "*.onnx", "*.gguf", "*.ot", "*.tflite"),
    *("onnx/*", "openvino/*", "original/*", "checkpoints/*", "tensorboard/*"),
]


def is_repository(name: str) -> bool:
    """Whether a text has the form of a name on the hub, as org/name."""
    return _NAME.fullmatch(name) is not None


def on_disk(name: str | Path, revision: str | None = None, *, flag: str = "") -> str | Path:
    """What a model is called here: the folder of one of the hub, or the name as it is.

    A path, a folder that is there, and all that has not the form org/name are left as they are, and
    nobody is asked. Neither is the hub for a name whose first part is a folder here, unless with a
    revision: a mistyped folder is no model of somebody else.

    Args:
        name: A folder, another word that stands for a model, or a name on the hub.
        revision: Branch, tag or commit of a model of the hub; its main branch if None.
        flag: What errors put in front, such as ``--model``.

    Raises:
        ConfigError: A revision of what lies on this machine.
        HubError: The hub does not give the model, and the cache does not hold it.
    """
    text, place = str(name), f"{flag} {name}".strip()
    asked = isinstance(name, str) and is_repository(text) and not Path(text).exists()
    if not asked:
        if revision is not None:
            why = f"{text or 'no model'} is not on the hub, and only models there have revisions"
            raise ConfigError(f"--revision {revision}: {why}; leave it out")
        return name
    if revision is None and Path(text).parent.is_dir():
        return name
    return _downloaded(text, revision, place)


def with_model_here(settings: _S) -> _S:
    """Settings whose ``model`` is a folder, where it was the name of one on the hub."""
    given: Any = settings
    found = on_disk(str(given.model), given.revision, flag="--model")
    if found == str(given.model):
        return settings
    here: _S = replace(given, model=type(given.model)(found), revision=None)
    return here


def _downloaded(name: str, revision: str | None, place: str) -> str:
    """The folder of the cache with all that is read of a model."""
    from huggingface_hub import snapshot_download

    try:
        with bars_for_people():
            return str(snapshot_download(name, revision=revision, ignore_patterns=_UNREAD))
    except hub_errors() as error:
        raise HubError(f"{place}: {hub_fault(error, name, revision)}") from error


def hub_errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises: its own, httpx's, what the disk says, what it cannot read."""
    import httpx

    return httpx.HTTPError, OSError, RuntimeError, ValueError, LookupError


@contextmanager
def bars_for_people() -> Iterator[None]:
    """Has the hub's client draw its bars on terminals alone."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if sys.stderr.isatty() or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def hub_fault(error: Exception, name: str, revision: str | None) -> str:
    """What was wrong with a question to the hub, and the next step, in words."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(error, errors.HFValidationError):
        return NO_NAME
    if isinstance(error, errors.GatedRepoError):
        return f"is gated; ask for access at {hub}/{name}, then {_LOG_IN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        what = f"neither a folder here nor a model that {hub} shows"
        return f"{what}; check the name, and for a private model {_LOG_IN}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"has no branch, tag or commit {revision}; leave --revision out for main"
    if constants.HF_HUB_OFFLINE:
        part = "only in part " if isinstance(error, errors.IncompleteSnapshotError) else "not "
        offline = f"is {part}in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE is set"
        which = f" --revision {revision}" if revision else ""
        return f"{offline}; unset it, or run `hf download {name}{which}` where there is a network"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) else None
    told = cause if isinstance(cause, Exception) else error
    reason = f"{type(told).__name__}: {first_line(told)[:200]}"
    return f"{hub} does not give it ({reason}); try again, or name a folder"
