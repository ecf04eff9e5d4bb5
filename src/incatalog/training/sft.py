"""Supervised fine-tuning on recommendation conversations: `incatalog train sft`."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import set_seed
from transformers import PrinterCallback, TrainerCallback, TrainingArguments

from incatalog.artifacts import open_run
from incatalog.codes.semantic_ids import (
    SemanticIds,
    index_name,
)
from incatalog.config import refuse_first
from incatalog.devices import trains_on_cpu
from incatalog.dialogue.render import Renderer
from incatalog.dialogue.templates import wording_named
from incatalog.errors import ConfigError
from incatalog.items.aliases import Aliases
from incatalog.model.backbone import Backbone
from incatalog.model.saved import check_writable, save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.items import ModelItems
from incatalog.recommender.recommender import Recommender
from incatalog.teacher_service.client import is_url
from incatalog.training.alignment import Alignment
from incatalog.training.callbacks import BestKept, ProgressReport, main_console, tensorboard
from incatalog.training.checkpoints import (
    BestFollowed,
    checkpoint_step,
    newest_checkpoint,
    remove_unusable,
)
from incatalog.training.collator import Collator
from incatalog.training.dataset import SftDataset, ValidationDataset
from incatalog.training.general_chat import GeneralChat
from incatalog.training.materials import (
    _TINY_BASE,
    Materials,
    _index_folder,
    adapts,
    build_backbone,
    hashed_inputs,
    identities,
    read_aliases,
    read_materials,
    with_item_form,
    writes_aliases,
)
from incatalog.training.retrieval_loss import Retrieval
from incatalog.training.samples import SampleSource
from incatalog.training.settings import SftSettings
from incatalog.training.trainer import ScopedTrainer, plain_forward
from incatalog.training.validation import NDCG, ranking_validation, validation_questions

_STAGE = "train sft"
_CHECKPOINTS = "checkpoints"
# Settings that cannot change the weights, so a run may be resumed with others.
_FREE_FIELDS = ("workers", "logging_steps", "checkpoint_every")


def train_sft(settings: SftSettings) -> Path:
    """Fine-tunes a chat model so that it answers with items of the catalog.

    Killed and started again with the same configuration, it goes on from its newest checkpoint and
    ends with the same weights. With ``keep_best`` these are the ones that rank best, and not the
    last. Under ``accelerate launch`` each process takes ``batch_size``
    samples of a step.

    Returns:
        ``settings.out``: after full tuning a folder to recommend with; after LoRA an adapter, to be
        merged by ``incatalog train merge``. Both hold the catalog, with the titles it writes.

    Raises:
        ConfigError: Settings contradict one another, or name something that is not there; raised
            before anything is loaded.
        DataError: The data cannot be trained on.
        ArtifactError: The run folder holds something else.
    """
    check_config(settings)
    on_cpu = trains_on_cpu(settings.device)
    processes = PartialState(cpu=on_cpu)
    settings = with_item_form(settings)
    inputs = read_materials(settings, on_cpu=on_cpu)
    with processes.main_process_first():
        run = open_run(
            settings.out,
            _STAGE,
            settings,
            inputs=hashed_inputs(settings),
            identities=identities(inputs.teacher),
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
    backbone = build_backbone(settings, inputs, on_cpu=on_cpu, is_main=processes.is_main_process)
    check_writable(backbone)
    spec = _spec(settings, inputs.semantic_ids)
    items = ModelItems.of(backbone.tokenizer, spec.item_form, inputs.catalog, inputs.semantic_ids)
    if processes.is_main_process:
        remove_unusable(checkpoints, main_console())
    processes.wait_for_everyone()
    newest = newest_checkpoint(checkpoints)
    aliases = read_aliases(settings, backbone, items.catalog)
    if writes_aliases(settings):
        items = items.with_aliases(aliases)
    trainer = _trainer(settings, inputs, backbone, spec, items, aliases)
    if processes.is_main_process:
        trainer.add_callback(tensorboard(settings.out, after=checkpoint_step(newest)))
    result = trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    plain_forward(backbone.model)
    if processes.is_main_process:
        items.catalog.save(settings.out)
        if inputs.semantic_ids is not None:
            name = index_name(_index_folder(settings)) or items.catalog.name
            inputs.semantic_ids.save(settings.out, name, items.catalog)
        if items.aliases:
            items.aliases.save(settings.out, items.catalog)
        save_model(settings.out, backbone, replace(spec, aliases=len(items.aliases)))
        run.finish(steps=result.global_step, loss=result.training_loss, **_best(trainer, settings))
        shutil.rmtree(checkpoints, ignore_errors=True)
    processes.wait_for_everyone()
    return settings.out


def _best(trainer: ScopedTrainer, settings: SftSettings) -> dict[str, float]:
    """Which step's weights are kept, and how well they rank."""
    if not settings.keep_best:
        return {}
    return {"best_step": trainer.state.best_global_step, "ndcg_best": trainer.state.best_metric}


