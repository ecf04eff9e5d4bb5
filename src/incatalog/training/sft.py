"""Supervised fine-tuning on recommendation conversations: `incatalog train sft`."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import PartialState
from transformers import TrainerCallback, TrainingArguments

from incatalog.codes.semantic_ids import SemanticIds
from incatalog.config import control_token_problems
from incatalog.devices import trains_on_cpu
from incatalog.dialogue.render import Renderer
from incatalog.dialogue.templates import asking_wording
from incatalog.items.aliases import Aliases
from incatalog.model.saved import check_writable
from incatalog.model.spec import ModelSpec, load_spec, spec_file
from incatalog.recommender.items import ModelItems
from incatalog.recommender.recommender import Recommender
from incatalog.teacher_service.client import is_url
from incatalog.training.alignment import Alignment
from incatalog.training.callbacks import BestKept, ProgressReport, main_console
from incatalog.training.checkpoints import BestFollowed
from incatalog.training.collator import Collator
from incatalog.training.dataset import SftDataset, ValidationDataset
from incatalog.training.general_chat import GeneralChat
from incatalog.training.materials import (
    NO_SPANS,
    TINY_BASE,
    Materials,
    build_backbone,
    hashed_inputs,
    read_aliases,
    read_materials,
    teacher_identity,
    with_item_form,
)
from incatalog.training.retrieval_loss import Retrieval
from incatalog.training.samples import SampleSource
from incatalog.training.settings import SftSettings
from incatalog.training.trackers import check_trackers
from incatalog.training.trainer import ScopedTrainer, plain_forward
from incatalog.training.training_run import TrainedModel, TrainingRun
from incatalog.training.validation import NDCG, ranking_validation, validation_prompts

# Settings that cannot change the weights, so a run may be resumed with others. What a preset says
# stands in the others.
_FREE = ("workers", "logging_steps", "report_to", "checkpoint_every", "preset")


def train_sft(settings: SftSettings) -> Path:
    """Fine-tunes a chat model so that it answers with items of the catalog.

    Killed and started again with the same configuration, it goes on from its newest checkpoint and
    ends with the same weights. With ``keep_best`` these are the ones that rank best, and not the
    last. Under ``accelerate launch`` each process takes ``batch_size`` samples of a step.

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
    PartialState(cpu=on_cpu)
    settings = with_item_form(settings)
    inputs = read_materials(settings, on_cpu=on_cpu)
    hashed, identity = hashed_inputs(settings), teacher_identity(inputs.teacher)
    run = TrainingRun("train sft", settings, inputs=hashed, identities=identity, free_fields=_FREE)
    if run.finished:
        return run.folder
    backbone = build_backbone(settings, inputs, run.device)
    check_writable(backbone)
    spec, codes = model_spec(settings, inputs.semantic_ids), inputs.semantic_ids
    written = backbone.tokenizer, spec.item_form, inputs.catalog, codes
    items = ModelItems.of(*written, control=backbone.control)
    aliases = read_aliases(settings, backbone, items.catalog)
    if aliases and settings.paraphrases_in != "history":
        items = items.with_aliases(aliases)
        spec = replace(spec, aliases=len(aliases))
    model = TrainedModel(backbone, spec, items, codes, settings.index_folder)
    trainer = build_trainer(settings, run, inputs, model, aliases)
    result = run.train(trainer)
    plain_forward(backbone.model)
    best = {}
    if settings.keep_best:
        best = {"best_step": trainer.state.best_global_step, "ndcg_best": trainer.state.best_metric}
    found = _ranked(settings, inputs, model)
    done = {"steps": result.global_step, "loss": result.training_loss}
    return run.finish(model.save, **done, **best, **found)


def _ranked(settings: SftSettings, inputs: Materials, model: TrainedModel) -> dict[str, float]:
    """How well the trained model ranks the validation items, seen items left out by default."""
    if settings.answer_form == "title":
        # Nothing holds its titles to the catalog, so it ranks no items.
        return {}
    model.backbone.model.eval()
    recommender = Recommender(model.backbone, model.spec, model.items)
    prompts = validation_prompts(inputs.split, settings.validation_users, settings.seed)
    return ranking_validation(recommender, prompts, exclude_seen=settings.ranked_unseen)()


