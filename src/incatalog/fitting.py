"""The resumable training of a small network: epochs, validations, checkpoints."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from incatalog.progress import FitReport
from incatalog.snapshot import damaged, load_snapshot, save_snapshot

_CHECKPOINT = "checkpoint.safetensors"

Epoch = dict[str, Any]
"""An epoch of the history: its number, its losses, and what its validation found if it had one."""


@dataclass(frozen=True)
class Plan:
    """When a training validates, saves its state, and stops."""

    epochs: int
    validate_every: int
    save_every: int = 1
    patience: int = 0
    """Validations without a better score before it stops; 0 for no limit."""
    max_minutes: float = 0.0


class Fit(ABC):
    """A network in training, and all that it takes to go on with it later.

    Every epoch is a pure function of the state before it, the seed and its number. So a run that
    goes on from a checkpoint ends with the weights of an uninterrupted one (on CPU with as many
    threads, to the bit).
    """

    job: ClassVar[str]
    """Name in the report."""
    goal: ClassVar[str]
    """A figure that validated epochs have, and others have not."""

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        folder: Path,
        plan: Plan,
        *,
        learning_rate: float,
        weight_decay: float,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.device = device
        self.network = network.to(device)
        self.optimiser = torch.optim.AdamW(
            network.parameters(), lr=learning_rate, weight_decay=weight_decay
        )
        self.history: list[Epoch] = []
        self.seconds = 0.0

    @abstractmethod
    def _train_epoch(self) -> Epoch:
        """Trains an epoch; its losses."""

    @abstractmethod
    def _validate(self) -> Epoch:
        """What the network can do now."""

    @abstractmethod
    def _score(self, epoch: Epoch) -> Any:
        """What makes a validated epoch the best: the greatest score."""

    @abstractmethod
    def _keep(self, epoch: Epoch) -> None:
        """Called after each epoch, before a checkpoint is written: keeps the best weights."""

    @abstractmethod
    def _result(self, epoch: Epoch) -> str:
        """What the report says of an epoch."""

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def best(self, score: Callable[[Epoch], Any] | None = None) -> Epoch | None:
        """The first of the validated epochs with the greatest score."""
        validated = (epoch for epoch in self.history if self.goal in epoch)
        return max(validated, key=score or self._score, default=None)

    def run(self) -> str:
        """Trains to the end, and says why it ended."""
        plan = self.plan
        with FitReport(self.job, plan.epochs, done=self.epoch) as self.report:
            while not (reason := self._reason_to_stop()):
                started = time.monotonic()
                number = self.epoch + 1
                epoch = {"epoch": number, **self._train_epoch()}
                last = number == plan.epochs
                if last or number % plan.validate_every == 0:
                    epoch |= self._validate()
                self.history.append(epoch)
                self._keep(epoch)
                self.seconds += time.monotonic() - started
                if last or number % plan.save_every == 0:
                    self._save(self.folder / _CHECKPOINT)
                self.report.epoch_done(number, self._result(epoch))
        return reason

    def _reason_to_stop(self) -> str:
        if self.plan.patience and (best := self.best()) is not None:
            later = [epoch for epoch in self.history[best["epoch"] :] if self.goal in epoch]
            if len(later) >= self.plan.patience:
                return "patience"
        if self.epoch >= self.plan.epochs:
            return "epochs"
        return "max_minutes" if 0 < self.plan.max_minutes <= self.seconds / 60 else ""

    def set_learning_rate(self, rate: float) -> None:
        """Sets the learning rate of the steps to come."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _tensors(self) -> dict[str, Tensor]:
        """The state in a checkpoint."""
        found = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                found[f"optimiser.{key}.{name}"] = value
        return found

    def _counts(self) -> dict[str, Any]:
        """The state in a checkpoint that is not tensors, as JSON."""
        return {"seconds": self.seconds, "history": self.history}

    def _take(self, tensors: dict[str, Tensor], counts: dict[str, Any]) -> None:
        """Takes up the state of a checkpoint."""
        self.seconds = float(counts["seconds"])
        self.history = counts["history"]
        self.network.load_state_dict(below("network.", tensors))
        for name, parameter in self.network.named_parameters():
            state = self.optimiser.state[parameter]
            state["step"] = tensors[f"optimiser.step.{name}"]
            for key in ("exp_avg", "exp_avg_sq"):
                state[key] = tensors[f"optimiser.{key}.{name}"].to(self.device)

    def _save(self, path: Path) -> None:
        save_snapshot(path, self._tensors(), self._counts())

    def restore(self) -> None:
        """Takes up what an interrupted run left in the folder, if it left something.

        Raises:
            ArtifactError: The checkpoint cannot be read.
        """
        path = self.folder / _CHECKPOINT
        if not path.exists():
            return
        tensors, counts = load_snapshot(path)
        try:
            self._take(tensors, counts)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(path, error) from error


def below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, by the rest of the name."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def seed_epoch(*seeds: int) -> np.random.Generator:
    """Seeds torch for an epoch; the generator for what NumPy draws in it."""
    sequence = np.random.SeedSequence(seeds)
    torch.manual_seed(int(sequence.generate_state(1, np.uint64)[0]) >> 1)
    return np.random.default_rng(sequence)


def remove_checkpoint(folder: Path) -> None:
    """Removes the checkpoint of a finished run, and what a kill left of one."""
    for leftover in folder.glob(f"*{_CHECKPOINT}*"):
        leftover.unlink(missing_ok=True)
