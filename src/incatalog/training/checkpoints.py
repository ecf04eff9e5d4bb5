"""Checkpoints of a training: written whole, checked before use, and the one to go on from."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from torch import nn
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from incatalog.artifacts import fingerprint, read_json, write_json
from incatalog.errors import ArtifactError, DataError
from incatalog.storage import follow_umask, writing

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object

_COMPLETE = "complete.json"
_STATE = "trainer_state.json"


class SafeCheckpoints(_Base):  # type: ignore[misc]
    """What a `Trainer` needs so that a killed training goes on from a whole checkpoint."""

    def create_model_card(self, *args: Any, **options: Any) -> None:
        """None: the folder is no page of a hub."""

    def floating_point_ops(self, _inputs: dict[str, Any]) -> int:
        """Not counted: it would walk through all parameters in every step."""
        return 0

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if hasattr(self.model, "peft_config"):
            # By default peft would look on the hub whether the vocabulary has grown.
            options = {"state_dict": state_dict, "save_embedding_layers": False}
            self.model.save_pretrained(output_dir, **options)
        else:
            super()._save(output_dir, state_dict)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = _checkpoint(Path(str(self.args.output_dir)), self.state.global_step)
        with writing(folder):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            with writing(folder):
                follow_umask(folder)
                mark_complete(folder)


class BestFollowed(TrainerCallback):  # type: ignore[misc]
    """Finds the best checkpoint in a run that was moved; transformers would go on without it."""

    def on_train_begin(self, args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Looks for it where the run lies now."""
        if not args.load_best_model_at_end or not state.best_global_step:
            return
        best = _checkpoint(Path(args.output_dir), state.best_global_step)
        if not best.is_dir():
            raise ArtifactError(
                f"{best}: the best checkpoint so far is gone; restore it, or delete {best.parent} "
                "to start the training anew"
            )
        state.best_model_checkpoint = str(best)


def mark_complete(folder: Path) -> None:
    """Says that a checkpoint was written completely, and what its files hold."""
    files = {
        path.relative_to(folder).as_posix(): fingerprint([path])
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _COMPLETE
    }
    write_json(folder / _COMPLETE, {"step": checkpoint_step(folder), "files": files})


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written completely."""
    return next(iter(_complete(folder)), None)


def remove_unusable(folder: Path, console: Console) -> None:
    """Removes checkpoints that a killed run left half-written, and those damaged since."""
    complete = _complete(folder)
    for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        if path not in complete:
            shutil.rmtree(path)
    found = {path: reason for path in complete if (reason := damage(path)) is not None}
    for path in set(complete) - found.keys():
        # A training that keeps the best weights cannot go on without them.
        best = read_json(path / _STATE).get("best_global_step")
        if best and (reason := found.get(_checkpoint(folder, best))):
            found[path] = f"{reason}, which {path.name} needs as the best so far"
    if found and len(found) == len(complete):
        raise ArtifactError(
            f"{found[complete[0]]}; no whole checkpoint is left: restore it, or delete {folder} to "
            "start the training anew"
        )
    for path, reason in found.items():
        shutil.rmtree(path)
        told = f"notice: {reason}; it is left out, the training goes on from the one before it"
        console.print(told, style="yellow", highlight=False, markup=False, soft_wrap=True)


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a complete checkpoint: the file and how; None for a whole one."""
    try:
        found = read_json(checkpoint / _COMPLETE)
        files = found["files"].items()
    except DataError as error:
        return f"{error} (damaged)"
    except (KeyError, TypeError, AttributeError):
        return f"{checkpoint / _COMPLETE}: lists no files (damaged, or of an earlier version)"
    for name, digest in files:
        path = checkpoint / name
        if not path.is_file():
            return f"{path}: is gone (damaged checkpoint)"
        if fingerprint([path]) != digest:
            return f"{path}: not as it was written (damaged checkpoint)"
    return None if files else f"{checkpoint / _COMPLETE}: lists no files (damaged)"


def checkpoint_step(checkpoint: Path | None) -> int:
    """Optimiser steps done at a checkpoint; 0 for none."""
    number = "" if checkpoint is None else checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else 0


def _complete(folder: Path) -> list[Path]:
    """Checkpoints that were written completely, newest first."""
    found = (file.parent for file in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*/{_COMPLETE}"))
    return sorted(found, key=checkpoint_step, reverse=True)


def _checkpoint(folder: Path, step: int) -> Path:
    return folder / f"{PREFIX_CHECKPOINT_DIR}-{step}"
