"""Supervised fine-tuning on recommendation conversations: `incatalog train sft`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
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
from incatalog.data.catalog import Catalog
from incatalog.devices import trains_on_cpu
from incatalog.dialogue.render import Renderer
from incatalog.dialogue.templates import wording_named
from incatalog.errors import ConfigError
from incatalog.items.aliases import Aliases
from incatalog.items.titles import canonical_titles
from incatalog.items.tokens import ItemTokens
from incatalog.model.backbone import Backbone
from incatalog.model.saved import check_writable, save_model
from incatalog.model.spec import ModelSpec
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
from incatalog.training.settings import SftConfig
from incatalog.training.trainer import ScopedTrainer, plain_forward
from incatalog.training.validation import NDCG, ranking_validation, validation_questions

_STAGE = "train sft"
_CHECKPOINTS = "checkpoints"
# Settings that cannot change the weights, so a run may be resumed with others.
_FREE_FIELDS = ("workers", "logging_steps", "checkpoint_every")


def train_sft(config: SftConfig) -> Path:
    """Fine-tunes a chat model so that it answers with items of the catalog.

    Killed and started again with the same configuration, it goes on from its newest checkpoint and
    ends with the same weights. With ``keep_best`` these are the ones that rank best, and not the
    last. Under ``accelerate launch`` each process takes ``batch_size``
    samples of a step.

    Returns:
        ``config.out``: after full tuning a folder to recommend with; after LoRA an adapter, to be
        merged by ``incatalog train merge``. Both hold the catalog, with the titles it writes.

    Raises:
        ConfigError: Settings contradict one another, or name something that is not there; raised
            before anything is loaded.
        DataError: The data cannot be trained on.
        ArtifactError: The run folder holds something else.
    """
    check_config(config)
    on_cpu = trains_on_cpu(config.device)
    processes = PartialState(cpu=on_cpu)
    config = with_item_form(config)
    inputs = read_materials(config, on_cpu=on_cpu)
    with processes.main_process_first():
        run = open_run(
            config.out,
            _STAGE,
            config,
            inputs=hashed_inputs(config),
            identities=identities(inputs.teacher),
            free_fields=_FREE_FIELDS,
            processes=processes.num_processes,
        )
    checkpoints = config.out / _CHECKPOINTS
    if run.finished:
        if processes.is_main_process:
            # Of a run that was killed just behind its end.
            shutil.rmtree(checkpoints, ignore_errors=True)
        return config.out
    set_seed(config.seed)
    backbone = build_backbone(config, inputs, on_cpu=on_cpu, is_main=processes.is_main_process)
    check_writable(backbone)
    catalog = inputs.catalog.with_titles_t(canonical_titles(inputs.catalog, backbone.tokenizer))
    if processes.is_main_process:
        remove_unusable(checkpoints, main_console())
    processes.wait_for_everyone()
    newest = newest_checkpoint(checkpoints)
    aliases = read_aliases(config, backbone, catalog)
    trainer = _trainer(config, inputs, backbone, catalog, aliases)
    if processes.is_main_process:
        trainer.add_callback(tensorboard(config.out, after=checkpoint_step(newest)))
    result = trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    plain_forward(backbone.model)
    if processes.is_main_process:
        catalog.save(config.out)
        if inputs.semantic_ids is not None:
            name = index_name(_index_folder(config)) or catalog.name
            inputs.semantic_ids.save(config.out, name, catalog)
        written = aliases if writes_aliases(config) else Aliases()
        if written:
            written.save(config.out, catalog)
        spec = replace(_spec(config, inputs.semantic_ids), aliases=len(written))
        save_model(config.out, backbone, spec)
        run.finish(steps=result.global_step, loss=result.training_loss, **_best(trainer, config))
        shutil.rmtree(checkpoints, ignore_errors=True)
    processes.wait_for_everyone()
    return config.out


def _best(trainer: ScopedTrainer, config: SftConfig) -> dict[str, float]:
    """Which step's weights are kept, and how well they rank."""
    if not config.keep_best:
        return {}
    return {"best_step": trainer.state.best_global_step, "ndcg_best": trainer.state.best_metric}


