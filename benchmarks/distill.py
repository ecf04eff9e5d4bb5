"""What do soft targets cost in a training step, and what does the teacher's answer beside it?

The same recipe with and without ``--distill``, batch by batch in turn: making the samples, laying
out the targets, forward, backward and optimiser step. The teacher's own calls are counted apart: a
list of the best items for each sample without, log-probabilities before every trained item with.
Counted are seconds of the processor, as other work may run beside it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from benchmarks.report import markdown, publish, shared_data
from benchmarks.sft import trainer_of

from incatalog.flags import parse
from incatalog.teacher.fit import fit_teacher
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.training.materials import with_item_form
from incatalog.training.settings import SftSettings

_RECIPES = Path(__file__).resolve().parents[1] / "recipes"
_PARTS = ("teacher", "samples", "targets", "step")


class Contender:
    """A training whose parts are timed."""

    def __init__(self, config: SftSettings) -> None:
        self.trainer = trainer_of(with_item_form(config))
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._size = config.batch_size
        self._asked = 0.0
        source: Any = self.trainer.train_dataset
        teacher = source._source._teacher
        for name in ("top_k", "log_probabilities"):
            setattr(teacher, name, self._timed(getattr(teacher, name)))
        trained = [p for p in self.trainer.model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=config.learning_rate)
        self.trainer.model.train()

    def _timed(self, ask: Any) -> Any:
        def asked(*given: Any, **named: Any) -> Any:
            start = time.process_time()
            found = ask(*given, **named)
            self._asked += time.process_time() - start
            return found

        return asked

    def batch(self, number: int, *, count: bool) -> None:
        """One step on a batch, by its number."""
        dataset: Any = self.trainer.train_dataset
        ticks = [time.process_time()]
        self._asked = 0.0
        samples = dataset.__getitems__(list(range(number * self._size, (number + 1) * self._size)))
        ticks.append(time.process_time())
        batch = self.trainer.data_collator(samples)
        ticks.append(time.process_time())
        loss = self.trainer.model(batch["input_ids"], batch["targets"], items=batch.get("items"))
        loss.backward()
        self._optimizer.step()
        self._optimizer.zero_grad()
        ticks.append(time.process_time())
        if count:
            made, laid_out, trained = (b - a for a, b in pairwise(ticks))
            parts = (self._asked, made - self._asked, laid_out, trained)
            for name, seconds in zip(_PARTS, parts, strict=True):
                self.seconds[name].append(seconds)


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", default="office/cgen")
    parser.add_argument("--data", default="office")
    parser.add_argument("--teacher", default="", help="Run folder; item-kNN is fitted by default.")
    parser.add_argument("--index", default="", help="Folder of codes, for a recipe of token.")
    parser.add_argument("--vectors", default="", help="Item vectors, for a recipe of ret.")
    parser.add_argument("--batches", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = shared_data() / options.data
    with tempfile.TemporaryDirectory() as folder:
        teacher = options.teacher or str(Path(folder) / "teacher")
        if not options.teacher:
            fit_teacher(TeacherFitSettings(data=data, out=Path(teacher), kind="knn"))
        flags = [
            "--config", str(_RECIPES / f"{options.recipe}.yaml"), "--data", str(data),
            "--teacher", teacher, "--device", "cpu",
        ]  # fmt: skip
        for name in ("index", "vectors"):
            if given := getattr(options, name):
                flags += [f"--{name}", given]
        contenders = {}
        for name, more in (("without", []), ("with", ["--distill", "0.8"])):
            out = ["--out", str(Path(folder) / name)]
            contenders[name] = Contender(parse("train sft", SftSettings, flags + out + more))
        for number in range(options.batches + 2):
            for one in contenders.values():
                one.batch(number, count=number >= 2)
        found = {name: one.seconds for name, one in contenders.items()}
        # As in the epochs that follow: histories that were asked about, and answers that are kept.
        again = contenders["with"]
        again.seconds = found["with, asked before"] = defaultdict(list)
        for number in range(2, options.batches + 2):
            again.batch(number, count=True)
    publish_table(options.recipe, options.batches, found)


def publish_table(recipe: str, batches: int, seconds: dict[str, dict[str, list[float]]]) -> None:
    """Milliseconds of each part, and what all but the teacher takes beside the first row."""
    rows, base = [], 0.0
    for name, parts in seconds.items():
        means = [1000 * statistics.mean(parts[part]) for part in _PARTS]
        own = sum(means[1:])
        base = base or own
        rows.append([name, *(f"{one:.1f}" for one in means), f"{own:.1f}", f"{own / base:.3f}"])
    publish(
        "distill",
        f"What soft targets cost in a step of `recipes/{recipe}.yaml`",
        markdown(["--distill 0.8", *_PARTS, "all but the teacher", "of without"], rows)
        + f"\n\nMilliseconds of the processor a batch, means of {batches} batches.",
    )


if __name__ == "__main__":
    main()
