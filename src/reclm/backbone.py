"""The language model under a recommender: create, load, adapt, save and merge it."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float
from safetensors import safe_open
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from reclm.artifacts import atomic_path, open_run, read_json, versions, write_json
from reclm.checksums import verify_checksums
from reclm.config import MergeConfig
from reclm.devices import resolve_device
from reclm.errors import (
    ArtifactError,
    BackboneError,
    ConfigError,
    TokenizerError,
    first_line,
    require,
)
from reclm.items.aliases import ALIASES
from reclm.items.semantic_ids import INDEX, ITEM2ID, code_names
from reclm.items.tokens import EOI, SOI, control_token_ids, tokenizer_fingerprint
from reclm.pretrained import (
    load_pretrained,
    loading,
    named,
    smollm2,
    source_of,
)
from reclm.retrieval import HEAD_FILE, RetrievalHead
from reclm.spec import SPEC_FILE, ModelSpec, load_spec
from reclm.storage import follow_umask, writing
from reclm.tiny import TinyConfig, create_tiny_model, train_tokenizer
from reclm.vocabulary import (
    SPREAD,
    add_code_tokens,
    add_special_tokens,
    check_own_ids,
    code_token_ids,
    is_tied,
)

__all__ = [
    "SPEC_FILE",
    "Backbone",
    "ModelSpec",
    "TinyConfig",
    "add_codes",
    "add_lora",
    "base_model",
    "check_writable",
    "create_tiny",
    "load_backbone",
    "load_model",
    "load_spec",
    "merge_run",
    "output_rows",
    "resolve_device",
    "save_backbone",
    "save_model",
    "smollm2",
]

_ADAPTER_FILE = "adapter_config.json"
_ADAPTER_WEIGHTS = "adapter_model.safetensors"
_CATALOG_FILES = ("metas.jsonl", "category.jsonl", ALIASES, f"*{INDEX}", f"*{ITEM2ID}")


@dataclass(frozen=True)
class Backbone:
    """A causal language model and a tokenizer that knows the control tokens.

    Attributes:
        model: The transformers model, wrapped by peft after `add_lora`.
        tokenizer: A fast tokenizer with a chat template.
        soi_token_id: Token that opens an item span.
        eoi_token_id: Token that closes it.
        code_token_ids: Tokens of the codes of semantic IDs, level by level; none for titles.
        head: Finds items by the model's hidden states, where they are retrieved.
    """

    model: Any
    tokenizer: PreTrainedTokenizerFast
    soi_token_id: int
    eoi_token_id: int
    code_token_ids: tuple[int, ...] = ()
    head: RetrievalHead | None = None


def create_tiny(texts: Sequence[str], sizes: TinyConfig | None = None) -> Backbone:
    """Creates an untrained Llama with a byte-level BPE trained on `texts`.

    Args:
        texts: What the model will read and write: titles, prompts, conversations.
        sizes: Sizes and seed. Same texts and sizes give the same bits.
    """
    sizes = sizes or TinyConfig()
    tokenizer = train_tokenizer(texts, sizes.vocab_size)
    return _with_control_tokens(create_tiny_model(tokenizer, sizes), tokenizer)


def load_backbone(
    name_or_path: str | Path,
    *,
    attention: str = "sdpa",
    quantization: str = "none",
    dtype: torch.dtype | None = None,
    device: str = "auto",
    verify: bool = True,
) -> Backbone:
    """Loads a chat model and adds the control tokens it lacks.

    Args:
        name_or_path: `smollm2`, a local folder, or a name on the Hugging Face hub.
        attention: Attention implementation of transformers.
        quantization: `none`, `8bit` or `4bit` (bitsandbytes, CUDA only).
        dtype: Type of the weights; None for float32, the type to train in.
        device: `auto`, `cpu`, `cuda`, ...
        verify: Check the files of a folder of reclm against their checksums.

    Raises:
        ArtifactError: A file is not the one that was written.
        BackboneError: Nothing usable there: no such model, no chat template, no fast tokenizer, or
            an output layer whose scores are transformed afterwards.
        ConfigError: The device or the quantization is not available.
        MissingExtraError: An optional dependency is not installed.
    """
    target = resolve_device(device)
    if verify and Path(source_of(name_or_path)).is_dir():
        verify_checksums(source_of(name_or_path))
    model, tokenizer = load_pretrained(
        name_or_path,
        target,
        attention=attention,
        quantization=quantization,
        dtype=dtype or torch.float32,
    )
    return _checked(_with_control_tokens(model, tokenizer), str(name_or_path))


def add_codes(backbone: Backbone, sizes: Sequence[int], spread: float = SPREAD) -> Backbone:
    """Adds the code tokens of semantic IDs to model and tokenizer, with rows to be trained.

    Args:
        backbone: Its model and tokenizer are modified in place.
        sizes: Number of codes at each level.
        spread: How far their rows start from the mean of the old ones, in standard deviations.

    Raises:
        TokenizerError: One of them is in the vocabulary already.
    """
    new = add_code_tokens(backbone.model, backbone.tokenizer, sizes, spread)
    return dataclasses.replace(backbone, code_token_ids=new)


def add_lora(
    backbone: Backbone,
    *,
    r: int,
    alpha: float,
    dropout: float,
    targets: str = "all-linear",
    train_embeddings: bool = False,
    train_lm_head: bool = False,
    train_new_rows: bool = True,
    seed: int = 0,
) -> Backbone:
    """Wraps the model with LoRA adapters (arXiv 2106.09685); only they can be trained then.

    The rows of control and code tokens are trained too, in the input embedding and in the output
    layer, unless the whole layer is or `train_new_rows` is false. In a model that ties the two
    layers they stay tied: training one whole trains the other.

    Args:
        backbone: Its model is modified in place.
        r: Rank of the adapters.
        alpha: Scale of the adapters; they are multiplied by `alpha / r`.
        dropout: Dropout on the adapters' input.
        targets: Names of linear modules, separated by commas, or `all-linear` for each but the
            output layer.
        train_embeddings: Train the whole input embedding.
        train_lm_head: Train the whole output layer.
        train_new_rows: Train the rows of control and code tokens.
        seed: Seed of the adapters' initial weights.

    Raises:
        ConfigError: A number cannot work, or no module is called as `targets` says.
        BackboneError: The output layer has a bias, which trained rows would lose.
    """
    peft = require("peft", extra="train")
    model = backbone.model
    if r < 1:
        raise ConfigError(f"--lora-r {r}: expected at least 1")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"--lora-dropout {dropout}: expected a number in [0, 1)")
    embedding = _module_name(model, model.get_input_embeddings())
    head = _module_name(model, model.get_output_embeddings())
    tied = is_tied(model)
    whole = [embedding] * (train_embeddings or (tied and train_lm_head))
    whole += [head] * (train_lm_head and not tied)
    layers = [embedding] if tied else [embedding, head]
    new = [backbone.soi_token_id, backbone.eoi_token_id, *backbone.code_token_ids]
    rows = {name: new for name in layers if name not in whole and train_new_rows}
    biased = getattr(model.get_output_embeddings(), "bias", None) is not None
    if biased and (head in rows or (tied and (whole or rows))):
        raise BackboneError(
            f"output layer {head} has a bias, which trained rows would lose; "
            "pass " + ("--tune full" if tied else "--train-lm-head")
        )
    names: str | list[str] = targets
    if targets != "all-linear":
        names = [name.strip() for name in targets.split(",") if name.strip()]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        modules_to_save=whole or None,
        trainable_token_indices=rows or None,
        ensure_weight_tying=tied and bool(whole),
    )
    if getattr(model, "is_quantized", False):
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        with _seeded(seed, model.device):
            wrapped = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"--lora-targets {targets}: {first_line(error)}") from error
    return dataclasses.replace(backbone, model=wrapped)


def base_model(model: nn.Module) -> nn.Module:
    """The decoder without output layer, through peft's wrapper; it keeps its adapters.

    Called with token ids `[batch, length]` it yields `last_hidden_state` `[batch, length, hidden]`,
    to be multiplied by `output_rows`.
    """
    causal: Any = _unwrapped(model)
    decoder: nn.Module = getattr(causal, causal.base_model_prefix)
    return decoder


def output_rows(
    model: nn.Module,
) -> tuple[Float[Tensor, "vocab hidden"], Float[Tensor, " vocab"] | None]:
    """Weight and bias of the output layer as they act now, adapters included.

    `hidden @ weight.T + bias` are the model's logits. Gradients flow through the weight to what is
    trained: the whole layer, or the rows of the new tokens alone.
    """
    head: Any = _unwrapped(model).get_output_embeddings()
    return head.weight, getattr(head, "bias", None)


def save_backbone(folder: str | Path, backbone: Backbone) -> None:
    """Writes model (or adapter) and tokenizer in Hugging Face's format.

    Raises:
        BackboneError: The model cannot be saved in this form (quantized weights, for example).
        StorageError: There is no room for it, or no permission.
    """
    folder = Path(folder)
    with _saving(folder), writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if _is_adapter(backbone.model):
            # By default peft would look on the hub whether the vocabulary has grown.
            backbone.model.save_pretrained(folder, save_embedding_layers=False)
            (folder / "README.md").unlink(missing_ok=True)
        else:
            backbone.model.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)
        follow_umask(folder, "*.safetensors")


def check_writable(backbone: Backbone) -> None:
    """Writes what a training will write at its end, but for the weights of the model itself.

    Raises:
        BackboneError: It could not be written then, and the training would be lost.
    """
    with TemporaryDirectory(prefix="reclm-") as folder, _saving(Path(folder), "after the training"):
        if _is_adapter(backbone.model):
            backbone.model.save_pretrained(folder, save_embedding_layers=False)
        # An adapter is merged later, which writes the same.
        model = _unwrapped(backbone.model)
        model.config.save_pretrained(folder)
        model.generation_config.save_pretrained(folder)
        backbone.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _saving(folder: Path, when: str = "") -> Iterator[None]:
    """Turns what the libraries raise into one line."""
    place = when or str(folder)
    try:
        yield
    # Settings, shared tensors, quantized weights, tokenizers: each is refused in its own way.
    except (ValueError, TypeError, AttributeError, RuntimeError) as error:
        raise BackboneError(
            f"{place}: cannot save the model: {first_line(error)}; mend the model it comes from"
        ) from error


def save_model(folder: str | Path, backbone: Backbone, spec: ModelSpec) -> None:
    """Writes a trained model; `reclm.json` comes last and marks the folder as complete.

    The catalog's files are not written here. An adapter needs `spec.base` to be loaded again: a
    folder may be given as seen from `folder` or from the working directory.
    """
    folder = Path(folder)
    (folder / SPEC_FILE).unlink(missing_ok=True)
    save_backbone(folder, backbone)
    if backbone.head is not None:
        backbone.head.save(folder)
    base = spec.base
    if (folder / base).is_dir():
        base = base if base.startswith((".", "/")) else f"./{base}"
    elif Path(base).is_dir():
        base = str(Path(base).resolve())
    spec = dataclasses.replace(
        spec,
        base=base,
        tokenizer_fingerprint=tokenizer_fingerprint(backbone.tokenizer),
        versions=versions(),
    )
    write_json(folder / SPEC_FILE, dataclasses.asdict(spec))


def load_model(
    folder: str | Path,
    device: str = "auto",
    *,
    attention: str = "sdpa",
    dtype: torch.dtype | None = None,
    merge_adapter: bool = True,
    verify: bool = True,
) -> tuple[Backbone, ModelSpec]:
    """Loads what `save_model` wrote, an adapter on top of its base included.

    Args:
        folder: Folder of a model or adapter.
        device: `auto`, `cpu`, `cuda`, ...
        attention: Attention implementation of transformers.
        dtype: Type of the weights; None for float32 on the CPU and bfloat16 elsewhere.
        merge_adapter: Add an adapter to its base's weights in memory, which answers faster.
        verify: Check all files against the checksums that were recorded when it was trained.

    Returns:
        The backbone in evaluation mode, and how it was trained.

    Raises:
        ArtifactError: A file is not the one that was written.
        BackboneError: The folder is incomplete or damaged.
        TokenizerError: The tokenizer is not the one the model was saved with.
    """
    folder = Path(folder)
    if verify:
        verify_checksums(folder)
    spec = load_spec(folder)
    if dtype is None:
        dtype = torch.float32 if resolve_device(device).type == "cpu" else torch.bfloat16
    adapted = (folder / _ADAPTER_FILE).exists()
    source: str | Path = folder
    if adapted:
        source = folder / spec.base if spec.base.startswith(".") else spec.base
        # A base inside the folder is among the files of the folder.
        inside = Path(source).resolve().is_relative_to(folder.resolve())
        backbone = load_backbone(
            source, attention=attention, dtype=dtype, device=device, verify=verify and not inside
        )
        if spec.code_sizes:
            backbone = _with_codes(backbone, spec.code_sizes)
    else:
        model, tokenizer = load_pretrained(
            folder,
            resolve_device(device),
            attention=attention,
            quantization="none",
            dtype=dtype,
            strict=True,
        )
        # Never added here: a trained row that got lost must not come back untrained.
        codes = code_token_ids(tokenizer, spec.code_sizes)
        backbone = Backbone(model, tokenizer, *control_token_ids(tokenizer), codes)
        backbone = _checked(backbone, str(folder))
    if tokenizer_fingerprint(backbone.tokenizer) != spec.tokenizer_fingerprint:
        raise TokenizerError(
            f"{source}: its tokenizer is not the one that {folder / SPEC_FILE} was written with; "
            "restore it or train the model again"
        )
    if adapted:
        model = _with_adapter(backbone.model, folder, merged=merge_adapter)
        backbone = dataclasses.replace(backbone, model=model.eval().requires_grad_(False))
    if spec.method == "ret":
        head = RetrievalHead.load(folder, resolve_device(device))
        hidden = backbone.model.config.get_text_config().hidden_size
        if head.projection.in_features != hidden:
            raise BackboneError(
                f"{folder / HEAD_FILE}: reads {head.projection.in_features} numbers a token, and "
                f"the model has {hidden}; it is that of another model; restore it or train again"
            )
        backbone = dataclasses.replace(backbone, head=head)
    return backbone, spec


def merge_run(config: MergeConfig) -> Path:
    """Merges the adapter of a run into its backbone and writes a plain Hugging Face folder.

    Returns:
        `config.out`, which loads with plain transformers and holds the catalog beside the model.

    Raises:
        BackboneError: The run holds no adapter.
        ArtifactError: `out` holds something else.
    """
    load_spec(config.run)
    if not (config.run / _ADAPTER_FILE).exists():
        raise BackboneError(
            f"--run {config.run}: holds no {_ADAPTER_FILE}; a fully tuned model needs no merging"
        )
    if config.run.resolve() == config.out.resolve():
        raise ArtifactError(f"--out {config.out}: is the run itself; name another folder")
    inputs = {
        "adapter": config.run / _ADAPTER_WEIGHTS,
        "spec": config.run / SPEC_FILE,
    }
    run = open_run(config.out, "train merge", config, inputs=inputs, free_fields=("verify",))
    if run.finished:
        return config.out
    backbone, spec = load_model(config.run, "cpu", verify=config.verify)
    for pattern in _CATALOG_FILES:
        for file in config.run.glob(pattern):
            with atomic_path(config.out / file.name) as partial:
                shutil.copyfile(file, partial)
    save_model(config.out, backbone, spec)
    run.finish()
    return config.out


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


def _with_codes(backbone: Backbone, sizes: Sequence[int]) -> Backbone:
    """The base of an adapter with its codes: new rows, or those of a model trained before."""
    if code_names(sizes)[0] in backbone.tokenizer.get_vocab():
        codes = code_token_ids(backbone.tokenizer, sizes)
        return dataclasses.replace(backbone, code_token_ids=codes)
    return add_codes(backbone, sizes)


def _with_control_tokens(model: Any, tokenizer: PreTrainedTokenizerFast) -> Backbone:
    known = tokenizer.get_vocab()
    missing = [token for token in (SOI, EOI) if token not in known]
    if missing:
        add_special_tokens(model, tokenizer, missing)
    return Backbone(model, tokenizer, *control_token_ids(tokenizer))


@torch.no_grad()
def _checked(backbone: Backbone, name: str) -> Backbone:
    model, tokens = backbone.model, max(backbone.tokenizer.get_vocab().values()) + 1
    check_own_ids(
        backbone.tokenizer,
        (backbone.soi_token_id, backbone.eoi_token_id, *backbone.code_token_ids),
    )
    rows = model.get_input_embeddings().weight.shape[0]
    if rows < tokens:
        raise BackboneError(
            f"{name}: {rows} embedding rows for {tokens} tokens; model and tokenizer do not belong "
            "together"
        )
    # Losses and decoding multiply by a few rows of the output layer instead of calling it; a model
    # that scales or caps its logits afterwards would silently be trained on other scores.
    ids = torch.arange(min(8, rows), device=model.device)[None]
    with loading(name, "weights or config.json"):
        weight, bias = output_rows(model)
        expected = nn.functional.linear(base_model(model)(ids).last_hidden_state, weight, bias)
        scores = model(ids).logits
    tolerance = 1e-3 if weight.dtype == torch.float32 else 1e-2
    if not torch.allclose(scores.float(), expected.float(), rtol=tolerance, atol=tolerance):
        raise BackboneError(
            f"{name}: transforms the scores of its output layer (soft-capping or scaling), which "
            "is not supported; choose another model"
        )
    return backbone


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _is_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _unwrapped(model: Any) -> Any:
    return model.get_base_model() if _is_adapter(model) else model


def _module_name(model: nn.Module, module: nn.Module) -> str:
    names: dict[int, str] = {id(found): name for name, found in model.named_modules()}
    return names[id(module)]
