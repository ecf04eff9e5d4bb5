"""What has to hold of the settings of `incatalog train grpo` before anything is loaded."""

from __future__ import annotations

from pathlib import Path

from incatalog.config import refuse_first
from incatalog.errors import ConfigError
from incatalog.grpo.rewards import REWARDS
from incatalog.grpo.settings import GrpoSettings
from incatalog.model.spec import load_spec
from incatalog.teacher_service.client import is_url


def check_config(settings: GrpoSettings) -> None:
    """Checks what can be checked without loading anything."""
    known = ", ".join(REWARDS)
    unknown = [name for name in settings.reward if name not in REWARDS]
    weights = settings.reward_weights
    problems = [
        (not settings.reward, f"--reward: names no reward; expected some of {known}"),
        (bool(unknown), f"--reward {' '.join(unknown)}: no such reward; expected some of {known}"),
        (len(set(settings.reward)) < len(settings.reward),
         f"--reward {' '.join(settings.reward)}: names one twice; weigh it by --reward-weights"),
        (bool(weights) and len(weights) != len(settings.reward),
         f"--reward-weights: {len(weights)} of them for {len(settings.reward)} rewards"),
        (bool(weights) and not any(weights),
         "--reward-weights: all are 0, so there is nothing to learn"),
        (settings.rollout == "beam" and settings.list_length != 1,
         f"--rollout beam: finds single items, not lists of {settings.list_length or 'many'}; "
         "use --list-length 1 or --rollout sample"),
        ("teacher" in settings.reward and not settings.teacher,
         "--reward teacher: nobody to ask; add --teacher FOLDER or URL"),
        ("teacher" not in settings.reward and bool(settings.teacher),
         "--teacher: no reward asks it; add --reward teacher"),
        (bool(settings.teacher) and not is_url(settings.teacher)
         and not Path(settings.teacher).is_dir(),
         f"--teacher {settings.teacher}: no such folder; fit one with `incatalog teacher fit`"),
        (not settings.data.is_dir(), f"--data {settings.data}: no such folder"),
        (not settings.model.is_dir(),
         f"--model {settings.model}: no such folder; expected the folder of a finished "
         " `incatalog train sft`"),
        (settings.num_iterations > 0 and settings.checkpoint_every % settings.num_iterations != 0,
         f"--checkpoint-every {settings.checkpoint_every}: not a multiple of --num-iterations "
         f"{settings.num_iterations}, between which no answers are sampled"),
    ]  # fmt: skip
    refuse_first(problems)
    load_spec(settings.model)
    if (settings.model / "adapter_config.json").exists():
        raise ConfigError(
            f"--model {settings.model}: is an adapter; merge it first with `incatalog train merge`"
        )


def check_groups(settings: GrpoSettings, processes: int) -> None:
    """Checks that the answers of a step make whole groups."""
    answers = settings.per_step(processes)
    if answers % settings.num_generations:
        raise ConfigError(
            f"--num-generations {settings.num_generations}: does not divide the {answers} answers "
            f"of a step (--batch-size {settings.batch_size} x --gradient-accumulation "
            f"{settings.gradient_accumulation} x {processes} processes)"
        )
    if num_steps(settings, processes) < 1:
        raise ConfigError(
            f"--max-samples {settings.max_samples}: fewer than the "
            f"{answers // settings.num_generations} prompts of a step"
        )


def num_steps(settings: GrpoSettings, processes: int) -> int:
    """Optimiser steps of the whole training."""
    answers = settings.per_step(processes)
    steps = settings.max_samples * settings.num_generations // answers * settings.num_iterations
    return min(steps, settings.max_steps) if settings.max_steps else steps
