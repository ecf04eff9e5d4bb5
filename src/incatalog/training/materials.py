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
from incatalog.data.prepared import prepared_files
from incatalog.data.vectors import load_vectors
from incatalog.dialogue.templates import TRAIN_WORDINGS
from incatalog.errors import ConfigError, TeacherError
from incatalog.items.aliases import Aliases, load_paraphrases, paraphrase_texts
from incatalog.model.backbone import Backbone, add_codes, create_tiny, load_backbone
from incatalog.model.head import RetrievalHead, vectors_origin
from incatalog.model.lora import add_lora
from incatalog.model.saved import save_backbone
from incatalog.model.tiny import TinyConfig
from incatalog.model.vocabulary import SPREAD, UNTRAINED_SPREAD
from incatalog.teacher.teacher import Teacher
from incatalog.teacher_service.client import HttpTeacher, is_url, open_teacher
from incatalog.training.callbacks import main_console
from incatalog.training.settings import SftConfig

_TINY_BASE = "base"


# What stands around items and turns, so that it is few tokens too.
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


def with_item_form(config: SftConfig) -> SftConfig:
    """The configuration with its item form settled; says so where codes were wanted in vain.

    Raises:
        ConfigError: Codes are asked for and there are none, or something else needs them.
        SemanticIdError: There are index files of several data sets.
    """
    form: ItemForm = "titles"
    if config.method == "token" and config.item_form != "titles":
        form = "codes"
        missing = missing_index(_index_folder(config))
        if missing and config.item_form == "codes":
            raise ConfigError(
                f"--item-form codes: {missing}; make them with `incatalog items assign`"
            )
        if missing:
            form = "titles"
            main_console().print(
                f"notice: --item-form auto: {missing}; items are written as their titles, not as "
                "codes",
                style="yellow",
            )
    config = replace(config, item_form=form)
    if config.loss_on_history and config.shown_history != "span":
        raise ConfigError(
            "--loss-on-history: needs item spans in the prompt; add --history-form span"
        )
    if config.paraphrases is not None and form == "codes" and config.shown_history == "span":
        raise ConfigError(
            f"--paraphrases {config.paraphrases}: the history is written in codes; add "
            "--history-form title"
        )
    if config.align_ratio and form != "codes":
        raise ConfigError(
            f"--align-ratio {config.align_ratio}: teaches what codes mean, and items are written "
            "as titles; leave it out, or use --method token --item-form codes"
        )
    return config


def _index_folder(config: SftConfig) -> Path:
    return Path(config.index) if config.index else config.data


def hashed_inputs(config: SftConfig) -> Mapping[str, str | Path]:
    """Inputs whose contents decide whether a run may be resumed."""
    found = prepared_files(config.data)
    if config.teacher and not is_url(config.teacher):
        found["teacher"] = Path(config.teacher) / "teacher.safetensors"
    if config.chat is not None:
        found["chat"] = config.chat
    if config.vectors:
        found["vectors"] = Path(config.vectors)
    if config.paraphrases is not None:
        found["paraphrases"] = config.paraphrases
    if config.item_form == "codes":
        found |= index_files(_index_folder(config))
    if Path(config.model).is_dir():
        found["model"] = Path(config.model)
    return found


def identities(teacher: Teacher | None) -> Mapping[str, str]:
    """What stands for the contents of a teacher that is served."""
    return {"teacher": teacher.fingerprint} if isinstance(teacher, HttpTeacher) else {}


def read_materials(config: SftConfig, *, on_cpu: bool) -> Materials:
    """Reads catalog, histories, teacher and general conversations."""
    catalog = Catalog.load(config.data)
    split = leave_one_out(Histories.load(config.data, catalog))
    teacher = None
    if config.teacher:
        # Workers are forked, and CUDA does not survive that.
        device = "cpu" if on_cpu or config.workers else "auto"
        try:
            teacher = open_teacher(config.teacher, catalog, device)
        except TeacherError as error:
            raise ConfigError(f"--teacher: {error}") from error
    conversations = () if config.chat is None else load_conversations(config.chat)
    semantic_ids = None
    if config.item_form == "codes":
        semantic_ids = load_semantic_ids(_index_folder(config), catalog)
        semantic_ids.require_unique()
    paraphrases: tuple[str, ...] = ()
    if config.paraphrases is not None:
        paraphrases = paraphrase_texts(config.paraphrases, catalog)
    return Materials(catalog, split, semantic_ids, teacher, conversations, paraphrases)


