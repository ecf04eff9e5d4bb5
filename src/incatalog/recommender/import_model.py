"""`incatalog model import`: a chat model that was trained on a catalog elsewhere."""

from __future__ import annotations

import difflib
import shutil
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from transformers import AutoConfig, AutoTokenizer

from incatalog.artifacts import atomic_path, open_run
from incatalog.codes.semantic_ids import (
    SemanticIds,
    code_names,
    index_files,
    index_name,
    load_semantic_ids,
    missing_index,
)
from incatalog.config import control_token_problems
from incatalog.data.catalog import Catalog
from incatalog.data.prepared import catalog_files
from incatalog.devices import resolve_device
from incatalog.dialogue.templates import asking_wording
from incatalog.errors import BackboneError, ConfigError, TokenizerError
from incatalog.items.tokens import ControlNames, control_token_ids, tokenizer_fingerprint
from incatalog.model.backbone import Backbone, checked
from incatalog.model.hub import with_model_here
from incatalog.model.pretrained import load_pretrained, loading
from incatalog.model.saved import save_spec
from incatalog.model.spec import ModelSpec, spec_file
from incatalog.model.vocabulary import (
    check_control_names,
    code_sizes_of,
    code_token_ids,
    mark_special,
)
from incatalog.packed.model import PackedModel
from incatalog.recommender.items import ModelItems
from incatalog.recommender.model_card import write_card
from incatalog.recommender.recommender import Recommender
from incatalog.recommender.settings import ModelImportSettings
from incatalog.storage import writing

_ADAPTER = "adapter_config.json"
_WEIGHTS = "model*.safetensors"
# What transformers writes of a model and its tokenizer; all else in the folder stays there.
_COPIED = (
    "config.json",
    "generation_config.json",
    "model*.safetensors*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "chat_template.*",
    "additional_chat_templates/*",
)


def import_model(settings: ModelImportSettings) -> Path:
    """Describes a merged Hugging Face folder, so that all commands take it.

    The folder is checked by what it is for: each item is written with its vocabulary, and it is
    asked once. Its files are copied as they are; the tokenizer is written anew only where control
    or code tokens are no special tokens yet. ``incatalog.json`` comes last and marks the folder as
    complete.

    Returns:
        ``settings.out``: what `incatalog train sft` would have written.

    Raises:
        ConfigError: A setting cannot work.
        BackboneError: The folder is no whole model, or has no rows for some of its tokens.
        TokenizerError: Its vocabulary lacks a control token, or the token of a code.
        DataError: The data is no catalog, or the tokenizer cannot spell the title of an item.
        SemanticIdError: The index files are missing, broken or not those of the catalog.
        ArtifactError: ``settings.out`` holds something else.
    """
    settings = with_model_here(settings)
    _check(settings)
    catalog = Catalog.load(settings.data, title_field=settings.title_field or None)
    codes, files = None, catalog_files(settings.data)
    if settings.method == "token":
        codes = load_semantic_ids(settings.index_folder, catalog)
        codes.require_unique()
        files |= index_files(settings.index_folder)
    files |= {f"model/{path.name}": path for path in _model_files(settings.model)}
    out, free = settings.out, ("device",)
    opened = partial(open_run, out, "model import", settings, inputs=files, free_fields=free)
    # A new folder is made when all is well, so that other flags may follow those that are refused.
    new = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    if not new and opened().finished:
        return out
    backbone, codes, marked = _load(settings, codes)
    spec = _spec(settings, codes)
    items = ModelItems.of(
        backbone.tokenizer, spec.item_form, catalog, codes, control=backbone.control
    )
    recommender = Recommender(
        backbone, spec, items, packed=PackedModel(backbone.model, frozen=False)
    )
    # What its layers or its template cannot do shows here, and not when somebody asks.
    recommender.recommend([catalog.items[0].item_id], k=1, exclude_seen=False)
    run = opened()
    spec_file(out).unlink(missing_ok=True)
    _write(settings, recommender, codes, marked=marked)
    run.finish()
    _report(settings, catalog, recommender)
    return out


def _check(settings: ModelImportSettings) -> None:
    """Checks what can be checked without loading anything."""
    folder, index = settings.model, settings.index
    described, coded = spec_file(folder), settings.method == "token"
    lacking = missing_index(settings.index_folder) if coded else ""
    settings.refuse_first([
        (not folder.is_dir(), "model", "no such folder; expected a Hugging Face folder"),
        (described.is_file(), "model",
         f"holds {described.name}, so all commands take it as it is"),
        ((folder / _ADAPTER).is_file(), "model",
         "is an adapter; merge it first with the merge_and_unload of peft"),
        (not any(folder.glob(_WEIGHTS)), "model",
         f"holds no {_WEIGHTS}; save the model with save_pretrained of transformers"),
        (not settings.data.is_dir(), "data", "no such folder"),
        (not coded and bool(index), "index", "--method cgen writes titles; leave it out"),
        (bool(index) and not Path(index).is_dir(), "index", "no such folder"),
        (bool(lacking), "--method token", f"{lacking}; expected those the model was trained with"),
        (settings.out.resolve() == folder.resolve(), "out", "is the model; name another folder"),
        *control_token_problems(settings.soi_token, settings.eoi_token),
    ])  # fmt: skip
    asking_wording(settings.wording)


