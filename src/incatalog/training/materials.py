"""What supervised training reads and builds before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import PartialState

from incatalog.codes.semantic_ids import SemanticIds, index_files, load_semantic_ids, missing_index
from incatalog.config import ItemForm
from incatalog.data.catalog import Catalog
from incatalog.data.conversations import Conversation, load_conversations
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.model_catalog import unused_names
from incatalog.data.naming import remembered_field
from incatalog.data.prepared import prepared_files
from incatalog.data.vector_blocks import blocks_of
from incatalog.data.vectors import load_vectors
from incatalog.dialogue.templates import TRAIN_WORDINGS
from incatalog.errors import ConfigError, TeacherError
from incatalog.items.aliases import Aliases, load_paraphrases, paraphrase_texts
from incatalog.items.tokens import ControlNames
from incatalog.model.backbone import Backbone, add_codes, create_tiny, load_backbone
from incatalog.model.head import RetrievalHead, vectors_origin
from incatalog.model.lora import add_lora
from incatalog.model.saved import save_backbone
from incatalog.model.tiny import TinyConfig
from incatalog.model.vocabulary import SPREAD, UNTRAINED_SPREAD
from incatalog.teacher.teacher import Teacher
from incatalog.teacher_service.client import is_url, open_teacher
from incatalog.teacher_service.published_teacher import (
    require_known_items,
    require_probabilities,
)
from incatalog.teacher_service.served_teacher import ServedTeacher
from incatalog.training.callbacks import main_console
from incatalog.training.settings import SftSettings

TINY_BASE = "base"
# Said of the same setting before and after `auto` is resolved.
NO_SPANS = ("--loss-on-history", "needs item spans in the prompt; add --history-form span")
# What stands around items and turns, which should be few tokens too.
_FRAME = "user\nassistant\n1 2 3 4 5 6 7 8 9 10 →  → , , 1. 2. 3. 4. 5. 6. 7. 8. 9. 10. "
# The prompts come back in every sample, so their words should be whole tokens of a tiny model.
_PROMPT_REPEATS = 100


@dataclass(frozen=True)
class Materials:
    """What a training reads."""

    catalog: Catalog
    split: LeaveOneOut
    semantic_ids: SemanticIds | None
    teacher: Teacher | None
    conversations: tuple[Conversation, ...]
    paraphrases: tuple[str, ...]


def with_item_form(settings: SftSettings) -> SftSettings:
    """The settings with the item form decided; says so where codes are missing."""
    form: ItemForm = "titles"
    if settings.method == "token" and settings.item_form != "titles":
        form = "codes"
        if missing := missing_index(settings.index_folder):
            if settings.item_form == "codes":
                raise ConfigError(
                    f"--item-form codes: {missing}; make them with `incatalog items assign`"
                )
            form = "titles"
            told = f"{missing}; items are written as their titles, not as codes"
            main_console().print(f"notice: --item-form auto: {told}", style="yellow")
    settings = replace(settings, item_form=form)
    spans, codes = settings.shown_history == "span", form == "codes"
    settings.refuse_first([
        (settings.loss_on_history and not spans, *NO_SPANS),
        (settings.paraphrases is not None and codes and spans,
         "paraphrases", "the history is written in codes; add --history-form title"),
        (settings.align_ratio > 0 and not codes, "align_ratio",
         "teaches what codes mean, and items are written as titles; leave it out, or use "
         "--method token --item-form codes"),
    ])  # fmt: skip
    return settings


def hashed_inputs(settings: SftSettings) -> Mapping[str, str | Path]:
    """Inputs whose contents decide whether a run may be resumed."""
    found = prepared_files(settings.data) | teacher_files(settings.teacher)
    for name in ("chat", "vectors", "paraphrases"):
        if file := getattr(settings, name):
            found[name] = Path(file)
    if settings.item_form == "codes":
        found |= index_files(settings.index_folder)
    if Path(settings.model).is_dir():
        found["model"] = Path(settings.model)
    return found


def teacher_files(location: str) -> dict[str, str | Path]:
    """What stands for the contents of a teacher's folder; nothing for one that is served."""
    if not location or is_url(location):
        return {}
    return {"teacher": Path(location) / "teacher.safetensors"}


def teacher_identity(teacher: Teacher | None) -> Mapping[str, str]:
    """What stands for the contents of a teacher that is served."""
    return {"teacher": teacher.fingerprint} if isinstance(teacher, ServedTeacher) else {}


def read_teacher(location: str, catalog: Catalog, device: str) -> Teacher | None:
    """The teacher that ``--teacher`` names, if it names one; says who answers at an address."""
    if not location:
        return None
    try:
        teacher = open_teacher(location, catalog, device)
    except TeacherError as error:
        raise ConfigError(f"--teacher: {error}") from error
    if isinstance(teacher, ServedTeacher):
        main_console().print(f"--teacher {location}: {teacher.described}")
    return teacher


