"""Reinforcement learning on what is really sampled: `incatalog train grpo`."""

from __future__ import annotations

import copy
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import PrinterCallback

from incatalog.artifacts import open_run
from incatalog.codes.semantic_ids import SemanticIds, index_name, load_semantic_ids
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.devices import trains_on_cpu
from incatalog.errors import ConfigError, TeacherError, require
from incatalog.grpo.checks import check_config, check_groups, num_steps
from incatalog.grpo.policy import GAP
from incatalog.grpo.rewards import reward_functions
from incatalog.grpo.rollouts import EngineSampler, make_questions
from incatalog.grpo.settings import GrpoSettings
from incatalog.items.aliases import ALIASES, Aliases
from incatalog.model.lora import add_lora
from incatalog.model.saved import check_writable, load_model, save_model
from incatalog.model.spec import ModelSpec, spec_file
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.teacher import Teacher
from incatalog.teacher_service.client import HttpTeacher, is_url, open_teacher
from incatalog.training.callbacks import RewardReport, main_console, tensorboard
from incatalog.training.checkpoints import (
    BestFollowed,
    checkpoint_step,
    newest_checkpoint,
    remove_unusable,
)
from incatalog.training.trainer import plain_forward
from incatalog.training.validation import HR, NDCG, ranking_validation, validation_questions