def check_config(config: SftConfig) -> None:
    """Checks what can be checked without loading anything.

    Raises:
        ConfigError: Names the flag.
    """
    needs = [
        (config.loss_on_history and config.history_form == "title",
         "--loss-on-history: needs item spans in the prompt; add --history-form span"),
        (config.chat is None and config.chat_ratio > 0,
         f"--chat-ratio {config.chat_ratio}: no conversations to mix in; add --chat FILE"),
        (config.chat is None and config.multi_round_ratio > 0,
         f"--multi-round-ratio {config.multi_round_ratio}: no conversations to take turns from; "
         "add --chat FILE"),
        (config.chat is not None and not config.chat.is_file(),
         f"--chat {config.chat}: no such file"),
        (not config.data.is_dir(), f"--data {config.data}: no such folder"),
        (config.method != "token" and config.item_form == "codes",
         f"--item-form codes: --method {config.method} writes titles; use --method token"),
        (config.method == "ret" and not config.vectors,
         "--vectors: --method ret finds items by their vectors; make them with "
         "`incatalog items embed`"),
        (config.method == "ret" and not Path(config.vectors).is_file(),
         f"--vectors {config.vectors}: no such file; "
         "make item vectors with `incatalog items embed`"),
        (config.method != "ret" and bool(config.vectors),
         f"--vectors: --method {config.method} has no use for them; use --method ret"),
        (config.method != "ret" and (config.train_item_vectors or config.only_head),
         "--train-item-vectors, --only-head: train what --method ret has; add it"),
        (config.only_head and config.quantization != "none",
         "--only-head: saves the language model whole, which quantized weights cannot be; "
         "use --quantization none"),
        (config.only_head and (config.train_embeddings or config.train_lm_head),
         "--only-head: leaves the language model as it is; drop --train-embeddings and "
         "--train-lm-head"),
        (config.paraphrases is not None and not config.paraphrases.is_file(),
         f"--paraphrases {config.paraphrases}: no such file; "
         "make them with `incatalog rewrite apply`"),
        (config.paraphrases is None and config.paraphrases_in != "history",
         f"--paraphrases-in {config.paraphrases_in}: no paraphrases; add --paraphrases FILE"),
        (config.method != "cgen" and config.paraphrases_in != "history",
         f"--paraphrases-in {config.paraphrases_in}: --method {config.method} does not choose "
         "items by their names; use --paraphrases-in history, or --method cgen"),
        (bool(config.index) and not Path(config.index).is_dir(),
         f"--index {config.index}: no such folder"),
        (bool(config.teacher) and not is_url(config.teacher) and not Path(config.teacher).is_dir(),
         f"--teacher {config.teacher}: no such folder; fit one with `incatalog teacher fit`"),
        (config.candidate_ratio > 0 and config.max_candidates < config.list_length,
         f"--max-candidates {config.max_candidates}: shorter than --list-length "
         f"{config.list_length}; a candidate list holds the whole answer"),
        (config.tiny_dropout > 0 and config.model != "tiny",
         f"--tiny-dropout {config.tiny_dropout}: {config.model} is not made here; use --model "
         "tiny, or --lora-dropout"),
        (config.keep_best and not config.validate_every,
         "--keep-best: chooses by validations; give --validate-every EPOCHS"),
        (config.keep_best and config.checkpoint_every > 0,
         f"--checkpoint-every {config.checkpoint_every}: with --keep-best checkpoints come with "
         "the validations; use 0"),
        (not config.keep_best and (config.patience > 0 or config.exclude_seen),
         "--patience, --exclude-seen: are about the ranking of validation items; add --keep-best"),
        (config.quantization != "none" and not _cuda(config),
         f"--quantization {config.quantization}: needs a CUDA device; "
         "use --quantization none on the CPU"),
        (config.quantization != "none" and config.tune == "full",
         f"--quantization {config.quantization}: quantized weights cannot be trained; "
         "use --tune lora"),
        (config.quantization != "none" and config.model == "tiny",
         f"--quantization {config.quantization}: a tiny model starts from scratch; "
         "use --quantization none"),
    ]  # fmt: skip
    for wrong, message in needs:
        if wrong:
            raise ConfigError(message)
    for name in ("chat_ratio", "align_ratio", "focal_gamma", "weight_decay", "clip_norm"):
        _check_range(config, name, low=0.0)
    for name in (
        "multi_round_ratio", "candidate_ratio", "warmup_ratio", "paraphrase_ratio",
        "history_dropout", "tiny_dropout",
    ):  # fmt: skip
        _check_range(config, name, low=0.0, high=1.0)
    for name in (
        "negatives", "max_steps", "validate_every", "patience", "checkpoint_every", "workers",
        "seed",
    ):  # fmt: skip
        _check_range(config, name, low=0)
    for name in (
        "max_history", "list_length", "max_length", "epochs", "batch_size", "validation_users",
        "gradient_accumulation", "logging_steps", "lora_r",
    ):  # fmt: skip
        _check_range(config, name, low=1)
    if wording_named(config.wording).offers_candidates:
        raise ConfigError(f"--wording {config.wording}: offers candidates, which nobody gives it")
    if not 0 <= config.adam_beta2 < 1:
        raise ConfigError(f"--adam-beta2 {config.adam_beta2}: expected at least 0 and less than 1")
    if not config.retrieval_weight > 0:
        raise ConfigError(
            f"--retrieval-weight {config.retrieval_weight}: expected a positive number"
        )
    if not config.learning_rate > 0:
        raise ConfigError(f"--learning-rate {config.learning_rate}: expected a positive number")
    trains_on_cpu(config.device)


