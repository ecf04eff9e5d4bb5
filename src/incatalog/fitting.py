"""The resumable training of a small network: epochs, validations, checkpoints."""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from incatalog.artifacts import atomic_path
from incatalog.errors import ArtifactError
from incatalog.progress import FitReport

_CHECKPOINT = "checkpoint.safetensors"
# What weights that are damaged, or of another network, make safetensors and torch raise.
UNREADABLE = (
    SafetensorError,
    OSError,
    LookupError,
    TypeError,
    ValueError,
    ArithmeticError,
    RuntimeError,
)

Epoch = dict[str, Any]
"""An epoch of the history: its number, its losses, and what its validation found if it had one."""


class Fit(ABC):
    """A network in training, and all that it takes to go on with it later.

    Every epoch is a pure function of the state before it, the seed and its number. So a run that
    goes on from a checkpoint ends with the weights of an uninterrupted one (on CPU with as many
    threads, to the bit).
    """

    job: ClassVar[str]  # its name in the report
    goal: ClassVar[str]  # a figure that only validated epochs have
    save_every = 1  # epochs between checkpoints
    patience = 0  # validations without a better score after which it stops; 0 for no limit
    max_minutes = 0.0

    def __init__(self, settings: Any, network: nn.Module, device: torch.device) -> None:
        """Takes settings with `out`, `epochs`, `validate_every` and the values of AdamW."""
        self.settings, self.device, self.network = settings, device, network.to(device)
        rate, decay = settings.learning_rate, settings.weight_decay
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay)
        self.extra: dict[str, Tensor] = {}  # what else a checkpoint holds
        self.history: list[Epoch] = []
        self.seconds, self.steps = 0.0, 0
        self._checkpoint: Path = settings.out / _CHECKPOINT

    @abstractmethod
    def _train_epoch(self) -> Epoch:
        """Trains an epoch, and returns its losses."""

    @abstractmethod
    def _validate(self) -> Epoch:
        """Figures of the network as it is now."""

    @abstractmethod
    def _keep(self, epoch: Epoch) -> None:
        """Keeps weights that are the best so far; called before the checkpoint is written."""

    @abstractmethod
    def _result(self, epoch: Epoch) -> str:
        """What the report says of an epoch."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def best(self, score: Callable[[Epoch], Any] | None = None) -> Epoch | None:
        """The first of the validated epochs with the greatest score, which is the goal if None."""
        validated = (epoch for epoch in self.history if self.goal in epoch)
        return max(validated, key=score or itemgetter(self.goal), default=None)

    def run(self) -> str:
        """Trains to the end, and returns why it ended."""
        epochs = self.settings.epochs
        with FitReport(self.job, epochs, done=self.epoch) as self.report:
            while not (reason := self._reason_to_stop()):
                started = time.monotonic()
                number = self.epoch + 1
                epoch = {"epoch": number, **self._train_epoch()}
                last = number == epochs
                if last or number % self.settings.validate_every == 0:
                    epoch |= self._validate()
                self.history.append(epoch)
                self._keep(epoch)
                self.seconds += time.monotonic() - started
                if last or number % self.save_every == 0:
                    self._save(self._checkpoint)
                self.report.epoch_done(number, self._result(epoch))
        return reason

    def _reason_to_stop(self) -> str:
        if self.patience and (best := self.best()) is not None:
            later = [epoch for epoch in self.history[best["epoch"] :] if self.goal in epoch]
            if len(later) >= self.patience:
                return "patience"
        if self.epoch >= self.settings.epochs:
            return "epochs"
        return "max_minutes" if 0 < self.max_minutes <= self.seconds / 60 else ""

    def _begin_step(self, learning_rate: float) -> None:
        self.steps += 1
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate

    def _save(self, path: Path) -> None:
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{key}.{name}"] = value
        progress = {"steps": self.steps, "seconds": self.seconds, "history": self.history}
        save_snapshot(path, tensors | self.extra, progress)

    def restore(self) -> None:
        """Goes on from the checkpoint of an interrupted run, if there is one."""
        if not self._checkpoint.exists():
            return
        tensors, progress = load_snapshot(self._checkpoint)
        try:
            self.steps, self.seconds = int(progress.get("steps", 0)), float(progress["seconds"])
            self.history = progress["history"]
            self.network.load_state_dict(below("network.", tensors))
            for name, parameter in self.network.named_parameters():
                state = self.optimiser.state[parameter]
                state["step"] = tensors[f"optimiser.step.{name}"]
                for key in ("exp_avg", "exp_avg_sq"):
                    state[key] = tensors[f"optimiser.{key}.{name}"].to(self.device)
            own = ("network.", "optimiser.")
            self.extra = {k: v for k, v in tensors.items() if not k.startswith(own)}
        except UNREADABLE as error:
            raise _damaged(self._checkpoint, error) from error


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of the name."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def seed_epoch(*seeds: int) -> np.random.Generator:
    """Seeds torch for an epoch, and returns NumPy's generator for it."""
    sequence = np.random.SeedSequence(seeds)
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)
    return np.random.default_rng(sequence)


def remove_checkpoint(folder: Path) -> None:
    """Removes the checkpoint of a finished run, and what a kill left of one."""
    for leftover in folder.glob(f"*{_CHECKPOINT}*"):
        leftover.unlink(missing_ok=True)


def save_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors, atomically."""
    with atomic_path(path) as partial:
        save_file({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, partial)


def save_snapshot(path: Path, tensors: Mapping[str, Tensor], progress: Mapping[str, Any]) -> None:
    """Writes tensors, and what else it takes to go on as JSON, atomically."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(progress)
    with atomic_path(path) as partial:
        save_file(kept, partial, metadata={"progress": text, "sha256": _digest(kept, text)})


def load_snapshot(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Reads what `save_snapshot` wrote."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["progress"]
        if _digest(tensors, text) != metadata["sha256"]:
            raise ValueError("its checksum differs")
        return tensors, json.loads(text)
    except UNREADABLE as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> ArtifactError:
    """Says that a training cannot go on from a snapshot, and why."""
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return ArtifactError(
        f"{path}: damaged checkpoint ({why}); delete the run folder and start anew"
    )


def _digest(tensors: Mapping[str, Tensor], progress: str) -> str:
    digest = hashlib.sha256(progress.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
