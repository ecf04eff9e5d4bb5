"""`incatalog rewrite train`: a chat model learns to rewrite titles, by GRPO with the five rewards.

For those without ms-swift; the rewards are those of :mod:`incatalog.rewrite.swift_plugin`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from incatalog.checksums import verify_checksums
from incatalog.config import reward_problems
from incatalog.data.documents import json_lines
from incatalog.devices import trains_on_cpu
from incatalog.errors import DataError, require
from incatalog.model.backbone import load_backbone
from incatalog.model.lora import add_lora
from incatalog.model.saved import check_writable, save_backbone
from incatalog.rewrite.rewrite_data import ROWS_FILE
from incatalog.rewrite.rewrite_rewards import REWRITE_REWARDS
from incatalog.rewrite.rows import row_of
from incatalog.rewrite.scoring import RewriteScoring
from incatalog.rewrite.settings import RewriteTrainSettings
from incatalog.training.checkpoints import checkpoint_step
from incatalog.training.trackers import check_trackers

if TYPE_CHECKING:
    from incatalog.training.training_run import TrainingRun

_STAGE = "rewrite train"


def train_rewrite(settings: RewriteTrainSettings) -> Path:
    """Trains a model to rewrite titles.

    Killed and started again with the same configuration, it goes on from its newest checkpoint and
    ends with the same weights.

    Returns:
        ``settings.out``: a chat model with its tokenizer, LoRA adapters merged into it.

    Raises:
        ConfigError: A setting that cannot work; raised before anything is loaded.
        DataError: The rows are missing or broken.
        ScorerError: A scorer cannot answer; the run resumes from its newest checkpoint.
        MissingExtraError: trl is not installed.
        ArtifactError: The run folder holds something else, or only damaged checkpoints.
    """
    check_config(settings)
    trl = require("trl", extra="grpo")
    datasets = require("datasets", extra="grpo")
    on_cpu = trains_on_cpu(settings.device)
    processes = require("accelerate", extra="grpo").PartialState(cpu=on_cpu)
    from incatalog.rewrite.rewrite_trainer import RewriteTrainer
    from incatalog.training.callbacks import main_console
    from incatalog.training.training_run import TrainingRun

    file = settings.data / ROWS_FILE
    rows = list(read_rows(file))
    if not rows:
        raise DataError.at(file, "holds no row; make it with more items")
    scoring = RewriteScoring.load(settings.scorers, settings.device)
    inputs = {"rows": file, "scorers": settings.scorers}
    run = TrainingRun(_STAGE, settings, inputs=inputs, free_fields=("report_to",))
    if run.finished:
        return run.folder
    if run.newest is not None:
        step = checkpoint_step(run.newest)
        main_console().print(f"{_STAGE}: goes on from step {step}")
    backbone = load_backbone(settings.model, device=run.device)
    backbone.model.requires_grad_(True)
    if settings.tune == "lora":
        backbone = add_lora(
            backbone, r=settings.lora_r, alpha=settings.lora_alpha, dropout=0.0,
            train_new_rows=False, seed=settings.seed,
        )  # fmt: skip
    check_writable(backbone)
    order = row_order(len(rows), settings, processes.num_processes)
    trainer = RewriteTrainer(
        model=backbone.model,
        reward_funcs=[scoring.function(name) for name in settings.reward],  # type: ignore[arg-type]
        args=_arguments(settings, trl, run, on_cpu=on_cpu),
        train_dataset=datasets.Dataset.from_list(rows).select(order),
        processing_class=backbone.tokenizer,
    )
    run.train(trainer, printed=True)
    logged = [pair for entry in trainer.state.log_history for pair in entry.items()]
    rewards = {n: v for n, v in logged if n.startswith("rewards/") and n.endswith("/mean")}

    def save(folder: Path) -> None:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if settings.tune == "lora":
            model = model.merge_and_unload(safe_merge=True)
        save_backbone(folder, dataclasses.replace(backbone, model=model))

    return run.finish(save, steps=trainer.state.global_step, **rewards)


def row_order(
    count: int, settings: RewriteTrainSettings, processes: int
) -> Int64[np.ndarray, " rows"]:
    """The rows of all steps, in one order for the whole training.

    Each row comes once before any comes again. A resumed training passes over those it has seen; a
    shuffle of the trainer's would begin anew.
    """
    needed = settings.max_steps * settings.batch_size * processes // settings.num_generations
    random = np.random.default_rng(settings.seed)
    passes = [random.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate(passes)[:needed].astype(np.int64)


def check_config(settings: RewriteTrainSettings) -> None:
    """Checks what can be checked without loading anything."""
    settings.refuse_first([
        *reward_problems(settings.reward, settings.reward_weights, REWRITE_REWARDS),
        (settings.batch_size % settings.num_generations != 0,
         "batch_size", f"not a multiple of --num-generations {settings.num_generations}"),
        (not (settings.data / ROWS_FILE).is_file(),
         "data", f"holds no {ROWS_FILE}; make it with `incatalog rewrite data`"),
        (not settings.scorers.is_file(), "scorers", "no such file"),
    ])  # fmt: skip
    check_trackers(settings.report_to)


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of the data set in the form that TRL reads."""
    verify_checksums(path.parent, (path.name,))
    for place, line in json_lines(path):
        try:
            row_of(line)
            messages = line.pop("messages")
        except (DataError, KeyError) as error:
            raise place.error(str(error)) from error
        yield {"prompt": messages, **line}


def _arguments(settings: RewriteTrainSettings, trl: Any, run: TrainingRun, *, on_cpu: bool) -> Any:
    same = ("max_steps", "learning_rate", "num_generations", "temperature", "beta", "seed")
    return trl.GRPOConfig(
        **settings.named(*same),
        output_dir=str(run.checkpoints),
        per_device_train_batch_size=settings.batch_size,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=on_cpu,
        shuffle_dataset=False,
        max_completion_length=settings.max_tokens,
        reward_weights=list(settings.reward_weights) or None,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        **run.reporting(),
    )
