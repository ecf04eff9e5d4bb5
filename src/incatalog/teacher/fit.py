"""`incatalog teacher fit`: trains SASRec with full softmax, resumable to the bit."""

from __future__ import annotations

from collections.abc import Sequence
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
from incatalog.fitting import Epoch, Fit, below, remove_checkpoint, seed_epoch
from incatalog.metrics import of_ranks
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.teacher import InProcessTeacher

VALIDATION_FILE = "validation.json"
_CUTOFFS = (1, 5, 10)
_WARMUP_STEPS = 50
# Cells of the logits that exist together; a processor's cache holds as many.
_LOGIT_CELLS = 1 << 22


class Window(NamedTuple):
    """A stretch of a history: the items seen, and the item that follows each of them."""

    items: Int64[np.ndarray, " length"]
    targets: Int64[np.ndarray, " length"]


def fit_teacher(settings: TeacherFitSettings) -> Path:
    """Trains a teacher, or goes on with an interrupted training of the same settings.

    Each history gives all its items but the last two for training, and the last but one for
    validation. An interrupted run goes on from the checkpoint of its last epoch and ends with the
    weights of an uninterrupted one (on CPU with as many threads, to the bit).

    Returns:
        The run folder, with weights, description and `validation.json`.

    Raises:
        ConfigError: A value that cannot work.
        DataError: Data that cannot be trained on.
        ArtifactError: The run folder holds something else, or a damaged checkpoint.
    """
    hidden, heads = settings.hidden, settings.heads
    if hidden % heads:
        raise ConfigError(f"--hidden {hidden}: expected a multiple of --heads ({heads})")
    device = resolve_device(settings.device)
    catalog = Catalog.load(settings.data)
    split = leave_one_out(Histories.load(settings.data, catalog))
    if not any(len(split.train(user)) > 1 for user in range(len(split))):
        short = "no history has the 4 items it takes to train on and hold out two"
        raise DataError.at(settings.data, short)
    inputs = {name: settings.data / name for name in (METAS, SEQUENCES)}
    free = ["max_minutes"]
    run = open_run(settings.out, "teacher fit", settings, inputs=inputs, free_fields=free)
    if not run.finished:
        # Training draws from torch's global generator; callers keep theirs.
        with torch.random.fork_rng(enabled=True):
            fit = SasRecFit(settings, catalog, split, device)
            fit.restore()
            summary = fit.summary(fit.run())
        save_network(run.folder, fit.network, catalog.fingerprint)
        write_json(run.folder / VALIDATION_FILE, summary)
        run.finish(epochs=summary["epochs"], **summary["metrics"])
    remove_checkpoint(run.folder)
    return run.folder