def check_config(settings: SftSettings) -> None:
    """Checks what can be checked without loading anything."""
    cuda = settings.device != "cpu" and torch.cuda.is_available()
    method, model, best = settings.method, settings.model, settings.keep_best
    teacher, vectors = settings.teacher, settings.vectors
    chat, paraphrases = settings.chat, settings.paraphrases
    in_answers, quantized = settings.paraphrases_in != "history", settings.quantization != "none"
    settings.refuse_first([
        (settings.loss_on_history and settings.history_form == "title", *NO_SPANS),
        (chat is None and settings.chat_ratio > 0,
         "chat_ratio", "no conversations to mix in; add --chat FILE"),
        (chat is None and settings.multi_round_ratio > 0,
         "multi_round_ratio", "no conversations to take turns from; add --chat FILE"),
        (chat is not None and not chat.is_file(), "chat", "no such file"),
        (not settings.data.is_dir(), "data", "no such folder"),
        (method != "token" and settings.item_form == "codes",
         "item_form", f"--method {method} writes titles; use --method token"),
        (method == "ret" and not vectors, "--vectors",
         "--method ret finds items by their vectors; make them with `incatalog items embed`"),
        (method == "ret" and not Path(vectors).is_file(),
         "vectors", "no such file; make item vectors with `incatalog items embed`"),
        (method != "ret" and bool(vectors),
         "--vectors", f"--method {method} has no use for them; use --method ret"),
        (method != "ret" and (settings.train_item_vectors or settings.only_head),
         "--train-item-vectors, --only-head", "train what --method ret has; add it"),
        (method != "ret" and settings.projection != "linear", "projection",
         f"--method {method} finds no items by hidden states; use --method ret"),
        (settings.only_head and quantized, "--only-head",
         "saves the language model whole, which quantized weights cannot be; "
         "use --quantization none"),
        (settings.only_head and (settings.train_embeddings or settings.train_lm_head),
         "--only-head",
         "leaves the language model as it is; drop --train-embeddings and --train-lm-head"),
        (paraphrases is not None and not paraphrases.is_file(),
         "paraphrases", "no such file; make them with `incatalog rewrite apply`"),
        (paraphrases is None and in_answers,
         "paraphrases_in", "no paraphrases; add --paraphrases FILE"),
        (method != "cgen" and in_answers, "paraphrases_in",
         f"--method {method} does not choose items by their names; use --paraphrases-in history, "
         "or --method cgen"),
        (bool(settings.index) and not Path(settings.index).is_dir(), "index", "no such folder"),
        (bool(teacher) and not is_url(teacher) and not Path(teacher).is_dir(),
         "teacher", "no such folder; fit one with `incatalog teacher fit`"),
        (settings.distill > 0 and not teacher, "--distill",
         "learns from a teacher; add --teacher RUN or URL, or use --distill 0"),
        (settings.scope == "off" and method == "ret", "scope",
         "--method ret finds items by their vectors and is trained on no token of theirs; leave "
         "it out"),
        (settings.scope == "off" and settings.distill > 0, "--distill",
         "trains on distributions over the catalog's continuations, of which --scope off knows "
         "none; use --scope every"),
        (settings.distill > 0 and settings.loss != "plain", "--distill",
         f"trains on distributions, and --loss {settings.loss} weighs the probability of one right "
         "item; use --loss plain"),
        (settings.distill > 0 and settings.negatives > 0, "--distill",
         "trains on a distribution over all items, and --negatives scores some of them; use "
         "--negatives 0"),
        (settings.unseen_only and method != "ret", "--unseen-only",
         f"is about the softmax over all items, which --method {method} has none of; leave it out"),
        (settings.unseen_only and settings.negatives > 0, "--unseen-only",
         "takes items out of the softmax over all, of which --negatives scores some; use "
         "--negatives 0"),
        (settings.unseen_only and settings.candidate_ratio > 0, "--unseen-only",
         "candidates stand before the answer, which chooses from them; use --candidate-ratio 0"),
        (settings.unseen_only and settings.distill > 0, "--unseen-only",
         "--distill expects nothing of what was seen already; leave one of them out"),
        (settings.candidate_ratio > 0 and settings.max_candidates < settings.list_length,
         "max_candidates", f"shorter than --list-length {settings.list_length}; a candidate list "
         "holds the whole answer"),
        (settings.candidate_ratio > 0 and settings.min_candidates > settings.max_candidates,
         "min_candidates", f"longer than --max-candidates {settings.max_candidates}"),
        (settings.tiny_dropout > 0 and model != "tiny", "tiny_dropout",
         f"{model} is not made here; use --model tiny, or --lora-dropout"),
        (best and not settings.validate_every,
         "--keep-best", "chooses by validations; give --validate-every EPOCHS"),
        (best and settings.checkpoint_every > 0, "checkpoint_every",
         "with --keep-best checkpoints come with the validations; use 0"),
        (not best and (settings.patience > 0 or settings.exclude_seen),
         "--patience, --exclude-seen",
         "are about the ranking of validation items; add --keep-best"),
        (quantized and not cuda,
         "quantization", "needs a CUDA device; use --quantization none on the CPU"),
        (quantized and settings.tune == "full",
         "quantization", "quantized weights cannot be trained; use --tune lora"),
        (quantized and model == "tiny",
         "quantization", "a tiny model starts from scratch; use --quantization none"),
        *control_token_problems(settings.soi_token, settings.eoi_token),
    ])  # fmt: skip
    if settings.answer_form == "title":
        _check_plain_titles(settings)
    asking_wording(settings.wording)
    # To go on with other tokens would add these, untrained, beside those that it knows.
    if Path(model).is_dir() and spec_file(model).exists():
        own, given = load_spec(model).control, (settings.soi_token, settings.eoi_token)
        settings.refuse_first([
            (own != given, f"--soi-token {given[0]}, --eoi-token {given[1]}",
             f"{model} was trained with {own.soi} and {own.eoi}; give those"),
        ])  # fmt: skip
    trains_on_cpu(settings.device)
    check_trackers(settings.report_to)


