"""What has to hold of the settings of `incatalog train grpo` before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from incatalog.config import reward_problems
from incatalog.errors import ConfigError
from incatalog.grpo.rewards import REWARDS
from incatalog.grpo.settings import GrpoSettings
from incatalog.model.spec import load_spec
from incatalog.teacher_service.client import is_url


def check_config(settings: GrpoSettings) -> None:
    """Checks what can be checked without loading anything."""
    reward, weights, teacher = settings.reward, settings.reward_weights, settings.teacher
    settings.refuse_first([
        *reward_problems(reward, weights, REWARDS),
        (bool(weights) and not any(weights),
         "--reward-weights", "all are 0, so there is nothing to learn"),
        (settings.rollout == "beam" and settings.list_length != 1, "rollout",
         f"finds single items, not lists of {settings.list_length or 'many'}; use --list-length 1 "
         "or --rollout sample"),
        ("teacher" in reward and not teacher,
         "--reward teacher", "nobody to ask; add --teacher FOLDER or URL"),
        ("teacher" not in reward and bool(teacher),
         "--teacher", "no reward asks it; add --reward teacher"),
        (bool(teacher) and not is_url(teacher) and not Path(teacher).is_dir(),
         "teacher", "no such folder; fit one with `incatalog teacher fit`"),
        (not settings.data.is_dir(), "data", "no such folder"),
        (not settings.model.is_dir(), "model",
         "no such folder; expected the folder of a finished  `incatalog train sft`"),
        (settings.checkpoint_every % settings.num_iterations != 0, "checkpoint_every",
         f"not a multiple of --num-iterations {settings.num_iterations}, between which no answers "
         "are sampled"),
    ])  # fmt: skip
    load_spec(settings.model)
    if (settings.model / "adapter_config.json").exists():
        raise ConfigError(
            f"--model {settings.model}: is an adapter; merge it first with `incatalog train merge`"
        )


def check_groups(settings: GrpoSettings, processes: int) -> None:
    """Checks that the answers of a step make whole groups."""
    answers, group = settings.per_step(processes), settings.num_generations
    settings.refuse_first([
        (answers % group != 0, "num_generations",
         f"does not divide the {answers} answers of a step (--batch-size {settings.batch_size} x "
         f"--gradient-accumulation {settings.gradient_accumulation} x {processes} processes)"),
        (num_steps(settings, processes) < 1,
         "max_samples", f"fewer than the {answers // group} prompts of a step"),
    ])  # fmt: skip


def num_steps(settings: GrpoSettings, processes: int) -> int:
    """Optimiser steps of the whole training."""
    answers = settings.per_step(processes)
    steps = settings.max_samples * settings.num_generations // answers * settings.num_iterations
    return min(steps, settings.max_steps) if settings.max_steps else steps