def _check_range(config: SftConfig, name: str, low: float, high: float | None = None) -> None:
    value = getattr(config, name)
    if value < low or (high is not None and value > high):
        wanted = f"at least {low}" if high is None else f"{low} to {high}"
        raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {wanted}")


def _cuda(config: SftConfig) -> bool:
    return config.device != "cpu" and torch.cuda.is_available()


def _trainer(
    config: SftConfig, inputs: Materials, backbone: Backbone, catalog: Catalog, aliases: Aliases
) -> ScopedTrainer:
    console = main_console()
    titles = [item.title_t or item.title for item in catalog.items]
    item_tokens = (
        ItemTokens.from_titles(titles, backbone.tokenizer)
        if inputs.semantic_ids is None
        else ItemTokens.from_codes(inputs.semantic_ids, backbone.tokenizer)
    )
    spelled = item_tokens
    if aliases and inputs.semantic_ids is None:
        spelled = item_tokens.joined(ItemTokens.from_titles(aliases.texts, backbone.tokenizer))
    renderer = Renderer(backbone.tokenizer, spelled)
    chat = None
    if config.chat is not None and (config.chat_ratio > 0 or config.multi_round_ratio > 0):
        chat = GeneralChat.fit(inputs.conversations, renderer, config.max_length, config.chat)
        if chat.cut or chat.dropped:
            console.print(
                f"{config.chat}: of {len(inputs.conversations)} conversations {chat.cut} lost "
                f"their newest exchanges and {chat.dropped} were left out, to fit --max-length "
                f"{config.max_length}"
            )
    alignment = None
    if config.align_ratio > 0:
        alignment = Alignment.fit(catalog, titles, renderer, backbone.tokenizer, config.max_length)
        if alignment.cut:
            console.print(
                f"{config.data}: {alignment.cut} of {len(catalog)} item texts were cut at their "
                f"end, to fit --max-length {config.max_length}"
            )
    source = SampleSource(
        inputs.split,
        titles,
        item_tokens,
        renderer,
        config,
        teacher=inputs.teacher,
        chat=chat,
        alignment=alignment,
        aliases=aliases,
    )
    skipped = len(inputs.split) - len(source.users)
    if skipped:
        console.print(
            f"{config.data}: {skipped} of {len(inputs.split)} users have a single item to train "
            "on, which leaves no history; they are not trained on"
        )
    trie = item_tokens.trie()
    if writes_aliases(config):
        trie = spelled.trie(aliases.items(len(catalog)))
    step_size = config.batch_size * config.gradient_accumulation * PartialState().num_processes
    steps = -(-config.epochs * source.per_epoch // step_size)
    if config.max_steps:
        steps = min(steps, config.max_steps)
    pad = backbone.tokenizer.pad_token_id
    retrieval = None
    if backbone.head is not None:
        retrieval = Retrieval(
            backbone.head, config.retrieval_weight, config.negatives, config.only_head
        )
    ranking = None
    callbacks: list[TrainerCallback] = [ProgressReport(console)]
    if config.keep_best:
        written = aliases if writes_aliases(config) else None
        ranking = _ranking(config, inputs, backbone, catalog, written)
        callbacks += [BestKept(f"eval_{NDCG}", config.patience), BestFollowed()]
    trainer = ScopedTrainer(
        loss=config.loss,
        gamma=config.focal_gamma,
        retrieval=retrieval,
        ranking=ranking,
        model=backbone.model,
        args=_arguments(config, steps, source.per_epoch / step_size),
        train_dataset=SftDataset(source, steps * step_size, step_size, config.seed),
        eval_dataset=ValidationDataset(source, config.validation_users, config.seed),
        data_collator=Collator(
            trie,
            eoi_token_id=backbone.eoi_token_id,
            pad_token_id=backbone.eoi_token_id if pad is None else pad,
            scope=config.scope,
            retrieves=retrieval is not None,
        ),
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _ranking(
    config: SftConfig,
    inputs: Materials,
    backbone: Backbone,
    catalog: Catalog,
    aliases: Aliases | None,
) -> Callable[[], Mapping[str, float]]:
    """Ranks the validation items with the model in training."""
    spec = _spec(config, inputs.semantic_ids)
    recommender = Recommender(backbone, spec, catalog, inputs.semantic_ids, aliases)
    questions = validation_questions(inputs.split, config.validation_users, config.seed)
    return ranking_validation(recommender, questions, exclude_seen=config.exclude_seen)


def _arguments(config: SftConfig, steps: int, steps_per_epoch: float) -> TrainingArguments:
    """The settings of `Trainer`; the dataset is the whole training, so it passes over it once."""

    def every(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch))

    schedules = {"constant": "constant_with_warmup"}
    return TrainingArguments(
        output_dir=str(config.out / _CHECKPOINTS),
        num_train_epochs=1,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation,
        gradient_checkpointing=config.gradient_checkpointing,
        learning_rate=config.learning_rate,
        warmup_steps=round(config.warmup_ratio * steps),
        lr_scheduler_type=schedules.get(config.scheduler, config.scheduler),
        lr_scheduler_kwargs=(
            {"lr_end": config.learning_rate / 10} if config.scheduler == "polynomial" else {}
        ),
        weight_decay=config.weight_decay,
        adam_beta2=config.adam_beta2,
        max_grad_norm=config.clip_norm,
        bf16=config.bf16,
        use_cpu=trains_on_cpu(config.device),
        eval_strategy="steps" if config.validate_every else "no",
        eval_steps=every(config.validate_every) if config.validate_every else None,
        save_strategy="steps",
        save_steps=(
            every(config.validate_every)
            if config.keep_best
            else config.checkpoint_every or every(1)
        ),
        save_total_limit=2,
        load_best_model_at_end=config.keep_best,
        metric_for_best_model=NDCG if config.keep_best else None,
        greater_is_better=True if config.keep_best else None,
        logging_steps=config.logging_steps,
        dataloader_num_workers=config.workers,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        prediction_loss_only=True,
        label_names=[],
        disable_tqdm=True,
        report_to="none",
        seed=config.seed,
    )


def _spec(config: SftConfig, semantic_ids: SemanticIds | None) -> ModelSpec:
    base = config.model
    if config.model == "tiny" and adapts(config):
        base = _TINY_BASE
    elif Path(config.model).is_dir():
        base = os.path.relpath(config.model, config.out)
    return ModelSpec(
        base=base,
        method=config.method,
        item_form="titles" if semantic_ids is None else "codes",
        code_sizes=() if semantic_ids is None else semantic_ids.sizes,
        history_form=config.shown_history,
        list_form=config.list_form,
        wording=config.wording,
        max_history=config.max_history,
        list_length=config.list_length,
        max_length=config.max_length,
    )