def _check_plain_titles(settings: SftSettings) -> None:
    """Refuses what needs item spans in the answers."""
    told = "--answer-form title"
    settings.refuse_first([
        (settings.method != "cgen", told,
         f"--method {settings.method} writes no titles of its own; use --method cgen"),
        (settings.history_form == "span", told,
         "the model would read control tokens that it never writes; use --history-form title"),
        (settings.distill > 0, told,
         "--distill trains the choices inside item spans, and there are none; use --distill 0"),
        (settings.loss == "focal-items", told,
         "--loss focal-items weighs item spans, and there are none; use --loss plain or focal"),
        (settings.keep_best, told,
         "--keep-best ranks items by what stands in their spans; leave it out"),
        (asking_wording(settings.wording).mentions_control_tokens, "wording",
         "mentions the control tokens, which --answer-form title does without"),
    ])  # fmt: skip


def build_trainer(
    settings: SftSettings,
    run: TrainingRun,
    inputs: Materials,
    model: TrainedModel,
    aliases: Aliases,
) -> ScopedTrainer:
    """The trainer of a run, with all its samples; aliases may stand in prompts alone."""
    backbone, items, split = model.backbone, model.items, inputs.split
    titles, named = items.catalog.titles_t, aliases and model.spec.item_form == "titles"
    spelled = items.spelled(aliases) if named else items.tokens
    renderer = Renderer(backbone.tokenizer, spelled, settings.system)
    console, most = main_console(), settings.max_length
    chat = alignment = None
    if settings.chat is not None and (settings.chat_ratio or settings.multi_round_ratio):
        chat = GeneralChat.fit(inputs.conversations, renderer, most, settings.chat)
        if chat.cut or chat.dropped:
            console.print(
                f"{settings.chat}: of {len(inputs.conversations)} conversations {chat.cut} lost "
                f"their newest exchanges and {chat.dropped} were left out, to fit --max-length "
                f"{most}"
            )
    if settings.align_ratio:
        alignment = Alignment.fit(items.catalog, titles, renderer, backbone.tokenizer, most)
        if alignment.cut:
            console.print(
                f"{settings.data}: {alignment.cut} of {len(titles)} item texts were cut at their "
                f"end, to fit --max-length {most}"
            )
    source = SampleSource(
        split,
        titles,
        items.tokens,
        renderer,
        settings,
        teacher=inputs.teacher,
        chat=chat,
        alignment=alignment,
        aliases=aliases,
    )
    if skipped := len(split) - len(source.users):
        console.print(
            f"{settings.data}: {skipped} of {len(split)} users have a single item to train on, "
            "which leaves no history; they are not trained on"
        )
    if (share := source.listed_share()) is not None:
        console.print(
            f"{settings.teacher}: the items that --distill-items lists have {share:.0%} of the "
            "teacher's probability, all others the rest; --distill-temperature below "
            f"{settings.distill_temperature:g} gives them more"
        )
    step_size = settings.per_step(PartialState().num_processes)
    steps = -(-settings.epochs * source.per_epoch // step_size)
    steps = min(steps, settings.max_steps or steps)
    retrieval = ranking = None
    if (head := backbone.head) is not None:
        weight, negatives = settings.retrieval_weight, settings.negatives
        retrieval = Retrieval(head, weight, negatives, settings.only_head)
    callbacks: list[TrainerCallback] = [ProgressReport(console)]
    count, seed = settings.validation_users, settings.seed
    if settings.keep_best:
        recommender = Recommender(backbone, model.spec, items)
        prompts = validation_prompts(split, count, seed)
        ranking = ranking_validation(recommender, prompts, exclude_seen=settings.exclude_seen)
        callbacks += [BestKept(f"eval_{NDCG}", settings.patience), BestFollowed()]
    pad, eoi = backbone.tokenizer.pad_token_id, backbone.eoi_token_id
    return ScopedTrainer(
        loss=settings.loss,
        gamma=settings.focal_gamma,
        retrieval=retrieval,
        ranking=ranking,
        model=backbone.model,
        args=_arguments(settings, run, steps, source.per_epoch / step_size),
        train_dataset=SftDataset(source, steps * step_size, step_size, seed),
        eval_dataset=ValidationDataset(source, count, seed),
        data_collator=Collator(
            items.grounding.trie,
            eoi_token_id=eoi,
            pad_token_id=eoi if pad is None else pad,
            scope=settings.scope,
            retrieves=retrieval is not None,
            unseen_only=settings.unseen_only,
            alias_ratio=settings.paraphrase_ratio,
        ),
        callbacks=callbacks,
    )


def _arguments(
    settings: SftSettings, run: TrainingRun, steps: int, steps_per_epoch: float
) -> TrainingArguments:
    """The settings of `Trainer`; the dataset is the whole training, so it passes over it once."""

    def every(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch))

    validate = every(settings.validate_every) if settings.validate_every else 0
    schedule, best = {}, settings.keep_best
    if settings.scheduler == "polynomial":
        end = settings.scheduler_end * settings.learning_rate
        schedule = {"lr_end": end, "power": settings.scheduler_power}
    save = validate if best else settings.checkpoint_every or every(1)
    return TrainingArguments(
        **run.arguments(settings, steps=steps, validate=validate, save=save, keep_best=best),
        **settings.named("gradient_checkpointing", "adam_beta2", "seed"),
        num_train_epochs=1,
        adam_epsilon=settings.adam_eps,
        lr_scheduler_kwargs=schedule,
        dataloader_num_workers=settings.workers,
        remove_unused_columns=False,
        prediction_loss_only=True,
        label_names=[],
    )


def model_spec(settings: SftSettings, codes: SemanticIds | None) -> ModelSpec:
    """What the trained model will have to be asked with."""
    base = settings.model
    if settings.model == "tiny" and settings.adapts:
        base = TINY_BASE
    elif Path(settings.model).is_dir():
        base = os.path.relpath(settings.model, settings.out)
    same = ("method", "projection", "answer_form", "list_form", "wording", "system")
    tokens = ("soi_token", "eoi_token")
    sizes = ("max_history", "list_length", "max_length")
    return ModelSpec(
        base=base,
        item_form="titles" if codes is None else "codes",
        code_sizes=() if codes is None else codes.sizes,
        history_form=settings.shown_history,
        **settings.named(*same, *tokens, *sizes),
    )
