"""`reclm rewrite train`: a chat model learns to rewrite titles, by GRPO with the five rewards.

For those without ms-swift; the rewards are those of :mod:`reclm.training.swift_plugin`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import set_seed

from reclm.artifacts import open_run
from reclm.backbone import add_lora, check_writable, load_backbone, save_backbone
from reclm.config import RewriteTrainConfig
from reclm.data.documents import json_lines
from reclm.devices import trains_on_cpu
from reclm.errors import ConfigError, DataError, require
from reclm.training.rewrite_data import ROWS_FILE
from reclm.training.rewrite_rewards import REWRITE_REWARDS
from reclm.training.rewrite_rows import row_of
from reclm.training.rewrite_scoring import RewriteScoring
from reclm.training.trainer import newest_checkpoint, remove_incomplete

_CHECKPOINTS = "checkpoints"
_STAGE = "rewrite train"


def train_rewrite(config: RewriteTrainConfig) -> Path:
    """Trains a model to rewrite titles.

    Killed and started again with the same configuration, it goes on from its newest checkpoint.

    Returns:
        ``config.out``: a chat model, or a LoRA adapter of one, with its tokenizer.

    Raises:
        ConfigError: A setting that cannot work; raised before anything is loaded.
        DataError: The rows are missing or broken.
        ScorerError: A scorer cannot answer; the run resumes from its newest checkpoint.
        MissingExtraError: trl is not installed.
        ArtifactError: The run folder holds something else.
    """
    check_config(config)
    trl = require("trl", extra="grpo")
    datasets = require("datasets", extra="grpo")
    on_cpu = trains_on_cpu(config.device)
    rows = list(read_rows(config.data / ROWS_FILE))
    scoring = RewriteScoring.load(config.scorers, config.device)
    inputs = {"rows": config.data / ROWS_FILE, "scorers": config.scorers}
    run = open_run(config.out, _STAGE, config, inputs=inputs)
    if run.finished:
        return run.folder
    set_seed(config.seed)
    backbone = load_backbone(config.model, device="cpu" if on_cpu else "cuda")
    backbone.model.requires_grad_(True)
    if config.tune == "lora":
        backbone = add_lora(
            backbone, r=config.lora_r, alpha=config.lora_alpha, dropout=0.0,
            train_new_rows=False, seed=config.seed,
        )  # fmt: skip
    check_writable(backbone)
    checkpoints = config.out / _CHECKPOINTS
    remove_incomplete(checkpoints)
    trainer = trl.GRPOTrainer(
        model=backbone.model,
        reward_funcs=[scoring.function(name) for name in config.reward],  # type: ignore[arg-type]
        args=_arguments(config, trl, on_cpu=on_cpu),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=backbone.tokenizer,
    )
    newest = newest_checkpoint(checkpoints)
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    save_backbone(config.out, backbone)
    rewards = {
        name: value
        for entry in trainer.state.log_history
        for name, value in entry.items()
        if name.startswith("rewards/") and name.endswith("/mean")
    }
    run.finish(steps=trainer.state.global_step, **rewards)
    return run.folder


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
         f"--data {config.data}: holds no {ROWS_FILE}; make it with `reclm rewrite data`"),
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
