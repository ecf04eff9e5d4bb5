"""Folders of trained models."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from safetensors import safe_open
from transformers import PreTrainedTokenizerFast

from incatalog.artifacts import read_json, versions, write_json
from incatalog.checksums import verify_checksums
from incatalog.devices import resolve_device
from incatalog.errors import BackboneError, TokenizerError, first_line, require
from incatalog.items.tokens import control_token_ids, tokenizer_fingerprint
from incatalog.model.backbone import Backbone, add_codes, checked, load_backbone, unwrapped
from incatalog.model.head import HEAD_FILE, RetrievalHead
from incatalog.model.pretrained import load_pretrained, loading, named, quiet_libraries
from incatalog.model.spec import SPEC_FILE, ModelSpec, load_spec, spec_file
from incatalog.model.vocabulary import code_token_ids
from incatalog.storage import follow_umask, writing

_ADAPTER_FILE = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"


def check_writable(backbone: Backbone) -> None:
    """Writes what a training will write at its end, except the weights of the model."""
    with TemporaryDirectory(prefix="incatalog-") as folder, _saving("after the training"):
        model = unwrapped(backbone.model)
        # An adapter is merged later, which writes the same.
        if model is not backbone.model:
            backbone.model.save_pretrained(folder, save_embedding_layers=False)
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _saving(place: str | Path) -> Iterator[None]:
    """Turns what the libraries raise into one line, and keeps them quiet."""
    try:
        with quiet_libraries():
            yield
    # Settings, shared tensors, quantized weights, tokenizers: each is refused in its own way.
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise BackboneError(
            f"{place}: cannot save the model: {first_line(error)}; mend the model it comes from"
        ) from error


def save_model(folder: str | Path, backbone: Backbone, spec: ModelSpec) -> None:
    """Writes a trained model; `incatalog.json` comes last and marks the folder as complete.

    An adapter needs `spec.base` to be loaded again: a folder may be given as seen from `folder` or
    from the working directory.
    """
    folder = Path(folder)
    spec_file(folder).unlink(missing_ok=True)
    save_backbone(folder, backbone)
    if backbone.head is not None:
        backbone.head.save(folder)
    base = spec.base
    if (folder / base).is_dir():
        base = base if base.startswith((".", "/")) else f"./{base}"
    elif Path(base).is_dir():
        base = str(Path(base).resolve())
    soi, eoi = backbone.control
    save_spec(folder, replace(spec, base=base, soi_token=soi, eoi_token=eoi), backbone.tokenizer)


def save_spec(folder: Path, spec: ModelSpec, tokenizer: PreTrainedTokenizerFast) -> None:
    """Writes `incatalog.json`, of a model with this tokenizer."""
    own = tokenizer_fingerprint(tokenizer)
    write_json(
        folder / SPEC_FILE, asdict(replace(spec, tokenizer_fingerprint=own, versions=versions()))
    )


def is_adapter(folder: str | Path) -> bool:
    """Whether a folder holds an adapter, and not a whole model."""
    return (Path(folder) / _ADAPTER_FILE).exists()


def load_model(
    folder: str | Path,
    device: str = "auto",
    *,
    attention: str = "sdpa",
    dtype: torch.dtype | None = None,  # By default float32 on the CPU and bfloat16 elsewhere
    merge_adapter: bool = True,  # In memory, to answer faster
    verify: bool = True,
) -> tuple[Backbone, ModelSpec]:
    """Loads what `save_model` wrote, in evaluation mode; an adapter with its base."""
    folder = Path(folder)
    if verify:
        verify_checksums(folder)
    spec = load_spec(folder)
    target = resolve_device(device)
    if dtype is None:
        dtype = torch.float32 if target.type == "cpu" else torch.bfloat16
    adapted = is_adapter(folder)
    source: str | Path = folder
    if adapted:
        source = folder / spec.base if spec.base.startswith(".") else spec.base
        # A base inside the folder is among the files of the folder.
        verify = verify and not Path(source).resolve().is_relative_to(folder.resolve())
        backbone = load_backbone(
            source,
            attention=attention,
            dtype=dtype,
            device=device,
            verify=verify,
            control=spec.control,
        )
        sizes = spec.code_sizes
        if codes := code_token_ids(backbone.tokenizer, sizes):
            backbone = replace(backbone, code_token_ids=codes)
        elif sizes:
            backbone = add_codes(backbone, sizes)
    else:
        model, tokenizer = load_pretrained(
            folder, target, attention=attention, dtype=dtype, strict=True
        )
        # Never added here: a trained row that got lost must not come back untrained.
        codes = code_token_ids(tokenizer, spec.code_sizes)
        found = Backbone(model, tokenizer, *control_token_ids(tokenizer, spec.control), codes)
        backbone = checked(found, str(folder))
    if tokenizer_fingerprint(backbone.tokenizer) != spec.tokenizer_fingerprint:
        raise TokenizerError(
            f"{source}: its tokenizer is not the one that {spec_file(folder)} was written with; "
            "restore it or train the model again"
        )
    if adapted:
        model = _with_adapter(backbone.model, folder, merged=merge_adapter)
        backbone = replace(backbone, model=model.eval().requires_grad_(False))
    if spec.method == "ret":
        head = RetrievalHead.load(folder, target)
        hidden = backbone.model.config.get_text_config().hidden_size
        if head.kind != spec.projection:
            raise BackboneError(
                f"{folder / HEAD_FILE}: its projection is {head.kind}, and {spec_file(folder)} "
                f"says {spec.projection}; they are of two trainings; restore them or train again"
            )
        if head.hidden != hidden:
            raise BackboneError(
                f"{folder / HEAD_FILE}: reads {head.hidden} numbers a token, and "
                f"the model has {hidden}; it is that of another model; restore it or train again"
            )
        backbone = replace(backbone, head=head)
    return backbone, spec


def _with_adapter(model: Any, folder: Path, *, merged: bool) -> Any:
    """The model with an adapter, all of whose weights are in its file; peft only warns."""
    peft = require("peft", extra="train")
    path = folder / _ADAPTER_WEIGHTS
    if not path.exists():
        raise BackboneError(f"{path}: no such file; copy or train the adapter again")
    with loading(folder, _ADAPTER_WEIGHTS), safe_open(path, framework="pt") as file:
        found = set(file.keys())
    with loading(folder, _ADAPTER_FILE), warnings.catch_warnings(action="ignore"):
        described = read_json(folder / _ADAPTER_FILE)
        for name in ("r", "lora_alpha", "lora_dropout"):
            if type(described.get(name)) not in (int, float):
                raise BackboneError(
                    f"{folder / _ADAPTER_FILE}: {name}: found {described.get(name)!r}; expected a "
                    "number; copy or train the adapter again"
                )
        try:
            adapted = peft.PeftModel.from_pretrained(model, folder)
        except KeyError as error:
            # The rows of new tokens are looked up, where other weights are passed over.
            _check_adapter(path, missing={str(name) for name in error.args} - found)
            raise
        # As `save_backbone` writes it.
        expected = set(peft.get_peft_model_state_dict(adapted, save_embedding_layers=False))
        _check_adapter(path, missing=expected - found, unexpected=found - expected)
        return adapted.merge_and_unload(safe_merge=True) if merged else adapted


def _check_adapter(path: Path, missing: set[str], unexpected: Collection[str] = ()) -> None:
    for wrong, what in ((missing, "misses"), (unexpected, "has no place for")):
        if wrong:
            raise BackboneError(
                f"{path}: {what} the weights {named(wrong)}; expected those that {_ADAPTER_FILE} "
                "describes; copy or train it again"
            )


def save_backbone(folder: str | Path, backbone: Backbone) -> None:
    """Writes model (or adapter) and tokenizer in Hugging Face's format."""
    folder = Path(folder)
    with _saving(folder), writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if unwrapped(backbone.model) is not backbone.model:
            # By default peft would look on the hub whether the vocabulary has grown.
            backbone.model.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        else:
            backbone.model.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)
        follow_umask(folder, "*.safetensors")