def check_config(settings: SftSettings) -> None:
    """Checks what can be checked without loading anything.

    Raises:
        ConfigError: Names the flag.
    """
    problems = [
        (settings.loss_on_history and settings.history_form == "title",
         "--loss-on-history: needs item spans in the prompt; add --history-form span"),
        (settings.chat is None and settings.chat_ratio > 0,
         f"--chat-ratio {settings.chat_ratio}: no conversations to mix in; add --chat FILE"),
        (settings.chat is None and settings.multi_round_ratio > 0,
         f"--multi-round-ratio {settings.multi_round_ratio}: no conversations to take turns from; "
         "add --chat FILE"),
        (settings.chat is not None and not settings.chat.is_file(),
         f"--chat {settings.chat}: no such file"),
        (not settings.data.is_dir(), f"--data {settings.data}: no such folder"),
        (settings.method != "token" and settings.item_form == "codes",
         f"--item-form codes: --method {settings.method} writes titles; use --method token"),
        (settings.method == "ret" and not settings.vectors,
         "--vectors: --method ret finds items by their vectors; make them with "
         "`incatalog items embed`"),
        (settings.method == "ret" and not Path(settings.vectors).is_file(),
         f"--vectors {settings.vectors}: no such file; "
         "make item vectors with `incatalog items embed`"),
        (settings.method != "ret" and bool(settings.vectors),
         f"--vectors: --method {settings.method} has no use for them; use --method ret"),
        (settings.method != "ret" and (settings.train_item_vectors or settings.only_head),
         "--train-item-vectors, --only-head: train what --method ret has; add it"),
        (settings.only_head and settings.quantization != "none",
         "--only-head: saves the language model whole, which quantized weights cannot be; "
         "use --quantization none"),
        (settings.only_head and (settings.train_embeddings or settings.train_lm_head),
         "--only-head: leaves the language model as it is; drop --train-embeddings and "
         "--train-lm-head"),
        (settings.paraphrases is not None and not settings.paraphrases.is_file(),
         f"--paraphrases {settings.paraphrases}: no such file; "
         "make them with `incatalog rewrite apply`"),
        (settings.paraphrases is None and settings.paraphrases_in != "history",
         f"--paraphrases-in {settings.paraphrases_in}: no paraphrases; add --paraphrases FILE"),
        (settings.method != "cgen" and settings.paraphrases_in != "history",
         f"--paraphrases-in {settings.paraphrases_in}: --method {settings.method} does not choose "
         "items by their names; use --paraphrases-in history, or --method cgen"),
        (bool(settings.index) and not Path(settings.index).is_dir(),
         f"--index {settings.index}: no such folder"),
        (bool(settings.teacher) and not is_url(settings.teacher)
         and not Path(settings.teacher).is_dir(),
         f"--teacher {settings.teacher}: no such folder; fit one with `incatalog teacher fit`"),
        (settings.candidate_ratio > 0 and settings.max_candidates < settings.list_length,
         f"--max-candidates {settings.max_candidates}: shorter than --list-length "
         f"{settings.list_length}; a candidate list holds the whole answer"),
        (settings.tiny_dropout > 0 and settings.model != "tiny",
         f"--tiny-dropout {settings.tiny_dropout}: {settings.model} is not made here; use --model "
         "tiny, or --lora-dropout"),
        (settings.keep_best and not settings.validate_every,
         "--keep-best: chooses by validations; give --validate-every EPOCHS"),
        (settings.keep_best and settings.checkpoint_every > 0,
         f"--checkpoint-every {settings.checkpoint_every}: with --keep-best checkpoints come with "
         "the validations; use 0"),
        (not settings.keep_best and (settings.patience > 0 or settings.exclude_seen),
         "--patience, --exclude-seen: are about the ranking of validation items; add --keep-best"),
        (settings.quantization != "none" and not _cuda(settings),
         f"--quantization {settings.quantization}: needs a CUDA device; "
         "use --quantization none on the CPU"),
        (settings.quantization != "none" and settings.tune == "full",
         f"--quantization {settings.quantization}: quantized weights cannot be trained; "
         "use --tune lora"),
        (settings.quantization != "none" and settings.model == "tiny",
         f"--quantization {settings.quantization}: a tiny model starts from scratch; "
         "use --quantization none"),
    ]  # fmt: skip
    refuse_first(problems)
    if wording_named(settings.wording).offers_candidates:
        raise ConfigError(f"--wording {settings.wording}: offers candidates, which nobody gives it")
    trains_on_cpu(settings.device)


def _cuda(settings: SftSettings) -> bool:
    return settings.device != "cpu" and torch.cuda.is_available()


