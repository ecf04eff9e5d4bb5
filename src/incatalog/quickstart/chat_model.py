"""The chat model of a first run, checked before anything takes long."""

from __future__ import annotations

from pathlib import Path

from incatalog.errors import BackboneError, HubError

_PACKAGED = "smollm2"


def local_model(name: str) -> str:
    """A chat model that lies on this machine: the packaged one by name, others as a folder.

    A model of the hub is downloaded, once.

    Raises:
        BackboneError: There is no such folder, or the model cannot chat.
        HubError: It is no name of a model there, or the hub does not give it and the cache does
            not hold it.
        MissingExtraError: The packaged one is not installed.
    """
    from incatalog.model.hub import NO_NAME, on_disk
    from incatalog.model.pretrained import source_of

    source = source_of(name)
    if name == _PACKAGED:
        return name
    folder = source if isinstance(source, Path) else Path(on_disk(name, flag="--model"))
    if not folder.is_dir():
        raise HubError(f"--model {name}: {NO_NAME}")
    if not _can_chat(folder):
        raise BackboneError(
            f"--model {name}: its tokenizer has no chat template; choose an instruction-tuned model"
        )
    return str(folder.resolve())


def _can_chat(folder: Path) -> bool:
    """Whether a model's tokenizer knows how a conversation is written."""
    from transformers import AutoTokenizer

    from incatalog.model.pretrained import loading

    with loading(folder, "tokenizer.json or tokenizer_config.json"):
        return bool(AutoTokenizer.from_pretrained(folder).chat_template)
