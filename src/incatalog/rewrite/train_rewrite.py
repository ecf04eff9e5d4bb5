"""`incatalog rewrite train`: a chat model learns to rewrite titles, by GRPO with the five rewards.

For those without ms-swift; the rewards are those of :mod:`incatalog.rewrite.swift_plugin`.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from rich.console import Console
from transformers import set_seed

from incatalog.artifacts import open_run
from incatalog.checksums import verify_checksums
from incatalog.data.documents import json_lines
from incatalog.devices import trains_on_cpu
from incatalog.errors import ConfigError, DataError, require
from incatalog.model.backbone import load_backbone
from incatalog.model.lora import add_lora
from incatalog.model.saved import check_writable, save_backbone
from incatalog.rewrite.rewrite_data import ROWS_FILE
from incatalog.rewrite.rewrite_rewards import REWRITE_REWARDS
from incatalog.rewrite.rows import row_of
from incatalog.rewrite.scoring import RewriteScoring
from incatalog.rewrite.settings import RewriteTrainConfig
from incatalog.training.checkpoints import checkpoint_step, newest_checkpoint, remove_unusable

_CHECKPOINTS = "checkpoints"
_STAGE = "rewrite train"


def train_rewrite(config: RewriteTrainConfig) -> Path:
    """Trains a model to rewrite titles.

    Killed and started again with the same configuration, it goes on from its newest checkpoint and
    ends with the same weights.

    Returns:
        ``config.out``: a chat model with its tokenizer, LoRA adapters merged into it.

    Raises:
        ConfigError: A setting that cannot work; raised before anything is loaded.
        DataError: The rows are missing or broken.
        ScorerError: A scorer cannot answer; the run resumes from its newest checkpoint.
        MissingExtraError: trl is not installed.
        ArtifactError: The run folder holds something else, or only damaged checkpoints.
    """
    check_config(config)
    trl = require("trl", extra="grpo")
    datasets = require("datasets", extra="grpo")
    on_cpu = trains_on_cpu(config.device)
    processes = require("accelerate", extra="grpo").PartialState(cpu=on_cpu)
    rows = list(read_rows(config.data / ROWS_FILE))
    if not rows:
        raise DataError.at(config.data / ROWS_FILE, "holds no row; make it with more items")
    scoring = RewriteScoring.load(config.scorers, config.device)
    inputs = {"rows": config.data / ROWS_FILE, "scorers": config.scorers}
    with processes.main_process_first():
        run = open_run(config.out, _STAGE, config, inputs=inputs, processes=processes.num_processes)
    checkpoints = config.out / _CHECKPOINTS
    if run.finished:
        if processes.is_main_process:
            # Of a run that was killed just behind its end.
            shutil.rmtree(checkpoints, ignore_errors=True)
        return run.folder
    set_seed(config.seed)
    device = "cpu" if on_cpu else f"cuda:{processes.local_process_index}"
    backbone = load_backbone(config.model, device=device)
    backbone.model.requires_grad_(True)
    if config.tune == "lora":
        backbone = add_lora(
            backbone, r=config.lora_r, alpha=config.lora_alpha, dropout=0.0,
            train_new_rows=False, seed=config.seed,
        )  # fmt: skip
    check_writable(backbone)
    console = Console(stderr=True, quiet=not processes.is_main_process)
    if processes.is_main_process:
        remove_unusable(checkpoints, console)
    processes.wait_for_everyone()
    newest = newest_checkpoint(checkpoints)
    if newest is not None:
        console.print(f"{_STAGE}: goes on from step {checkpoint_step(newest)}", soft_wrap=True)
    order = row_order(len(rows), config, processes.num_processes)
    from incatalog.rewrite.rewrite_trainer import RewriteTrainer

    trainer = RewriteTrainer(
        model=backbone.model,
        reward_funcs=[scoring.function(name) for name in config.reward],  # type: ignore[arg-type]
        args=_arguments(config, trl, on_cpu=on_cpu),
        train_dataset=datasets.Dataset.from_list(rows).select(order),
        processing_class=backbone.tokenizer,
    )
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    if processes.is_main_process:
        model = trainer.accelerator.unwrap_model(trainer.model)
        if config.tune == "lora":
            model = model.merge_and_unload(safe_merge=True)
        save_backbone(config.out, dataclasses.replace(backbone, model=model))
        rewards = {
            name: value
            for entry in trainer.state.log_history
            for name, value in entry.items()
            if name.startswith("rewards/") and name.endswith("/mean")
        }
        run.finish(steps=trainer.state.global_step, **rewards)
        shutil.rmtree(checkpoints, ignore_errors=True)
    processes.wait_for_everyone()
    return run.folder


def row_order(count: int, config: RewriteTrainConfig, processes: int) -> Int64[np.ndarray, " rows"]:
    """The rows of all steps, in one order for the whole training.

    A resumed training passes over those it has seen. A shuffle of the trainer's would begin anew.

    Args:
        count: Rows there are; each comes once before any comes again.
        config: Steps, batch and seed.
        processes: How many share a step.
    """
    needed = config.max_steps * config.batch_size * processes // config.num_generations
    random = np.random.default_rng(config.seed)
    passes = [random.permutation(count) for _ in range(-(-needed // count))]
    return np.concatenate(passes)[:needed].astype(np.int64)


def check_config(config: RewriteTrainConfig) -> None:
    """Checks what can be checked without loading anything.

    Raises:
        ConfigError: Names the flag.
    """
    known = ", ".join(REWRITE_REWARDS)
    unknown = [name for name in config.reward if name not in REWRITE_REWARDS]
    needs = [
        (not config.reward, f"--reward: names no reward; expected some of {known}"),
        (bool(unknown), f"--reward {' '.join(unknown)}: no such reward; expected some of {known}"),
        (len(set(config.reward)) < len(config.reward),
         f"--reward {' '.join(config.reward)}: names one twice; weigh it by --reward-weights"),
        (bool(config.reward_weights) and len(config.reward_weights) != len(config.reward),
         f"--reward-weights: {len(config.reward_weights)} of them for {len(config.reward)} "
         "rewards"),
        (config.num_generations < 2,
         f"--num-generations {config.num_generations}: expected at least 2"),
        (config.num_generations > 1 and config.batch_size % config.num_generations != 0,
         f"--batch-size {config.batch_size}: not a multiple of --num-generations "
         f"{config.num_generations}"),
        (config.max_steps < 1, f"--max-steps {config.max_steps}: expected at least 1"),
        (config.max_tokens < 1, f"--max-tokens {config.max_tokens}: expected at least 1"),
        (not config.learning_rate > 0,
         f"--learning-rate {config.learning_rate}: expected a positive number"),
        (not (config.data / ROWS_FILE).is_file(),
         f"--data {config.data}: holds no {ROWS_FILE}; make it with `incatalog rewrite data`"),
        (not config.scorers.is_file(), f"--scorers {config.scorers}: no such file"),
    ]  # fmt: skip
    for wrong, message in needs:
        if wrong:
            raise ConfigError(message)


def read_rows(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of the data set in the form that TRL reads.

    Raises:
        DataError: A line is broken or lacks a column; names it.
    """
    verify_checksums(path.parent, (path.name,))
    for number, line in json_lines(path):
        try:
            row_of(line)
            messages = line.pop("messages")
        except (DataError, KeyError) as error:
            raise DataError.at(path, str(error), line=number) from error
        yield {"prompt": messages, **line}


def _arguments(config: RewriteTrainConfig, trl: Any, *, on_cpu: bool) -> Any:
    return trl.GRPOConfig(
        output_dir=str(config.out / _CHECKPOINTS),
        max_steps=config.max_steps,
        per_device_train_batch_size=config.batch_size,
        gradient_checkpointing=False,
        learning_rate=config.learning_rate,
        bf16=False,
        use_cpu=on_cpu,
        num_generations=config.num_generations,
        shuffle_dataset=False,
        max_completion_length=config.max_tokens,
        temperature=config.temperature,
        beta=config.beta,
        reward_weights=list(config.reward_weights) or None,
        save_strategy="steps",
        save_steps=config.checkpoint_every,
        save_total_limit=2,
        logging_steps=1,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        report_to="none",
        seed=config.seed,
    )