def training_windows(
    histories: Sequence[Int64[np.ndarray, " rows"]], max_length: int, rng: np.random.Generator
) -> list[Window]:
    """Cuts histories into windows so that each item but the first is a target exactly once.

    A history that fits is one window. A longer one is cut at a random place and every `max_length`
    items from there, so that over the epochs an item is seen at every position of the window.
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
    network: SasRec, items: Int64[Tensor, "batch length"], targets: Int64[Tensor, "batch length"]
) -> float:
    """Mean cross entropy over all items at every labelled position; adds up the gradients.

    Items and targets are item numbers (row + 1), padded with 0 on the left. Logits exist for a
    block of positions at a time, which bounds memory on large catalogs.
    """
    labelled = targets != 0
    hidden: Float[Tensor, "labels hidden"] = network(items)[labelled]
    wanted = targets[labelled] - 1
    cut = hidden.detach().requires_grad_()
    size = max(1, _LOGIT_CELLS // network.sizes.num_items)
    total = 0.0
    for part, labels in zip(torch.split(cut, size), torch.split(wanted, size), strict=True):
        logits = network.item_scores(part)
        loss = functional.cross_entropy(logits, labels, reduction="sum") / len(wanted)
        torch.autograd.backward(loss)
        total += loss.item()
    torch.autograd.backward(hidden, cut.grad)
    return total


def validation_metrics(
    teacher: InProcessTeacher, split: LeaveOneOut, *, exclude_seen: bool
) -> dict[str, float]:
    """HR and NDCG at 1, 5 and 10 of a teacher on the validation items."""
    held_out = [split.valid(user) for user in range(len(split))]
    histories, targets = [one.history for one in held_out], [[one.target] for one in held_out]
    ranks = np.concatenate(teacher.ranking(histories, targets, exclude_seen=exclude_seen))
    metrics = {}
    for k in _CUTOFFS:
        hits, gains = of_ranks(ranks, k)
        metrics[f"HR@{k}"] = float(hits.mean())
        metrics[f"NDCG@{k}"] = float(gains[hits].sum() / len(ranks))
    return metrics


class SasRecFit(Fit):
    """SASRec in training; keeps its best weights in memory."""

    job = "teacher"
    goal = "NDCG@10"
    settings: TeacherFitSettings
    network: SasRec

    def __init__(
        self,
        settings: TeacherFitSettings,
        catalog: Catalog,
        split: LeaveOneOut,
        device: torch.device,
    ) -> None:
        """Draws the weights from torch's global generator."""
        torch.manual_seed(settings.seed)
        s, items = settings, len(catalog)
        sizes = SasRecSizes(items, s.max_length, s.hidden, s.inner, s.layers, s.heads, s.dropout)
        super().__init__(settings, SasRec(sizes), device)
        self.patience, self.max_minutes = settings.patience, settings.max_minutes
        self.catalog, self.split = catalog, split
        self.train = [split.train(user).astype(np.int64) for user in range(len(split))]

    def summary(self, reason: str) -> dict[str, Any]:
        """Leaves the best weights in the network, and sums up a training that ended."""
        best = self.best()
        if best is not None:
            self.network.load_state_dict(below("best.", self.extra))
        figures = best or self._validate()
        return validation_header(self.split, self.settings.exclude_seen) | {
            "epochs": self.epoch,
            "best_epoch": None if best is None else best["epoch"],
            "stopped_by": reason,
            "metrics": {name: value for name, value in figures.items() if "@" in name},
            "history": self.history,
            "seconds": round(self.seconds, 1),
        }

    def _train_epoch(self) -> Epoch:
        settings, network = self.settings, self.network
        rng = seed_epoch(settings.seed, self.epoch)
        windows = training_windows(self.train, settings.max_length, rng)
        order = rng.permutation(len(windows))
        network.train()
        total, labels = 0.0, 0
        for start in range(0, len(order), settings.batch_size):
            batch = [windows[index] for index in order[start : start + settings.batch_size]]
            warmth = min(1.0, (self.steps + 1) / _WARMUP_STEPS)
            self._begin_step(settings.learning_rate * warmth)
            self.optimiser.zero_grad()
            items = network.pad([window.items for window in batch])
            targets = network.pad([window.targets for window in batch])
            loss = full_softmax_loss(network, items, targets)
            self.optimiser.step()
            count = sum(len(window.targets) for window in batch)
            total, labels = total + loss * count, labels + count
            self.report.show(completed=self.epoch + start / len(order))
        return {"loss": total / labels}

    def _validate(self) -> Epoch:
        teacher = InProcessTeacher(self.network, self.catalog, exact=False)
        return validation_metrics(teacher, self.split, exclude_seen=self.settings.exclude_seen)

    def _keep(self, epoch: Epoch) -> None:
        if self.best() is epoch:
            weights = self.network.state_dict()
            self.extra = {f"best.{name}": weight.clone() for name, weight in weights.items()}

    def _result(self, epoch: Epoch) -> str:
        return result_text(epoch, self.best())


def validation_header(split: LeaveOneOut, exclude_seen: bool) -> dict[str, Any]:
    """How `validation.json` begins: what was validated, and how."""
    users = len(split)
    return {"method": "sasrec", "split": "valid", "users": users, "exclude_seen": exclude_seen}


def result_text(epoch: Epoch, best: Epoch | None) -> str:
    """The losses and figures of an epoch beside the best so far."""
    text = f"loss {epoch['loss']:.3f}"
    if best is None:
        return text
    return (
        f"{text}  valid NDCG@10 {epoch.get('NDCG@10', float('nan')):.4f} "
        f"(best {best['NDCG@10']:.4f}, HR@10 {best['HR@10']:.4f}, epoch {best['epoch']})"
    )
