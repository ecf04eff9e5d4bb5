"""`incatalog teacher fit`: trains a network with full softmax, resumable to the bit, or counts."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from incatalog.artifacts import open_run, write_json
from incatalog.data.catalog import CATEGORIES, Catalog
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.parquet_documents import document
from incatalog.data.prepared import prepared_files
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError, DataError
from incatalog.fitting import Epoch, Fit, below, remove_checkpoint, seed_epoch
from incatalog.teacher.blending import BlendJoin
from incatalog.teacher.ease import check_items
from incatalog.teacher.fit_counting import MOST_INVERTED_AGAIN, fit_counting
from incatalog.teacher.gru4rec import NETWORKS
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.settings import TeacherFitSettings, TeacherKind
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher.teacher_folder import (
    PARTS,
    copy_teacher,
    read_description,
    save_teacher,
    teacher_paths,
)
from incatalog.teacher.teacher_validation import (
    VALIDATION_FILE,
    Validation,
    validation_header,
    validation_metrics,
)

# Cells of the logits that exist together; a processor's cache holds as many.
_LOGIT_CELLS = 1 << 22


# Stands for no item; its item number is that of padding.
_NO_ITEM = -1


class Window(NamedTuple):
    """A stretch of a history: the items seen, and the items to predict behind the last of them."""

    items: Int64[np.ndarray, " length"]
    targets: Int64[np.ndarray, " labels"]


def fit_teacher(settings: TeacherFitSettings) -> Path:
    """Fits a teacher of one kind, or goes on with an interrupted fit of the same settings.

    Each history gives all its items but the last two for training, and the last but one for
    validation: choices, weights and temperatures are those that are best there. An interrupted
    network goes on from the checkpoint of its last epoch and ends with the weights of an
    uninterrupted one (on CPU with as many threads, to the bit); of an interrupted blend the parts
    that were finished are kept.

    Returns:
        The run folder, with numbers, description and `validation.json`.

    Raises:
        ConfigError: A value that cannot work.
        DataError: Data that cannot be trained on.
        TeacherError: The catalog is too large for this kind, or a part is no teacher of it.
        ArtifactError: The run folder holds something else, or a damaged checkpoint.
    """
    hidden, heads = settings.hidden, settings.heads
    if settings.kind != "gru4rec" and hidden % heads:
        raise ConfigError(f"--hidden {hidden}: expected a multiple of --heads ({heads})")
    device = resolve_device(settings.device)
    if settings.sasrec and read_description(settings.sasrec)["kind"] != "sasrec":
        found = read_description(settings.sasrec)["kind"]
        raise ConfigError(f"--sasrec {settings.sasrec}: is of kind {found}; expected sasrec")
    catalog = Catalog.load(settings.data)
    split = leave_one_out(Histories.load(settings.data, catalog))
    if not any(len(split.train(user)) > 1 for user in range(len(split))):
        short = "no history has the 4 items it takes to train on and hold out two"
        raise DataError.at(settings.data, short)
    if settings.kind == "ease":
        check_items(len(catalog), settings.max_items)
    inputs: dict[str, str | Path] = prepared_files(settings.data)
    if settings.kind in NETWORKS:
        inputs.pop(document(settings.data, CATEGORIES).name, None)  # A network does not read them.
    if settings.vectors:
        inputs["vectors"] = Path(settings.vectors)
    if settings.sasrec:
        inputs |= {f"sasrec/{p}": Path(settings.sasrec) / p for p in teacher_paths(settings.sasrec)}
    free = ["max_minutes", *settings.unread()]
    run = open_run(settings.out, "teacher fit", settings, inputs=inputs, free_fields=free)
    if not run.finished:
        if settings.kind in NETWORKS:
            summary = _fit_sasrec(settings, catalog, split, device)
        elif settings.kind == "blend":
            summary = _fit_blend(settings, catalog, split)
        else:
            summary = _count(settings, catalog, split)
        write_json(run.folder / VALIDATION_FILE, summary)
        epochs = {"epochs": summary["epochs"]} if "epochs" in summary else {}
        run.finish(**epochs, **summary["metrics"])
    remove_checkpoint(run.folder)
    return run.folder


def _fit_sasrec(
    settings: TeacherFitSettings, catalog: Catalog, split: LeaveOneOut, device: torch.device
) -> dict[str, Any]:
    # Training draws from torch's global generator; callers keep theirs.
    with torch.random.fork_rng(enabled=True):
        fit = SasRecFit(settings, catalog, split, device)
        fit.restore()
        summary = fit.summary(fit.run())
    teacher = InProcessTeacher(fit.network, catalog, exact=False)
    loss = _validation(settings, catalog, split).fit_temperature(teacher)
    save_network(settings.out, fit.network, catalog.fingerprint, teacher.temperature)
    return summary | {"temperature": teacher.temperature, "loss": loss}


def _count(settings: TeacherFitSettings, catalog: Catalog, split: LeaveOneOut) -> dict[str, Any]:
    started = time.monotonic()
    validation = _validation(settings, catalog, split)
    teacher, tried = fit_counting(settings, catalog, split, validation)
    loss = validation.fit_temperature(teacher)
    save_teacher(settings.out, teacher, catalog)
    rule = settings.exclude_seen
    return validation_header(split, rule, teacher.kind) | {
        "chosen_on": len(validation),
        "options": teacher.options(),
        "tried": tried,
        "temperature": teacher.temperature,
        "loss": loss,
        "metrics": validation_metrics(teacher, split, exclude_seen=rule),
        "seconds": round(time.monotonic() - started, 1),
    }


def _fit_blend(
    settings: TeacherFitSettings, catalog: Catalog, split: LeaveOneOut
) -> dict[str, Any]:
    """Fits the parts as runs of their own inside the blend's folder, and joins those that help."""
    parts = settings.out / PARTS
    kinds: list[TeacherKind] = ["sasrec", "knn", "words"]
    if len(catalog) <= min(settings.max_items, MOST_INVERTED_AGAIN):
        kinds.insert(2, "ease")
    for kind in kinds:
        if kind == "sasrec" and settings.sasrec:
            copy_teacher(Path(settings.sasrec), parts / kind)
            continue
        vectors = settings.vectors if kind == "words" else ""
        fit_teacher(
            dataclasses.replace(settings, kind=kind, out=parts / kind, sasrec="", vectors=vectors)
        )
    join = BlendJoin(settings.out, catalog, split, settings.exclude_seen, settings.seed)
    return join.join(kinds, settings.device, only_helping=True)


