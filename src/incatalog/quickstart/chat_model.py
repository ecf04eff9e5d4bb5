"""The chat model of a first run, checked before anything takes long."""

from __future__ import annotations

from pathlib import Path

from incatalog.errors import BackboneError, first_line

_PACKAGED = "smollm2"
_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]


def local_model(name: str) -> str:
    """A chat model that lies on this machine: the packaged one by name, others as a folder.

    A model of the hub is downloaded, once.

    Raises:
        BackboneError: There is no such model, or it cannot chat.
        MissingExtraError: The packaged one is not installed.
    """
    from incatalog.model.pretrained import source_of

    source = source_of(name)
    if name == _PACKAGED:
        return name
    folder = source if isinstance(source, Path) else _downloaded(name)
    if not _can_chat(folder):
        raise BackboneError(
            f"--model {name}: its tokenizer has no chat template; choose an instruction-tuned model"
        )
    return str(folder.resolve())


def _downloaded(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        what = "neither a folder nor a model that the hub gives"
        raise BackboneError(f"--model {name}: {what} ({first_line(error)[:200]})") from error


def _can_chat(folder: Path) -> bool:
    """Whether a model's tokenizer knows how a conversation is written."""
    from transformers import AutoTokenizer

    from incatalog.model.pretrained import loading

    with loading(folder, "tokenizer.json or tokenizer_config.json"):
        return bool(AutoTokenizer.from_pretrained(folder).chat_template)