def _model_files(folder: Path) -> list[Path]:
    return sorted(path for pattern in _COPIED for path in folder.glob(pattern) if path.is_file())


def _load(
    settings: ModelImportSettings, codes: SemanticIds | None
) -> tuple[Backbone, SemanticIds | None, bool]:
    """The model, the codes with all that its vocabulary has, and whether tokens became special."""
    folder, target = settings.model, resolve_device(settings.device)
    with loading(folder, "config.json"):
        config = AutoConfig.from_pretrained(folder)
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    if longest is not None and settings.max_length > longest:
        raise ConfigError(f"--max-length {settings.max_length}: {folder} reads {longest} at most")
    # In float32 a large model would take twice the memory, for a look at it.
    dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    model, tokenizer = load_pretrained(folder, target, attention="sdpa", dtype=dtype, strict=True)
    control, known = ControlNames(settings.soi_token, settings.eoi_token), tokenizer.get_vocab()
    for flag, token in (("--soi-token", control.soi), ("--eoi-token", control.eoi)):
        if token not in known:
            near = difflib.get_close_matches(token, tokenizer.get_added_vocab(), 2, 0.7)
            alike = f" (near: {', '.join(near)})" if near else ""
            raise TokenizerError(
                f"{flag} {token}: not in the vocabulary of {folder}{alike}; name the token that "
                "the model was trained with"
            )
    used: list[str] = []
    if codes is not None:
        for row in range(len(codes)):
            for token in codes.tokens(row):
                if token not in known:
                    raise TokenizerError(
                        f"--index {settings.index_folder}: item row {row} has the code {token}, "
                        f"which is not in the vocabulary of {folder}; give the index files that "
                        "the model was trained with"
                    )
        codes = SemanticIds(codes.codes, code_sizes_of(tokenizer, codes.sizes))
        used = [token for token in code_names(codes.sizes) if token in known]
    marked = mark_special(tokenizer, [*control, *used])
    check_control_names(tokenizer, control)
    of_codes = code_token_ids(tokenizer, () if codes is None else codes.sizes)
    found = Backbone(model, tokenizer, *control_token_ids(tokenizer, control), of_codes)
    return checked(found, str(folder)), codes, marked


def _spec(settings: ModelImportSettings, codes: SemanticIds | None) -> ModelSpec:
    form = settings.history_form
    if form == "auto":
        form = "title" if codes is None else "span"
    same = ("method", "list_form", "wording", "system", "soi_token", "eoi_token")
    return ModelSpec(
        base=str(settings.model),
        item_form="titles" if codes is None else "codes",
        code_sizes=() if codes is None else codes.sizes,
        history_form=form,
        **settings.named(*same, "max_history", "list_length", "max_length"),
    )


def _write(
    settings: ModelImportSettings,
    recommender: Recommender,
    codes: SemanticIds | None,
    *,
    marked: bool,
) -> None:
    out, tokenizer, catalog = settings.out, recommender.backbone.tokenizer, recommender.catalog
    for file in _model_files(settings.model):
        with atomic_path(out / file.relative_to(settings.model)) as unfinished:
            shutil.copyfile(file, unfinished)
    if marked:
        with writing(out):
            tokenizer.save_pretrained(out)
    catalog.save(out)
    if codes is not None:
        codes.save(out, index_name(settings.index_folder) or catalog.name, catalog)
    with loading(out, "tokenizer.json or tokenizer_config.json"):
        again = AutoTokenizer.from_pretrained(out)
    if tokenizer_fingerprint(again) != tokenizer_fingerprint(tokenizer):
        raise BackboneError(
            f"{settings.model}: its tokenizer is another one when it was saved and loaded again; "
            "save it anew with save_pretrained, and import that"
        )
    save_spec(out, recommender.spec, tokenizer)
    write_card(out)


def _report(settings: ModelImportSettings, catalog: Catalog, recommender: Recommender) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    spec, written = recommender.spec, recommender.catalog.titles_t
    what = f"{spec.method} model, {len(catalog)} items, asked with {spec.wording}"
    console.print(f"{settings.out}: {what}", markup=False)
    pairs = zip(catalog.titles, written, strict=True)
    changed = [(title, own) for title, own in pairs if title != own]
    if changed and "titles" in (spec.item_form, f"{spec.history_form}s"):
        title, own = changed[0]
        console.print(
            f"notice: {len(changed)} of {len(written)} titles are not written as they stand in "
            f"{settings.data}, such as {title!r} as {own!r}; a model that was trained on others "
            "has not seen these",
            style="yellow",
            markup=False,
        )
