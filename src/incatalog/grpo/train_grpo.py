"""Reinforcement learning on what is really sampled: `incatalog train grpo`."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState

from incatalog.codes.semantic_ids import SemanticIds, load_semantic_ids
from incatalog.config import reward_problems
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.model_catalog import model_catalog
from incatalog.data.prepared import prepared_files
from incatalog.devices import trains_on_cpu
from incatalog.errors import ConfigError, require
from incatalog.grpo.policy import GAP
from incatalog.grpo.rewards import REWARDS, reward_functions
from incatalog.grpo.rollouts import EngineSampler, make_prompts
from incatalog.grpo.settings import GrpoSettings
from incatalog.items.aliases import ALIASES, Aliases
from incatalog.model.hub import with_model_here
from incatalog.model.lora import add_lora
from incatalog.model.saved import check_writable, load_model
from incatalog.model.spec import load_spec, require_spans, spec_file
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.teacher import Teacher
from incatalog.teacher_service.client import is_url
from incatalog.teacher_service.published_teacher import require_known_items
from incatalog.training.callbacks import RewardReport, main_console
from incatalog.training.checkpoints import BestFollowed
from incatalog.training.materials import read_teacher, teacher_files, teacher_identity
from incatalog.training.trackers import check_trackers
from incatalog.training.trainer import plain_forward
from incatalog.training.training_run import TrainedModel, TrainingRun
from incatalog.training.validation import HR, NDCG, ranking_validation, validation_prompts

_SHOWN = {
    "reward": "reward {:.4g}",
    "kl": "KL {:.4g}",
    "entropy": "entropy {:.4g}",
    "frac_reward_zero_std": "groups alike {:.4g}",
    GAP: "gap to the engine {:.4g}",
    f"eval_{NDCG}": f"validation {NDCG} {{:.4g}}",
    f"eval_{HR}": f"{HR} {{:.4g}}",
}


def train_grpo(settings: GrpoSettings) -> Path:
    """Trains a finished model on rewards for answers that it samples under the constraint.

    Killed and started again with the same configuration, it goes on from its newest checkpoint.
    Under ``accelerate launch`` each process samples and learns from ``batch_size`` answers.

    Returns:
        ``settings.out``: a folder to recommend with; after LoRA an adapter, to be merged by
        ``incatalog train merge``. Its weights are those with the best validation NDCG, the start
        included; a notice says so where that is the start.

    Raises:
        ConfigError: Settings contradict one another, or name something that is not there; raised
            before anything is loaded.
        MissingExtraError: trl is not installed.
        DataError: The data cannot be trained on, or has another catalog than the model.
        ArtifactError: The run folder holds something else.
    """
    require("trl", extra="grpo")
    settings = with_model_here(settings)
    check_config(settings)
    on_cpu = trains_on_cpu(settings.device)
    check_groups(settings, PartialState(cpu=on_cpu).num_processes)
    catalog, split = _read(settings)
    teacher = read_teacher(settings.teacher, catalog, "cpu" if on_cpu else "auto")
    if teacher is not None:
        # The model may name any item.
        require_known_items(teacher, "--reward teacher", np.arange(len(catalog)))
    identity = teacher_identity(teacher)
    weights = (*settings.model.glob("*.safetensors"), *settings.model.glob(ALIASES))
    files = sorted([*weights, spec_file(settings.model)])
    inputs = prepared_files(settings.data) | teacher_files(settings.teacher)
    inputs |= {f"model/{file.name}": file for file in files}
    free = ("logging_steps", "report_to")
    run = TrainingRun("train grpo", settings, inputs=inputs, identities=identity, free_fields=free)
    if run.finished:
        return run.folder
    recommender, semantic_ids = _load_policy(settings, catalog, run.device)
    model = recommender.backbone.model
    check_writable(recommender.backbone)
    trained = (pair for pair in model.named_parameters() if pair[1].requires_grad)
    start = {name: weight.detach().to("cpu", copy=True) for name, weight in trained}
    trainer = _trainer(settings, run, recommender, split, teacher)
    run.train(trainer)
    results = _keep_best(trainer.state, model, start)
    if results.get("best_step") == 0:
        told = (
            "notice: no checkpoint was better than the model it started from on the validation "
            f"users ({results['ndcg_start']:.4f}); that one is kept"
        )
        main_console().print(told, style="yellow")
    plain_forward(model)
    spec, backbone = recommender.spec, recommender.backbone
    if settings.tune == "lora":
        spec = replace(spec, base=os.path.relpath(settings.model, settings.out))
    found = TrainedModel(backbone, spec, recommender.items, semantic_ids, settings.model)
    return run.finish(found.save, steps=trainer.state.global_step, **results)


def check_config(settings: GrpoSettings) -> None:
    """Checks what can be checked without loading anything."""
    reward, weights, teacher = settings.reward, settings.reward_weights, settings.teacher
    settings.refuse_first([
        ("ranking" in reward, f"--reward {' '.join(reward)}",
         "ranking is two things: RecLM-uni's is `rule ndcg` here, and MiniOneRec's `rule "
         "ranking-aware`; name the one you mean"),
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
    require_spans(settings.model, load_spec(settings.model))
    if (settings.model / "adapter_config.json").exists():
        raise ConfigError(
            f"--model {settings.model}: is an adapter; merge it first with `incatalog train merge`"
        )
    check_trackers(settings.report_to)


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


def _read(settings: GrpoSettings) -> tuple[Catalog, LeaveOneOut]:
    own = model_catalog(settings.model, settings.title_field)
    catalog = Catalog.load(settings.data, title_field=own.title_field)
    if [item.item_id for item in own.items] != [item.item_id for item in catalog.items]:
        raise ConfigError(
            f"--data {settings.data}: not the catalog that {settings.model} was trained on (items "
            "or their order differ); train a model on this data first"
        )
    return catalog, leave_one_out(Histories.load(settings.data, catalog))


def _load_policy(
    settings: GrpoSettings, catalog: Catalog, device: str
) -> tuple[Recommender, SemanticIds | None]:
    """The model to train, with the engine that samples from the very same weights."""
    attention, dtype = settings.attention, torch.float32
    backbone, spec = load_model(settings.model, device, attention=attention, dtype=dtype)
    semantic_ids = None
    if spec.item_form == "codes":
        semantic_ids = load_semantic_ids(settings.model, catalog)
    backbone.model.requires_grad_(True)
    if settings.tune == "lora":
        lora = settings.lora() | {"dropout": 0.0, "train_new_rows": False, "seed": settings.seed}
        backbone = add_lora(backbone, **lora)
    aliases = Aliases.load(settings.model, Catalog.load(settings.model), spec.aliases)
    return Recommender(backbone, spec, catalog, semantic_ids, aliases), semantic_ids


def _trainer(
    settings: GrpoSettings,
    run: TrainingRun,
    recommender: Recommender,
    split: LeaveOneOut,
    teacher: Teacher | None,
) -> Any:
    from incatalog.grpo.grpo_trainer import ItemGrpoTrainer

    processes, seed = PartialState().num_processes, settings.seed
    group, unseen = settings.num_generations, settings.exclude_seen
    steps = num_steps(settings, processes)
    generations = math.ceil(steps / settings.num_iterations)
    count = generations * settings.per_step(processes) // group
    prompts = make_prompts(split, count, next_items=settings.next_items, new_only=unseen, seed=seed)
    wanted = settings.list_length or recommender.spec.list_length
    sampler = EngineSampler(
        recommender, wanted, settings.rollout, settings.temperature, unseen, group
    )
    model, reference, validation = recommender.backbone.model, None, None
    if settings.beta and settings.tune == "full":
        reference = copy.deepcopy(model).requires_grad_(False)
    if settings.validation_users:
        held_out = validation_prompts(split, settings.validation_users, seed)
        validation = ranking_validation(recommender, held_out, exclude_seen=unseen)
    return ItemGrpoTrainer(
        model,
        _arguments(settings, run, steps, validated=validation is not None),
        beta=settings.beta,
        reference=reference,
        prompts=prompts,
        sampler=sampler,
        rewards=reward_functions(settings.reward, recommender.catalog, teacher),
        wanted=wanted,
        head=recommender.backbone.head,
        validation=validation,
        compared=settings.rollout == "sample",
        seed=seed,
        # A copy, as TRL gives a tokenizer without a padding token one.
        processing_class=copy.deepcopy(recommender.backbone.tokenizer),
        callbacks=[RewardReport(main_console(), _SHOWN), BestFollowed()],
    )


def _arguments(settings: GrpoSettings, run: TrainingRun, steps: int, *, validated: bool) -> Any:
    from trl import GRPOConfig

    save = settings.checkpoint_every
    validate = save if validated else 0
    same = ("num_generations", "temperature", "num_iterations", "epsilon", "scale_rewards", "seed")
    return GRPOConfig(
        **run.arguments(settings, steps=steps, validate=validate, save=save, keep_best=validated),
        **settings.named(*same),
        eval_on_start=validated and run.newest is None,
        max_steps=steps,
        gradient_checkpointing=False,
        # The policy answers without dropout, and is scored without it.
        disable_dropout=True,
        num_generations_eval=1,
        shuffle_dataset=False,
        beta=0.0,
        epsilon_high=settings.epsilon_high or None,
        loss_type=settings.loss,
        importance_sampling_level=settings.importance,
        reward_weights=list(settings.reward_weights) or None,
    )


def _keep_best(
    state: Any, model: torch.nn.Module, start: Mapping[str, torch.Tensor]
) -> dict[str, float]:
    """Takes the weights at the start where no checkpoint was better; returns what was measured."""
    name = f"eval_{NDCG}"
    measured = {entry["step"]: entry[name] for entry in state.log_history if name in entry}
    gaps = [entry[GAP] for entry in state.log_history if entry.get(GAP) is not None]
    results = {"engine_gap": max(gaps)} if gaps else {}
    if not measured:
        return results
    best = max(measured, key=lambda step: (measured[step], -step))
    if best == 0:
        with torch.no_grad():
            for key, weight in model.named_parameters():
                if key in start:
                    weight.copy_(start[key])
    first = measured.get(0, float("nan"))
    return results | {"ndcg_start": first, "ndcg_best": measured[best], "best_step": best}