_STAGE = "train grpo"
_CHECKPOINTS = "checkpoints"
_FREE_FIELDS = ("logging_steps",)
_SHOWN = {
    "reward": "reward",
    "kl": "KL",
    "entropy": "entropy",
    "frac_reward_zero_std": "groups alike",
    GAP: "gap to the engine",
    f"eval_{NDCG}": f"validation {NDCG}",
    f"eval_{HR}": HR,
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
    check_config(settings)
    require("trl", extra="grpo")
    on_cpu = trains_on_cpu(settings.device)
    processes = PartialState(cpu=on_cpu)
    check_groups(settings, processes.num_processes)
    catalog, split, teacher = _read(settings, on_cpu=on_cpu)
    with processes.main_process_first():
        run = open_run(
            settings.out,
            _STAGE,
            settings,
            inputs=_hashed(settings),
            identities={"teacher": teacher.fingerprint} if isinstance(teacher, HttpTeacher) else {},
            free_fields=_FREE_FIELDS,
            processes=processes.num_processes,
        )
    checkpoints = settings.out / _CHECKPOINTS
    if run.finished:
        if processes.is_main_process:
            # Of a run that was killed just behind its end.
            shutil.rmtree(checkpoints, ignore_errors=True)
        return settings.out
    set_seed(settings.seed)
    recommender, semantic_ids = _load_policy(settings, catalog, on_cpu=on_cpu)
    check_writable(recommender.backbone)
    if processes.is_main_process:
        remove_unusable(checkpoints, main_console())
    processes.wait_for_everyone()
    newest = newest_checkpoint(checkpoints)
    start = _trainable(recommender.backbone.model)
    trainer = _trainer(settings, recommender, split, teacher, fresh=newest is None)
    if processes.is_main_process:
        trainer.add_callback(tensorboard(settings.out, after=checkpoint_step(newest)))
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    results = _keep_best(trainer.state, recommender.backbone.model, start)
    if results.get("best_step") == 0:
        main_console().print(
            "notice: no checkpoint was better than the model it started from on the validation "
            f"users ({results['ndcg_start']:.4f}); that one is kept",
            style="yellow",
        )
    plain_forward(recommender.backbone.model)
    if processes.is_main_process:
        recommender.catalog.save(settings.out)
        if semantic_ids is not None:
            name = index_name(settings.model) or catalog.name
            semantic_ids.save(settings.out, name, catalog)
        if recommender.aliases:
            recommender.aliases.save(settings.out, catalog)
        save_model(settings.out, recommender.backbone, _spec(settings, recommender.spec))
        run.finish(steps=trainer.state.global_step, **results)
        shutil.rmtree(checkpoints, ignore_errors=True)
    processes.wait_for_everyone()
    return settings.out


def _hashed(settings: GrpoSettings) -> dict[str, str | Path]:
    found: dict[str, str | Path] = dict(prepared_files(settings.data))
    if settings.teacher and not is_url(settings.teacher):
        found["teacher"] = Path(settings.teacher) / "teacher.safetensors"
    named = (*settings.model.glob("*.safetensors"), *settings.model.glob(ALIASES))
    for file in sorted([*named, spec_file(settings.model)]):
        found[f"model/{file.name}"] = file
    return found


def _read(settings: GrpoSettings, *, on_cpu: bool) -> tuple[Catalog, LeaveOneOut, Teacher | None]:
    catalog = Catalog.load(settings.data)
    own = Catalog.load(settings.model)
    if [item.item_id for item in own.items] != [item.item_id for item in catalog.items]:
        raise ConfigError(
            f"--data {settings.data}: not the catalog that {settings.model} was trained on (items "
            "or their order differ); train a model on this data first"
        )
    split = leave_one_out(Histories.load(settings.data, catalog))
    teacher = None
    if settings.teacher:
        try:
            teacher = open_teacher(settings.teacher, catalog, "cpu" if on_cpu else "auto")
        except TeacherError as error:
            raise ConfigError(f"--teacher: {error}") from error
    return catalog, split, teacher


def _load_policy(
    settings: GrpoSettings, catalog: Catalog, *, on_cpu: bool
) -> tuple[Recommender, SemanticIds | None]:
    """The model to train, with the engine that samples from the very same weights."""
    device = "cpu" if on_cpu else f"cuda:{PartialState().local_process_index}"
    backbone, spec = load_model(
        settings.model, device, attention=settings.attention, dtype=torch.float32
    )
    semantic_ids = None
    if spec.item_form == "codes":
        semantic_ids = load_semantic_ids(settings.model, catalog)
    backbone.model.requires_grad_(True)
    if settings.tune == "lora":
        backbone = add_lora(
            backbone,
            r=settings.lora_r,
            alpha=settings.lora_alpha,
            dropout=0.0,
            targets=settings.lora_targets,
            train_new_rows=False,
            seed=settings.seed,
        )
    aliases = Aliases.load(settings.model, Catalog.load(settings.model), spec.aliases)
    return Recommender(backbone, spec, catalog, semantic_ids, aliases), semantic_ids


def _trainer(
    settings: GrpoSettings,
    recommender: Recommender,
    split: LeaveOneOut,
    teacher: Teacher | None,
    *,
    fresh: bool,
) -> Any:
    from incatalog.grpo.grpo_trainer import ItemGrpoTrainer

    processes = PartialState().num_processes
    steps = num_steps(settings, processes)
    answers = settings.batch_size * settings.gradient_accumulation * processes
    generations = math.ceil(steps / settings.num_iterations)
    questions = make_questions(
        split,
        generations * answers // settings.num_generations,
        next_items=settings.next_items,
        new_only=settings.exclude_seen,
        seed=settings.seed,
    )
    wanted = settings.list_length or recommender.spec.list_length
    sampler = EngineSampler(
        recommender,
        list_length=wanted,
        rollout=settings.rollout,
        temperature=settings.temperature,
        exclude_seen=settings.exclude_seen,
        num_generations=settings.num_generations,
    )
    model = recommender.backbone.model
    reference = None
    if settings.beta and settings.tune == "full":
        reference = copy.deepcopy(model).requires_grad_(False)
    validation = None
    if settings.validation_users:
        held_out = validation_questions(split, settings.validation_users, settings.seed)
        validation = ranking_validation(recommender, held_out, exclude_seen=settings.exclude_seen)
    trainer = ItemGrpoTrainer(
        model,
        _arguments(settings, steps, validated=validation is not None, fresh=fresh),
        beta=settings.beta,
        reference=reference,
        questions=questions,
        sampler=sampler,
        rewards=reward_functions(settings.reward, recommender.catalog, teacher),
        wanted=wanted,
        head=recommender.backbone.head,
        validation=validation,
        compared=settings.rollout == "sample",
        seed=settings.seed,
        # A copy, as TRL gives a tokenizer without a padding token one.
        processing_class=copy.deepcopy(recommender.backbone.tokenizer),
        callbacks=[RewardReport(main_console(), _SHOWN), BestFollowed()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(settings: GrpoSettings, steps: int, *, validated: bool, fresh: bool) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(settings.out / _CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        gradient_checkpointing=False,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_ratio * steps),
        lr_scheduler_type={"constant": "constant_with_warmup"}.get(
            settings.scheduler, settings.scheduler
        ),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip_norm,
        bf16=settings.bf16,
        use_cpu=trains_on_cpu(settings.device),
        # The policy answers without dropout, and is scored without it.
        disable_dropout=True,
        num_generations=settings.num_generations,
        num_generations_eval=1,
        shuffle_dataset=False,
        temperature=settings.temperature,
        beta=0.0,
        num_iterations=settings.num_iterations,
        epsilon=settings.epsilon,
        epsilon_high=settings.epsilon_high or None,
        loss_type=settings.loss,
        importance_sampling_level=settings.importance,
        scale_rewards=settings.scale_rewards,
        reward_weights=list(settings.reward_weights) or None,
        eval_strategy="steps" if validated else "no",
        eval_steps=settings.checkpoint_every if validated else None,
        eval_on_start=validated and fresh,
        save_strategy="steps",
        save_steps=settings.checkpoint_every,
        save_total_limit=2,
        load_best_model_at_end=validated,
        metric_for_best_model=NDCG if validated else None,
        greater_is_better=True if validated else None,
        logging_steps=settings.logging_steps,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to="none",
        seed=settings.seed,
    )


def _trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights to be trained, as they start."""
    return {
        name: weight.detach().to("cpu", copy=True)
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }


def _keep_best(
    state: Any, model: torch.nn.Module, start: Mapping[str, torch.Tensor]
) -> dict[str, float]:
    """Goes back to the weights at the start where no checkpoint was better; what was measured."""
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
    return results | {
        "ndcg_start": measured.get(0, float("nan")),
        "ndcg_best": measured[best],
        "best_step": best,
    }


def _spec(settings: GrpoSettings, spec: ModelSpec) -> ModelSpec:
    if settings.tune == "full":
        return spec
    return replace(spec, base=os.path.relpath(settings.model, settings.out))