def _trainer(
    settings: SftSettings,
    inputs: Materials,
    backbone: Backbone,
    spec: ModelSpec,
    items: ModelItems,
    aliases: Aliases,
) -> ScopedTrainer:
    console = main_console()
    catalog = items.catalog
    spelled = aliases and inputs.semantic_ids is None
    renderer = Renderer(backbone.tokenizer, items.spelled(aliases) if spelled else items.tokens)
    chat = None
    if settings.chat is not None and (settings.chat_ratio > 0 or settings.multi_round_ratio > 0):
        chat = GeneralChat.fit(inputs.conversations, renderer, settings.max_length, settings.chat)
        if chat.cut or chat.dropped:
            console.print(
                f"{settings.chat}: of {len(inputs.conversations)} conversations {chat.cut} lost "
                f"their newest exchanges and {chat.dropped} were left out, to fit --max-length "
                f"{settings.max_length}"
            )
    alignment = None
    if settings.align_ratio > 0:
        alignment = Alignment.fit(
            catalog, catalog.titles_t, renderer, backbone.tokenizer, settings.max_length
        )
        if alignment.cut:
            console.print(
                f"{settings.data}: {alignment.cut} of {len(catalog)} item texts were cut at their "
                f"end, to fit --max-length {settings.max_length}"
            )
    source = SampleSource(
        inputs.split,
        catalog.titles_t,
        items.tokens,
        renderer,
        settings,
        teacher=inputs.teacher,
        chat=chat,
        alignment=alignment,
        aliases=aliases,
    )
    skipped = len(inputs.split) - len(source.users)
    if skipped:
        console.print(
            f"{settings.data}: {skipped} of {len(inputs.split)} users have a single item to train "
            "on, which leaves no history; they are not trained on"
        )
    step_size = settings.batch_size * settings.gradient_accumulation * PartialState().num_processes
    steps = -(-settings.epochs * source.per_epoch // step_size)
    if settings.max_steps:
        steps = min(steps, settings.max_steps)
    pad = backbone.tokenizer.pad_token_id
    retrieval = None
    if backbone.head is not None:
        retrieval = Retrieval(
            backbone.head, settings.retrieval_weight, settings.negatives, settings.only_head
        )
    ranking = None
    callbacks: list[TrainerCallback] = [ProgressReport(console)]
    if settings.keep_best:
        recommender = Recommender.from_items(backbone, spec, items)
        questions = validation_questions(inputs.split, settings.validation_users, settings.seed)
        ranking = ranking_validation(recommender, questions, exclude_seen=settings.exclude_seen)
        callbacks += [BestKept(f"eval_{NDCG}", settings.patience), BestFollowed()]
    trainer = ScopedTrainer(
        loss=settings.loss,
        gamma=settings.focal_gamma,
        retrieval=retrieval,
        ranking=ranking,
        model=backbone.model,
        args=_arguments(settings, steps, source.per_epoch / step_size),
        train_dataset=SftDataset(source, steps * step_size, step_size, settings.seed),
        eval_dataset=ValidationDataset(source, settings.validation_users, settings.seed),
        data_collator=Collator(
            items.grounding.trie,
            eoi_token_id=backbone.eoi_token_id,
            pad_token_id=backbone.eoi_token_id if pad is None else pad,
            scope=settings.scope,
            retrieves=retrieval is not None,
        ),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(settings: SftSettings, steps: int, steps_per_epoch: float) -> TrainingArguments:
    """The settings of `Trainer`; the dataset is the whole training, so it passes over it once."""

    def every(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch))

    schedules = {"constant": "constant_with_warmup"}
    return TrainingArguments(
        output_dir=str(settings.out / _CHECKPOINTS),
        num_train_epochs=1,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        gradient_checkpointing=settings.gradient_checkpointing,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_ratio * steps),
        lr_scheduler_type=schedules.get(settings.scheduler, settings.scheduler),
        lr_scheduler_kwargs=(
            {"lr_end": settings.learning_rate / 10} if settings.scheduler == "polynomial" else {}
        ),
        weight_decay=settings.weight_decay,
        adam_beta2=settings.adam_beta2,
        max_grad_norm=settings.clip_norm,
        bf16=settings.bf16,
        use_cpu=trains_on_cpu(settings.device),
        eval_strategy="steps" if settings.validate_every else "no",
        eval_steps=every(settings.validate_every) if settings.validate_every else None,
        save_strategy="steps",
        save_steps=(
            every(settings.validate_every)
            if settings.keep_best
            else settings.checkpoint_every or every(1)
        ),
        save_total_limit=2,
        load_best_model_at_end=settings.keep_best,
        metric_for_best_model=NDCG if settings.keep_best else None,
        greater_is_better=True if settings.keep_best else None,
        logging_steps=settings.logging_steps,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        prediction_loss_only=True,
        label_names=[],
        disable_tqdm=True,
        report_to="none",
        seed=settings.seed,
    )


def _spec(settings: SftSettings, semantic_ids: SemanticIds | None) -> ModelSpec:
    base = settings.model
    if settings.model == "tiny" and adapts(settings):
        base = _TINY_BASE
    elif Path(settings.model).is_dir():
        base = os.path.relpath(settings.model, settings.out)
    return ModelSpec(
        base=base,
        method=settings.method,
        item_form="titles" if semantic_ids is None else "codes",
        code_sizes=() if semantic_ids is None else semantic_ids.sizes,
        history_form=settings.shown_history,
        list_form=settings.list_form,
        wording=settings.wording,
        max_history=settings.max_history,
        list_length=settings.list_length,
        max_length=settings.max_length,
    )
