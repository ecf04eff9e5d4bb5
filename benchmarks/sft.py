"""What does a step of supervised fine-tuning cost with the scoped loss, and what beside the model?

One batch of real samples, forward, backward and optimiser step of the same LoRA model. Contenders:

- ``labels``: the model's own forward pass with ``labels``, as every trainer does by default: logits
  of every position over the whole vocabulary, plain cross entropy where there is a label.
- ``labelled``: plain cross entropy too, but logits of the labelled positions only.
- ``scoped loss``: incatalog's loss, and the model's layers as ever.
- ``scoped``: incatalog's step, which also multiplies frozen layers by copies of their weights.

Then a real training run, whose time outside of the model's steps is what samples, teacher,
collation and logging cost together.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import interleaved, markdown, publish, ratio, shared_data
from torch.nn import functional

from incatalog.items.aliases import Aliases
from incatalog.model.backbone import base_model, output_rows
from incatalog.recommender.items import ModelItems
from incatalog.teacher.fit import fit_teacher
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.training.losses import scoped_cross_entropy
from incatalog.training.materials import build_backbone, read_materials
from incatalog.training.settings import SftSettings
from incatalog.training.sft import build_trainer, model_spec
from incatalog.training.trainer import ScopedTrainer, plain_forward, scoped_forward
from incatalog.training.training_run import TrainedModel, TrainingRun


def trainer_of(config: SftSettings) -> ScopedTrainer:
    """The trainer that ``incatalog train sft`` would run."""
    inputs = read_materials(config, on_cpu=True)
    backbone = build_backbone(config, inputs, "cpu")
    spec = model_spec(config, inputs.semantic_ids)
    codes = inputs.semantic_ids
    items = ModelItems.of(backbone.tokenizer, spec.item_form, inputs.catalog, codes)
    model = TrainedModel(backbone, spec, items, codes, config.index_folder)
    return build_trainer(config, TrainingRun("train sft", config), inputs, model, Aliases())


def labels_of(batch: dict[str, Any]) -> torch.Tensor:
    """The labelled tokens of a batch, -100 elsewhere: those of the scoped loss."""
    targets = batch["targets"]
    labels = torch.full_like(batch["input_ids"], -100).flatten()
    labels[targets.free_position + 1] = targets.free_token
    return labels.view_as(batch["input_ids"])


def contenders(
    model: torch.nn.Module, batch: dict[str, Any], inside: torch.Tensor
) -> dict[str, Callable[[], None]]:
    """A whole training step with each loss."""
    ids = batch["input_ids"]
    labels = torch.where(inside, ids, labels_of(batch))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-9)
    # Made once, as it keeps copies of the frozen weights.
    scoped_forward(model, "plain", 2.0)
    forward = vars(model)["forward"]

    def step(loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
        def run() -> None:
            loss().backward()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def whole() -> torch.Tensor:
        plain_forward(model)
        loss: torch.Tensor = model(input_ids=ids, labels=labels, use_cache=False).loss
        return loss

    def labelled() -> torch.Tensor:
        plain_forward(model)
        hidden = base_model(model)(input_ids=ids, use_cache=False).last_hidden_state
        weight, _ = output_rows(model)
        at = (labels[:, 1:] != -100).nonzero(as_tuple=True)
        logits = hidden[:, :-1][at] @ weight.T
        return functional.cross_entropy(logits, labels[:, 1:][at])

    def scoped_loss() -> torch.Tensor:
        plain_forward(model)
        hidden = base_model(model)(input_ids=ids, use_cache=False).last_hidden_state
        weight, bias = output_rows(model)
        return scoped_cross_entropy(hidden, weight, batch["targets"], bias=bias)

    def scoped() -> torch.Tensor:
        vars(model)["forward"] = forward
        loss: torch.Tensor = model(input_ids=ids, targets=batch["targets"])
        return loss

    return {
        "labels": step(whole),
        "labelled": step(labelled),
        "scoped loss": step(scoped_loss),
        "scoped": step(scoped),
    }


def inside_spans(trainer: ScopedTrainer, batch: dict[str, Any]) -> torch.Tensor:
    """Tokens of the answer's item spans, which a plain loss trains on too."""
    tokens = batch["input_ids"].numpy()
    collator: Any = trainer.data_collator
    samples = [trainer.train_dataset[number] for number in range(len(tokens))]
    inside = np.zeros(tokens.shape, dtype=bool)
    assert collator(samples)["input_ids"].equal(batch["input_ids"])
    for number, sample in enumerate(samples):
        for span, trained in zip(sample.rendered.spans, sample.trained.tolist(), strict=True):
            if trained:
                inside[number, span[0] + 1 : span[1]] = True
    return torch.from_numpy(inside)


def outside_the_model(trainer: ScopedTrainer) -> tuple[float, float]:
    """Seconds of a training run, and those of them outside of the model's steps."""
    inside = 0.0
    own = trainer.training_step

    def timed(*given: Any, **named: Any) -> Any:
        nonlocal inside
        start = time.perf_counter()
        loss = own(*given, **named)
        inside += time.perf_counter() - start
        return loss

    trainer.training_step = timed
    trainer.create_optimizer()
    optimize = trainer.optimizer.step

    def optimized(*given: Any, **named: Any) -> Any:
        nonlocal inside
        start = time.perf_counter()
        result = optimize(*given, **named)
        inside += time.perf_counter() - start
        return result

    trainer.optimizer.step = optimized
    start = time.perf_counter()
    trainer.train()
    whole = time.perf_counter() - start
    return whole, whole - inside


def main() -> None:
    """Measures and writes the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--data", default="office")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5)
    options = parser.parse_args()
    data = shared_data() / options.data
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder) / "teacher"
        fit_teacher(TeacherFitSettings(data=data, out=teacher, epochs=1))
        config = SftSettings(
            model=options.model,
            data=data,
            out=Path(folder) / "run",
            teacher=str(teacher),
            batch_size=options.batch,
            max_steps=options.steps,
            checkpoint_every=10**6,
            validate_every=0,
            device="cpu",
        )
        trainer = trainer_of(config)
        batch = next(iter(trainer.get_train_dataloader()))
        steps = contenders(trainer.model, batch, inside_spans(trainer, batch))
        seconds = interleaved(steps, options.rounds)
        whole, outside = outside_the_model(trainer_of(config))
    rows = [
        [name, f"{statistics.median(times):.2f}", f"{ratio(seconds, name, 'labels'):.2f}"]
        for name, times in seconds.items()
    ]
    faster = 1 / ratio(seconds, "scoped", "labels")
    shape = tuple(batch["input_ids"].shape)
    publish(
        "sft",
        f"A step of LoRA training, {options.model}, {options.data}, batch {shape[0]} x {shape[1]}",
        markdown(["loss", "seconds a step", "of labels"], rows)
        + f"\n\nThe whole step is {faster:.2f} times faster than with the model's own loss.\n\n"
        f"A run of {options.steps} steps took {whole:.1f} s, {outside:.2f} s of them "
        f"({outside / whole:.1%}) outside of the model's forward, backward and optimiser: samples, "
        "teacher, collation, logging, and the trainer's start and end.",
    )


if __name__ == "__main__":
    main()
