"""What has to hold of the settings of `incatalog train grpo` before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from incatalog.errors import ConfigError
from incatalog.grpo.rewards import REWARDS
from incatalog.grpo.settings import GrpoConfig
from incatalog.model.spec import load_spec
from incatalog.teacher_service.client import is_url

_MOST_SAMPLES = 10_000_000


def check_config(config: GrpoConfig) -> None:
    """Checks what can be checked without loading anything.

    Raises:
        ConfigError: Names the flag.
        BackboneError: `--model` is no trained model.
    """
    known = ", ".join(REWARDS)
    unknown = [name for name in config.reward if name not in REWARDS]
    weights = config.reward_weights
    needs = [
        (not config.reward, f"--reward: names no reward; expected some of {known}"),
        (bool(unknown), f"--reward {' '.join(unknown)}: no such reward; expected some of {known}"),
        (len(set(config.reward)) < len(config.reward),
         f"--reward {' '.join(config.reward)}: names one twice; weigh it by --reward-weights"),
        (bool(weights) and len(weights) != len(config.reward),
         f"--reward-weights: {len(weights)} of them for {len(config.reward)} rewards"),
        (bool(weights) and not any(weights),
         "--reward-weights: all are 0, so there is nothing to learn"),
        (config.rollout == "beam" and config.list_length != 1,
         f"--rollout beam: finds single items, not lists of {config.list_length or 'many'}; "
         "use --list-length 1 or --rollout sample"),
        ("teacher" in config.reward and not config.teacher,
         "--reward teacher: nobody to ask; add --teacher FOLDER or URL"),
        ("teacher" not in config.reward and bool(config.teacher),
         "--teacher: no reward asks it; add --reward teacher"),
        (bool(config.teacher) and not is_url(config.teacher) and not Path(config.teacher).is_dir(),
         f"--teacher {config.teacher}: no such folder; fit one with `incatalog teacher fit`"),
        (config.max_samples > _MOST_SAMPLES,
         f"--max-samples {config.max_samples}: expected at most {_MOST_SAMPLES}, as all are drawn "
         "before the first step"),
        (config.num_generations < 2,
         f"--num-generations {config.num_generations}: expected at least 2, as answers to a prompt "
         "are compared with one another"),
        (not config.data.is_dir(), f"--data {config.data}: no such folder"),
        (not config.model.is_dir(), f"--model {config.model}: no such folder; expected the folder "
         "of a finished `incatalog train sft`"),
        (config.num_iterations > 0 and config.checkpoint_every % config.num_iterations != 0,
         f"--checkpoint-every {config.checkpoint_every}: not a multiple of --num-iterations "
         f"{config.num_iterations}, between which no answers are sampled"),
        (not 0.001 <= config.temperature <= 1000,
         f"--temperature {config.temperature}: expected 0.001 to 1000"),
        (not config.learning_rate > 0,
         f"--learning-rate {config.learning_rate}: expected a positive number"),
        (not 0 <= config.warmup_ratio <= 1,
         f"--warmup-ratio {config.warmup_ratio}: expected 0 to 1"),
    ]  # fmt: skip
    for wrong, message in needs:
        if wrong:
            raise ConfigError(message)
    low = dict.fromkeys(
        ("list_length", "max_steps", "validation_users", "seed", "beta", "epsilon", "epsilon_high",
         "weight_decay", "clip_norm"),
        0,
    )  # fmt: skip
    low |= dict.fromkeys(
        ("next_items", "max_samples", "num_iterations", "batch_size", "gradient_accumulation",
         "checkpoint_every", "logging_steps", "lora_r"),
        1,
    )  # fmt: skip
    for name, least in low.items():
        value = getattr(config, name)
        if not value >= least:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} {value}: expected at least {least}")
    load_spec(config.model)
    if (config.model / "adapter_config.json").exists():
        raise ConfigError(
            f"--model {config.model}: is an adapter; merge it first with `incatalog train merge`"
        )


def check_groups(config: GrpoConfig, processes: int) -> None:
    """Checks that the answers of a step make whole groups.

    Raises:
        ConfigError: Names the flag.
    """
    answers = config.batch_size * config.gradient_accumulation * processes
    if answers % config.num_generations:
        raise ConfigError(
            f"--num-generations {config.num_generations}: does not divide the {answers} answers of "
            f"a step (--batch-size {config.batch_size} x --gradient-accumulation "
            f"{config.gradient_accumulation} x {processes} processes)"
        )
    if num_steps(config, processes) < 1:
        raise ConfigError(
            f"--max-samples {config.max_samples}: fewer than the "
            f"{answers // config.num_generations} prompts of a step"
        )


def num_steps(config: GrpoConfig, processes: int) -> int:
    """Optimiser steps of the whole training."""
    answers = config.batch_size * config.gradient_accumulation * processes
    steps = config.max_samples * config.num_generations // answers * config.num_iterations
    return min(steps, config.max_steps) if config.max_steps else steps