def _validation(settings: TeacherFitSettings, catalog: Catalog, split: LeaveOneOut) -> Validation:
    rule = settings.exclude_seen
    return Validation.of(split, len(catalog), exclude_seen=rule, seed=settings.seed)


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


def interaction_windows(
    histories: Sequence[Int64[np.ndarray, " rows"]], max_length: int
) -> list[Window]:
    """Makes each item of each history the only target of a window of its own, as UniRec does.

    The window shows the newest `max_length` items before it. Before the first there are none: it is
    predicted from padding.
    """
    nothing = np.array([_NO_ITEM])
    return [
        Window(rows[max(0, at - max_length) : at] if at else nothing, rows[at : at + 1])
        for rows in histories
        for at in range(len(rows))
    ]


def plateau_rate(settings: TeacherFitSettings, scores: Sequence[float]) -> float:
    """The learning rate after validations with these scores: lower where they stopped to rise."""
    if settings.plateau_factor == 1:
        return settings.learning_rate
    optimiser = torch.optim.SGD([torch.zeros(1)], lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=settings.plateau_factor, patience=settings.plateau_patience
    )
    for score in scores:
        schedule.step(score)
    return float(optimiser.param_groups[0]["lr"])


def full_softmax_loss(
    network: SasRec,
    items: Int64[Tensor, "batch length"],
    targets: Int64[Tensor, "batch length"],
    *,
    unseen_only: bool = False,
) -> float:
    """Mean cross entropy over all items at every labelled position; adds up the gradients.

    Items and targets are item numbers (row + 1), padded with 0 on the left. Logits exist for a
    block of positions at a time, which bounds memory on large catalogs. With ``unseen_only`` what
    stands in the window up to a position has no part of its softmax, but for the target.
    """
    labelled = targets != 0
    hidden: Float[Tensor, "labels hidden"] = network(items)[labelled]
    wanted = targets[labelled] - 1
    cut = hidden.detach().requires_grad_()
    size = max(1, _LOGIT_CELLS // network.sizes.num_items)
    total = 0.0
    places = torch.split(labelled.nonzero(), size)
    for part, labels, at in zip(
        torch.split(cut, size), torch.split(wanted, size), places, strict=True
    ):
        logits = network.item_scores(part)
        if unseen_only:
            shown = items[at[:, 0]] - 1
            before = torch.arange(items.shape[1], device=items.device) <= at[:, 1:]
            label, place = ((shown >= 0) & (shown != labels[:, None]) & before).nonzero().T
            logits = logits.index_put((label, shown[label, place]), logits.new_tensor(-torch.inf))
        loss = functional.cross_entropy(logits, labels, reduction="sum") / len(wanted)
        torch.autograd.backward(loss)
        total += loss.item()
    torch.autograd.backward(hidden, cut.grad)
    return total


class SasRecFit(Fit):
    """SASRec, or GRU4Rec in its place, in training; keeps its best weights in memory."""

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
        super().__init__(settings, NETWORKS[s.kind](sizes), device)
        self.patience, self.max_minutes = settings.patience, settings.max_minutes
        self.catalog, self.split = catalog, split
        self.train = [split.train(user).astype(np.int64) for user in range(len(split))]

    def summary(self, reason: str) -> dict[str, Any]:
        """Leaves the best weights in the network, and sums up a training that ended."""
        best = self.best()
        if best is not None:
            self.network.load_state_dict(below("best.", self.extra))
        figures = best or self._validate()
        return validation_header(self.split, self.settings.exclude_seen, self.settings.kind) | {
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
        if settings.sequences == "interactions":
            windows = interaction_windows(self.train, settings.max_length)
        else:
            windows = training_windows(self.train, settings.max_length, rng)
        scores = [epoch[self.goal] for epoch in self.history if self.goal in epoch]
        rate = plateau_rate(settings, scores)
        order = rng.permutation(len(windows))
        network.train()
        total, labels = 0.0, 0
        for start in range(0, len(order), settings.batch_size):
            batch = [windows[index] for index in order[start : start + settings.batch_size]]
            warmth = min(1.0, (self.steps + 1) / max(1, settings.warmup_steps))
            self._begin_step(rate * warmth)
            self.optimiser.zero_grad()
            items = network.pad([window.items for window in batch])
            targets = network.pad([window.targets for window in batch], items.shape[1])
            only = settings.unseen_only
            loss = full_softmax_loss(network, items, targets, unseen_only=only)
            self.optimiser.step()
            count = sum(len(window.targets) for window in batch)
            total, labels = total + loss * count, labels + count
            self.report.show(completed=self.epoch + start / len(order))
        return {"loss": total / labels, "learning_rate": rate}

    def _validate(self) -> Epoch:
        teacher = InProcessTeacher(self.network, self.catalog, exact=False)
        return validation_metrics(teacher, self.split, exclude_seen=self.settings.exclude_seen)

    def _keep(self, epoch: Epoch) -> None:
        if self.best() is epoch:
            weights = self.network.state_dict()
            self.extra = {f"best.{name}": weight.clone() for name, weight in weights.items()}

    def _result(self, epoch: Epoch) -> str:
        return result_text(epoch, self.best())


def result_text(epoch: Epoch, best: Epoch | None) -> str:
    """The losses and figures of an epoch beside the best so far."""
    text = f"loss {epoch['loss']:.3f}"
    if best is None:
        return text
    return (
        f"{text}  valid NDCG@10 {epoch.get('NDCG@10', float('nan')):.4f} "
        f"(best {best['NDCG@10']:.4f}, HR@10 {best['HR@10']:.4f}, epoch {best['epoch']})"
    )