def read_aliases(config: SftConfig, backbone: Backbone, catalog: Catalog) -> Aliases:
    """The paraphrases to train on, as this model writes them."""
    if config.paraphrases is None:
        return Aliases()
    found = load_paraphrases(config.paraphrases, catalog, backbone.tokenizer)
    console = main_console()
    console.print(
        f"{config.paraphrases}: {len(found.aliases)} paraphrases of {len(found.aliases.of_row)} of "
        f"{len(catalog)} items; left out are {found.repeated} that are a title or an earlier "
        f"paraphrase and {found.unusable} that the tokenizer cannot spell"
    )
    return found.aliases


def writes_aliases(config: SftConfig) -> bool:
    """Whether paraphrases are names the model may answer with."""
    return config.paraphrases is not None and config.paraphrases_in != "history"


def build_backbone(
    config: SftConfig, inputs: Materials, *, on_cpu: bool, is_main: bool
) -> Backbone:
    """The backbone with control tokens, codes and adapters that is trained."""
    if config.model == "tiny":
        sizes = TinyConfig(
            vocab_size=config.tiny_vocab,
            hidden=config.tiny_hidden,
            inner=config.tiny_inner,
            layers=config.tiny_layers,
            heads=config.tiny_heads,
            dropout=config.tiny_dropout,
            max_position=config.max_length,
            seed=config.seed,
        )
        backbone = create_tiny(_tiny_texts(inputs), sizes)
        backbone.model.set_attn_implementation(config.attention)
        if adapts(config) and is_main:
            save_backbone(config.out / _TINY_BASE, backbone)
    else:
        # Each process of several takes the device accelerate gives it, when the trainer moves it.
        backbone = load_backbone(
            config.model,
            attention=config.attention,
            quantization=config.quantization,
            device="cpu" if on_cpu else f"cuda:{PartialState().local_process_index}",
        )
    longest = getattr(backbone.model.config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and config.max_length > longest:
        raise ConfigError(
            f"--max-length {config.max_length}: {config.model} reads {longest} at most"
        )
    if inputs.semantic_ids is not None:
        spread = UNTRAINED_SPREAD if config.model == "tiny" else SPREAD
        backbone = add_codes(backbone, inputs.semantic_ids.sizes, spread)
    if config.method == "ret":
        backbone = replace(backbone, head=build_head(config, backbone, len(inputs.catalog)))
    if adapts(config):
        return add_lora(
            backbone,
            r=config.lora_r,
            alpha=config.lora_alpha,
            dropout=config.lora_dropout,
            targets=config.lora_targets,
            train_embeddings=config.train_embeddings,
            train_lm_head=config.train_lm_head,
            seed=config.seed,
        )
    backbone.model.requires_grad_(not config.only_head)
    return backbone


def adapts(config: SftConfig) -> bool:
    """Whether the result is an adapter."""
    return config.tune == "lora" and not config.only_head


def build_head(config: SftConfig, backbone: Backbone, items: int) -> RetrievalHead:
    """An untrained head on the vectors of the catalog."""
    return RetrievalHead.create(
        backbone.model.config.get_text_config().hidden_size,
        load_vectors(config.vectors, items),
        train_vectors=config.train_item_vectors,
        origin=vectors_origin(config.vectors),
        seed=config.seed,
    )


def _tiny_texts(inputs: Materials) -> list[str]:
    """What the tokenizer of a tiny model learns its words from."""
    prompts = [wording.instruction for wording in TRAIN_WORDINGS] + [_FRAME]
    turns = [turn.text for conversation in inputs.conversations for turn in conversation]
    return [*inputs.catalog.titles, *inputs.paraphrases, *prompts * _PROMPT_REPEATS, *turns]
