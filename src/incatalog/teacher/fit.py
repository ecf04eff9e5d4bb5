"""`incatalog teacher fit`: trains SASRec with full softmax, resumable to the bit."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from incatalog.artifacts import open_run, write_json
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.interactions import SEQUENCES, Histories, LeaveOneOut, leave_one_out
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError, DataError
from incatalog.metrics import of_ranks
from incatalog.progress import FitReport
from incatalog.snapshot import damaged, load_snapshot, save_snapshot
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.teacher import InProcessTeacher

VALIDATION_FILE = "validation.json"
_CHECKPOINT = "checkpoint.safetensors"
_CUTOFFS = (1, 5, 10)
_GOAL = "NDCG@10"
_WARMUP_STEPS = 50
# Logits of one step are computed in blocks of at most this many cells: 16 MB, which a processor's
# cache holds, take three quarters of the time of 64 MB.
_LOGIT_CELLS = 1 << 22


class Window(NamedTuple):
    """A stretch of a history: the items seen, and the item that follows each of them."""

    items: Int64[np.ndarray, " length"]
    targets: Int64[np.ndarray, " length"]


def fit_teacher(settings: TeacherFitSettings) -> Path:
    """Trains a teacher, or goes on with an interrupted training of the same configuration.

    Each history gives its items but the last two for training and the one before the last for
    validation. Every epoch is a pure function of the weights before it, the seed and its number; a
    checkpoint follows each, so that an interrupted run ends with the weights of an uninterrupted
    one (on CPU with as many threads, to the bit).

    Returns:
        The run folder, with weights, description and `validation.json`.

    Raises:
        ConfigError: A value that cannot work.
        DataError: Data that cannot be trained on.
        ArtifactError: The run folder holds something else, or a damaged checkpoint.
    """
    _check(settings)
    device = resolve_device(settings.device)
    catalog = Catalog.load(settings.data)
    histories = Histories.load(settings.data, catalog)
    split = leave_one_out(histories)
    train = [split.train(user).astype(np.int64) for user in range(len(histories))]
    if not any(len(rows) > 1 for rows in train):
        raise DataError.at(
            settings.data, "no history has the 4 items it takes to train on and hold out two"
        )
    run = open_run(
        settings.out,
        "teacher fit",
        settings,
        inputs={name: Path(settings.data) / name for name in (METAS, SEQUENCES)},
        free_fields=["max_minutes"],
    )
    checkpoint = run.folder / _CHECKPOINT
    if not run.finished:
        # Training draws from torch's global generator; callers keep theirs.
        with torch.random.fork_rng(enabled=True):
            fit = _Fit(settings, catalog, train, split, device)
            if checkpoint.exists():
                fit.restore(checkpoint)
            summary = fit.run(checkpoint)
        save_network(run.folder, fit.network, catalog.fingerprint)
        write_json(run.folder / VALIDATION_FILE, summary)
        run.finish(epochs=summary["epochs"], **summary["metrics"])
    for leftover in [checkpoint, *run.folder.glob(f".{_CHECKPOINT}.*.partial")]:
        leftover.unlink(missing_ok=True)
    return run.folder


def training_windows(
    histories: Sequence[Int64[np.ndarray, " rows"]], max_length: int, rng: np.random.Generator
) -> list[Window]:
    """Cuts histories into windows so that each item but the first is a target exactly once.

    Histories that fit are one window. Longer ones are cut at a random place and every `max_length`
    items from there, so that over the epochs an item is seen at every position of the window.

    Args:
        histories: Rows of each history, oldest first; those with fewer than 2 give no window.
        max_length: Items in a window at most.
        rng: Source of the cuts.
    """
    windows = []
    for rows in histories:
        last = len(rows) - 1
        first = last if last <= max_length else int(rng.integers(1, max_length + 1))
        starts = [0, *range(first, last, max_length)]
        for start, end in zip(starts, [*starts[1:], last], strict=True):
            if end > start:
                windows.append(Window(rows[start:end], rows[start + 1 : end + 1]))
    return windows


def full_softmax_loss(
    network: SasRec,
    items: Int64[Tensor, "batch length"],
    targets: Int64[Tensor, "batch length"],
) -> float:
    """Mean cross entropy over all items at every labelled position; adds up the gradients.

    Logits exist for a block of positions at a time, which bounds memory on large catalogs.

    Args:
        network: The network; its gradients are written.
        items: Item numbers (row + 1), left-padded with 0.
        targets: Item numbers that follow, left-padded with 0.
    """
    labelled = targets != 0
    hidden: Float[Tensor, "labels hidden"] = network(items)[labelled]
    wanted = targets[labelled] - 1
    cut = hidden.detach().requires_grad_()
    size = max(1, _LOGIT_CELLS // network.sizes.num_items)
    total = 0.0
    for start in range(0, len(wanted), size):
        logits = network.item_scores(cut[start : start + size])
        loss = functional.cross_entropy(logits, wanted[start : start + size], reduction="sum")
        loss = loss / len(wanted)
        torch.autograd.backward(loss)
        total += loss.item()
    torch.autograd.backward(hidden, cut.grad)
    return total


def validation_metrics(
    teacher: InProcessTeacher, split: LeaveOneOut, *, exclude_seen: bool
) -> dict[str, float]:
    """HR and NDCG at 1, 5 and 10 of a teacher on the validation items.

    Args:
        teacher: The teacher.
        split: Histories and their validation items.
        exclude_seen: Leave items of the history out of the ranking.
    """
    held_out = [split.valid(user) for user in range(len(split))]
    ranks = np.concatenate(
        teacher.ranking(
            [holdout.history for holdout in held_out],
            [[holdout.target] for holdout in held_out],
            exclude_seen=exclude_seen,
        )
    )
    metrics = {}
    for k in _CUTOFFS:
        hits, gains = of_ranks(ranks, k)
        metrics[f"HR@{k}"] = float(hits.mean())
        metrics[f"NDCG@{k}"] = float(gains[hits].sum() / len(ranks))
    return metrics


class _Fit:
    """Network, optimiser and the best weights so far; knows how to save and restore itself."""

    def __init__(
        self,
        settings: TeacherFitSettings,
        catalog: Catalog,
        train: list[np.ndarray],
        split: LeaveOneOut,
        device: torch.device,
    ) -> None:
        self.config = settings
        self.catalog = catalog
        self.train = train
        self.split = split
        torch.manual_seed(settings.seed)
        sizes = SasRecSizes(
            num_items=len(catalog),
            max_length=settings.max_length,
            hidden=settings.hidden,
            inner=settings.inner,
            layers=settings.layers,
            heads=settings.heads,
            dropout=settings.dropout,
        )
        self.network = SasRec(sizes).to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.best: dict[str, Tensor] = {}
        self.steps = 0
        self.seconds = 0.0
        self.history: list[dict[str, float]] = []

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def best_entry(self) -> dict[str, float] | None:
        """The entry of the first epoch with the best validation."""
        return max(
            (entry for entry in self.history if _GOAL in entry),
            key=lambda entry: (entry[_GOAL], -entry["epoch"]),
            default=None,
        )

    def run(self, checkpoint: Path) -> dict[str, Any]:
        """Trains to the end, leaves the best weights in the network, and sums up."""
        with FitReport(self.config.epochs, done=self.epoch) as report:
            while (reason := self._reason_to_stop()) is None:
                started = time.monotonic()
                entry = self._train_epoch(report)
                last = self.epoch + 1 == self.config.epochs
                if last or (self.epoch + 1) % self.config.validate_every == 0:
                    entry |= self._validate()
                self.history.append(entry)
                if self.best_entry is entry:
                    self.best = {k: v.clone() for k, v in self.network.state_dict().items()}
                self.seconds += time.monotonic() - started
                self._save(checkpoint)
                report.epoch_done(entry, self.best_entry)
        best = self.best_entry
        if best is not None:
            self.network.load_state_dict(self.best)
        metrics = best if best is not None else self._validate()
        return {
            "method": "sasrec",
            "split": "valid",
            "users": len(self.split),
            "exclude_seen": self.config.exclude_seen,
            "epochs": self.epoch,
            "best_epoch": None if best is None else best["epoch"],
            "stopped_by": reason,
            "metrics": {k: v for k, v in metrics.items() if "@" in k},
            "history": self.history,
            "seconds": round(self.seconds, 1),
        }

    def _reason_to_stop(self) -> str | None:
        validated = [entry for entry in self.history if _GOAL in entry]
        best = self.best_entry
        if best is not None and len(validated) - 1 - validated.index(best) >= self.config.patience:
            return "patience"
        if self.epoch >= self.config.epochs:
            return "epochs"
        if 0 < self.config.max_minutes <= self.seconds / 60:
            return "max_minutes"
        return None

    def _train_epoch(self, report: FitReport) -> dict[str, float]:
        seeds = np.random.SeedSequence([self.config.seed, self.epoch])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]) >> 1)
        rng = np.random.default_rng(seeds)
        windows = training_windows(self.train, self.config.max_length, rng)
        self.network.train()
        total, labels = 0.0, 0
        report.epoch_begins(-(-len(windows) // self.config.batch_size))
        for batch in _batches(windows, self.config.batch_size, rng):
            self.steps += 1
            for group in self.optimiser.param_groups:
                group["lr"] = self.config.learning_rate * min(1.0, self.steps / _WARMUP_STEPS)
            self.optimiser.zero_grad()
            items = self.network.pad([window.items for window in batch])
            targets = self.network.pad([window.targets for window in batch])
            loss = full_softmax_loss(self.network, items, targets)
            self.optimiser.step()
            count = sum(len(window.targets) for window in batch)
            total, labels = total + loss * count, labels + count
            report.batch_done()
        return {"epoch": self.epoch + 1, "loss": total / labels}

    def _validate(self) -> dict[str, float]:
        teacher = InProcessTeacher(self.network, self.catalog, exact=False)
        return validation_metrics(teacher, self.split, exclude_seen=self.config.exclude_seen)

    def _save(self, path: Path) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{key}.{name}"] = value
        progress = {"steps": self.steps, "seconds": self.seconds, "history": self.history}
        save_snapshot(path, tensors, progress)

    def restore(self, path: Path) -> None:
        """Takes up the state that an interrupted run left after its last epoch.

        Raises:
            ArtifactError: The checkpoint cannot be read.
        """
        tensors, progress = load_snapshot(path)
        try:
            self.steps = int(progress["steps"])
            self.seconds = float(progress["seconds"])
            self.history = progress["history"]
            self.network.load_state_dict(_under("network.", tensors))
            device = self.network.item_embedding.weight.device
            self.best = {k: v.to(device) for k, v in _under("best.", tensors).items()}
            for name, parameter in self.network.named_parameters():
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    value = tensors[f"optimiser.{key}.{name}"]
                    self.optimiser.state[parameter][key] = (
                        value if key == "step" else value.to(device)
                    )
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(path, error) from error


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _batches(
    windows: list[Window], batch_size: int, rng: np.random.Generator
) -> Iterator[list[Window]]:
    order = rng.permutation(len(windows))
    for start in range(0, len(order), batch_size):
        yield [windows[index] for index in order[start : start + batch_size]]


def _check(settings: TeacherFitSettings) -> None:
    if settings.hidden % settings.heads:
        raise ConfigError(
            f"--hidden {settings.hidden}: expected a multiple of --heads ({settings.heads})"
        )