def read_materials(settings: SftSettings, *, on_cpu: bool) -> Materials:
    """Reads catalog, histories, teacher and general conversations."""
    field = settings.title_field or remembered_field(settings.model)
    catalog = Catalog.load(settings.data, title_field=field)
    if notice := unused_names(catalog.items, field):
        main_console().print(notice, style="yellow", soft_wrap=True)
    split = leave_one_out(Histories.load(settings.data, catalog))
    # Workers are forked, and CUDA does not survive that.
    device = "cpu" if on_cpu or settings.workers else "auto"
    teacher = read_teacher(settings.teacher, catalog, device)
    if teacher is not None:
        require_known_items(teacher, f"--teacher {settings.teacher}", split.histories.rows)
        if settings.distill > 0:
            require_probabilities(teacher, f"--distill {settings.distill:g}")
    conversations = () if settings.chat is None else load_conversations(settings.chat)
    semantic_ids = None
    if settings.item_form == "codes":
        semantic_ids = load_semantic_ids(settings.index_folder, catalog)
        semantic_ids.require_unique()
    names = settings.paraphrases
    paraphrases = () if names is None else paraphrase_texts(names, catalog)
    return Materials(catalog, split, semantic_ids, teacher, conversations, paraphrases)


def read_aliases(settings: SftSettings, backbone: Backbone, catalog: Catalog) -> Aliases:
    """The paraphrases to train on, as this model writes them."""
    if settings.paraphrases is None:
        return Aliases()
    tokenizer, control = backbone.tokenizer, backbone.control
    found = load_paraphrases(settings.paraphrases, catalog, tokenizer, control)
    main_console().print(
        f"{settings.paraphrases}: {len(found.aliases)} paraphrases of {len(found.aliases.of_row)} "
        f"of {len(catalog)} items; left out are {found.repeated} that are a title or an earlier "
        f"paraphrase and {found.unusable} that the tokenizer cannot spell"
    )
    return found.aliases


def build_backbone(settings: SftSettings, inputs: Materials, device: str) -> Backbone:
    """The backbone with control tokens, codes and adapters that is trained."""
    control = ControlNames(settings.soi_token, settings.eoi_token)
    if settings.model == "tiny":
        widths = settings.tiny_vocab, settings.tiny_hidden, settings.tiny_inner
        blocks = settings.tiny_layers, settings.tiny_heads, settings.tiny_dropout
        sizes = TinyConfig(*widths, *blocks, settings.max_length, seed=settings.seed)
        # What the tokenizer learns its words from.
        said = (settings.system,) if settings.system else ()
        asked = (wording.instruction for wording in TRAIN_WORDINGS)
        prompts = [*asked, _FRAME, *said] * _PROMPT_REPEATS
        turns = [turn.text for conversation in inputs.conversations for turn in conversation]
        texts = [*inputs.catalog.names, *inputs.paraphrases, *prompts, *turns]
        backbone = create_tiny(texts, sizes, control)
        backbone.model.set_attn_implementation(settings.attention)
        if settings.adapts and PartialState().is_main_process:
            save_backbone(settings.out / TINY_BASE, backbone)
    else:
        attention, bits = settings.attention, settings.quantization
        backbone = load_backbone(
            settings.model, attention=attention, quantization=bits, device=device, control=control
        )
    config = backbone.model.config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    if longest is not None and settings.max_length > longest:
        raise ConfigError(
            f"--max-length {settings.max_length}: {settings.model} reads {longest} at most"
        )
    if inputs.semantic_ids is not None:
        spread = UNTRAINED_SPREAD if settings.model == "tiny" else SPREAD
        backbone = add_codes(backbone, inputs.semantic_ids.sizes, spread)
    if settings.method == "ret":
        values = load_vectors(settings.vectors, len(inputs.catalog))
        head = RetrievalHead.create(
            config.hidden_size,
            values,
            inner=settings.projection_inner if settings.projection == "mlp" else 0,
            train_vectors=settings.train_item_vectors,
            origin=vectors_origin(settings.vectors),
            blocks=blocks_of(settings.vectors),
            seed=settings.seed,
        )
        backbone = replace(backbone, head=head)
    if settings.adapts:
        return add_lora(
            backbone,
            dropout=settings.lora_dropout,
            **settings.lora(),
            init=settings.lora_init,
            **settings.named("train_embeddings", "train_lm_head", "seed"),
        )
    backbone.model.requires_grad_(not settings.only_head)
    return backbone
