"""`incatalog teacher blend`: weighs fitted teachers on the validation items, and joins them."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from incatalog.artifacts import open_run, write_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.errors import ConfigError
from incatalog.metrics import of_ranks
from incatalog.teacher.blend import BlendPart, BlendTeacher, part_scores
from incatalog.teacher.counted import training_counts
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.settings import TeacherBlendSettings
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_folder import (
    PARTS,
    copy_teacher,
    numbers_checksum,
    read_description,
    save_teacher,
    teacher_paths,
)
from incatalog.teacher.teacher_validation import (
    VALIDATION_FILE,
    Validation,
    best_temperature,
    validation_header,
    validation_metrics,
)

# With fewer users a weight would follow their chance, so all parts weigh the same.
FEWEST_USERS = 200
_GRID = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 3.0)
_BESIDE = (0.7, 1.0, 1.4)  # What the second weight may become when the third is looked for.
_RESAMPLES = 200
# Standard errors that a gain has to be. A part that helps by chance alone costs little, one that is
# missing much: on MovieLens 1.64 left kNN by itself in two of three seeds.
_SURE = 0.5
_ROWS_AT_ONCE = 256

Gains = Float64[np.ndarray, " users"]


@dataclass(frozen=True)
class Weighing:
    """Parts of a blend in the order they were taken, and what each weighs."""

    order: tuple[int, ...]
    weights: tuple[float, ...]
    gains: Gains  # NDCG@10 of each user


class Ahead:
    """For parts, users and items: how far an item's log-probability is ahead of the one wanted."""

    def __init__(self, validation: Validation) -> None:
        """For the users of a validation; parts are added one by one."""
        self._validation = validation
        self.users = len(validation)
        pairs = zip(validation.histories, validation.targets, strict=True)
        lost = [validation.exclude_seen and bool((rows == target).any()) for rows, target in pairs]
        self._lost = np.array(lost)  # The wanted item is one that is left out.
        self.parts: list[Float32[Tensor, "users items"]] = []

    def add(self, log_probabilities: Float32[Tensor, "users items"]) -> None:
        """Adds a part; writes into its log-probabilities."""
        targets = torch.from_numpy(self._validation.targets)[:, None]
        log_probabilities -= log_probabilities.gather(1, targets)
        if self._validation.exclude_seen:
            for line, rows in zip(log_probabilities, self._validation.histories, strict=True):
                line[torch.from_numpy(np.asarray(rows, dtype=np.int64))] = float("-inf")
        self.parts.append(log_probabilities)

    def gains(self, weights: Mapping[int, float]) -> Gains:
        """NDCG@10 of a blend for each user; an item with the wanted one's score is ahead of it."""
        ranks = []
        for start in range(0, len(self._validation), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            total = torch.zeros_like(self.parts[0][rows])
            for part, weight in weights.items():
                total.add_(self.parts[part][rows], alpha=weight)
            ranks.append((total >= 0).sum(1))
        hits, gains = of_ranks(torch.cat(ranks).numpy(), 10)
        return np.where(hits & ~self._lost, gains, 0.0)


def weigh(ahead: Ahead, *, only_helping: bool, seed: int = 0) -> Weighing:
    """Takes parts one by one, the one that helps most first, and finds their weights.

    The first part weighs 1. The second and the third have a weight each, looked for on a grid; all
    later parts weigh as much as the third. A weight is the geometric mean of those that are best
    for 200 samples of the users, drawn with repeats, so that it follows their chance less than the
    best of the grid does. With fewer than 200 users all parts weigh 1.

    Args:
        ahead: The parts on validation items.
        only_helping: Leave out parts that do not raise NDCG@10 by more than chance may.
        seed: Of the samples.
    """
    count, users = len(ahead.parts), ahead.users
    alone = [ahead.gains({part: 1.0}) for part in range(count)]
    by_ndcg = sorted(range(count), key=lambda part: -alone[part].mean())
    if users < FEWEST_USERS:
        return Weighing(tuple(by_ndcg), (1.0,) * count, ahead.gains(dict.fromkeys(by_ndcg, 1.0)))
    samples = np.random.default_rng(seed).multinomial(users, np.full(users, 1 / users), _RESAMPLES)
    best = Weighing((by_ndcg[0],), (1.0,), alone[by_ndcg[0]])
    while left := [part for part in by_ndcg if part not in best.order]:
        found = max(
            (_with_part(ahead, best, part, samples) for part in left),
            key=lambda weighing: float(weighing.gains.mean()),
        )
        more = found.gains - best.gains
        if only_helping and more.mean() <= _SURE * more.std() / users**0.5:
            break
        best = found
    return best


def _with_part(
    ahead: Ahead, before: Weighing, part: int, samples: Int64[np.ndarray, "samples users"]
) -> Weighing:
    """A blend with one part more, at the weights that its samples of the users find best."""
    known, candidates = len(before.order), list[tuple[float, ...]]()
    if known == 1:
        candidates += [(1.0, weight) for weight in _GRID]
    elif known == 2:
        second = before.weights[1]
        candidates += [(1.0, second * factor, third) for factor in _BESIDE for third in _GRID]
    else:
        candidates += [(*before.weights, before.weights[-1])]
    order = (*before.order, part)
    gains = np.stack([ahead.gains(dict(zip(order, one, strict=True))) for one in candidates])
    picked = np.log([candidates[place] for place in (samples @ gains.T).argmax(axis=1)])
    weights = tuple(round(float(weight), 4) for weight in np.exp(picked.mean(axis=0)))
    return Weighing(order, weights, ahead.gains(dict(zip(order, weights, strict=True))))


def blend_teachers(settings: TeacherBlendSettings) -> Path:
    """Joins fitted teachers into one, which is copied as one folder.

    Returns:
        The run folder: a teacher of kind `blend`, its parts in `parts/`.

    Raises:
        ConfigError: A run is named twice, or is no folder.
        TeacherError: A run is no teacher, or one of another catalog.
        DataError: Data that cannot be validated on.
        ArtifactError: The run folder holds something else.
    """
    runs = [Path(run) for run in settings.runs]
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError("--runs: names a run twice; weigh a part by validation, not by repeating")
    inputs: dict[str, str | Path] = dict(prepared_files(settings.data))
    for number, part in enumerate(runs):
        if not part.is_dir():
            raise ConfigError(f"--runs {part}: no such folder; expected runs of `teacher fit`")
        read_description(part)
        inputs |= {f"part {number}/{path}": part / path for path in teacher_paths(part)}
    catalog = Catalog.load(settings.data)
    split = leave_one_out(Histories.load(settings.data, catalog))
    run = open_run(settings.out, "teacher blend", settings, inputs=inputs)
    if not run.finished:
        names = []
        for number, part in enumerate(runs, start=1):
            names.append(f"{number}-{read_description(part)['kind']}")
            copy_teacher(part, run.folder / PARTS / names[-1])
        join = BlendJoin(run.folder, catalog, split, settings.exclude_seen, settings.seed)
        summary = join.join(names, settings.device, only_helping=False)
        run.finish(**summary["metrics"])
    return run.folder


@dataclass(frozen=True)
class BlendJoin:
    """Makes a blend of the teachers in the `parts/` of its folder."""

    folder: Path
    catalog: Catalog
    split: LeaveOneOut
    exclude_seen: bool
    seed: int

    def join(self, names: Sequence[str], device: str, *, only_helping: bool) -> dict[str, Any]:
        """Weighs the parts, writes teacher and `validation.json`, and returns the latter."""
        counts = training_counts(map(self.split.train, range(len(self.split))), len(self.catalog))
        rule = {"exclude_seen": self.exclude_seen}
        validation = Validation.of(self.split, len(self.catalog), seed=self.seed, **rule)
        ahead = Ahead(validation)
        teachers, temperatures, told = list[ScoringTeacher](), list[float](), list[dict[str, Any]]()
        for name in names:
            teacher = load_teacher(self.folder / PARTS / name, self.catalog, device)
            scores = _scores(teacher, counts, validation)
            temperature, loss = best_temperature(scores, torch.from_numpy(validation.targets))
            ahead.add(_log_softmax(scores, temperature))
            teachers.append(teacher)
            temperatures.append(temperature)
            told.append({"name": name, "temperature": temperature, "loss": loss})
        found = weigh(ahead, only_helping=only_helping, seed=self.seed)
        alone = [float(ahead.gains({place: 1.0}).mean()) for place in range(len(names))]
        del ahead
        parts = [
            BlendPart(
                teachers[place],
                weight,
                temperatures[place],
                names[place],
                numbers_checksum(self.folder / PARTS / names[place]),
            )
            for place, weight in zip(found.order, found.weights, strict=True)
        ]
        blend = BlendTeacher(self.catalog, counts, parts)
        loss = validation.fit_temperature(blend)
        weights = dict(zip(found.order, found.weights, strict=True))
        for place, part in enumerate(told):
            part |= {"NDCG@10": alone[place], "weight": weights.get(place, 0.0)}
        metrics = validation_metrics(blend, self.split, **rule)
        summary = validation_header(self.split, self.exclude_seen, blend.kind) | {
            "chosen_on": len(validation),
            "temperature": blend.temperature,
            "metrics": metrics | {"loss": loss},
            "parts": told,
        }
        save_teacher(self.folder, blend, self.catalog)
        write_json(self.folder / VALIDATION_FILE, summary)
        for place, name in enumerate(names):
            if place not in weights:
                shutil.rmtree(self.folder / PARTS / name)
        return summary


def _scores(
    teacher: ScoringTeacher, counts: np.ndarray, validation: Validation
) -> Float32[Tensor, "users items"]:
    """Scores as the blend sees them."""
    found = torch.empty(len(validation), teacher.num_items)
    for start in range(0, len(validation), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        found[rows] = part_scores(teacher, counts, validation.histories[rows]).float()
    return found


def _log_softmax(
    scores: Float32[Tensor, "users items"], temperature: float
) -> Float32[Tensor, "users items"]:
    """Turns scores into log-probabilities, in their own memory."""
    for part in torch.split(scores, _ROWS_AT_ONCE):
        part /= temperature
        part -= torch.logsumexp(part, 1, keepdim=True)
    return scores
