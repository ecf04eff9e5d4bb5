"""What a trained model was made from, as far as that is known without asking anybody."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incatalog.checksums import CARD
from incatalog.data.naming import folder_name
from incatalog.model.hub import is_repository

_UNKNOWN = "unknown"
_SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
_IN_CACHE = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/")
_SCRATCH = "none; a small Llama with a vocabulary of its own was trained from scratch"


@dataclass(frozen=True)
class BaseModel:
    """The base of a trained model."""

    told: str  # In words.
    repository: str = ""  # Its name on the hub, where it has one.
    licence: str = _UNKNOWN  # The hub's identifier of it.

    @classmethod
    def of(cls, folder: Path, base: str) -> BaseModel:
        """What is known of the base that the description of a model names."""
        if base in ("tiny", "base", "./base"):
            return cls(_SCRATCH)
        if base == "smollm2":
            return cls(f"[{_SMOLLM2}](https://huggingface.co/{_SMOLLM2})", _SMOLLM2, "apache-2.0")
        path = folder / base if base.startswith(".") else Path(base)
        if not path.is_dir() and is_repository(base):
            card = _cached_card(base)
            return cls(f"[{base}](https://huggingface.co/{base})", base, _text(card, "license"))
        card = _metadata(path / CARD)
        licence, under = _text(card, "license"), _text(card, "base_model")
        found = _IN_CACHE.search(f"{path.resolve()}/")
        repository = f"{found[1]}/{found[2]}" if found else ""
        told = f"`{repository or folder_name(path)}`"
        if under != _UNKNOWN:
            told += f", made from `{under}`"
        return cls(told, repository or ("" if under == _UNKNOWN else under), licence)


def _cached_card(repository: str) -> dict[str, Any]:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repository, CARD)
    return _metadata(Path(path)) if isinstance(path, str) else {}


def _metadata(path: Path) -> dict[str, Any]:
    """What stands in front of a card; nothing where it cannot be read."""
    from huggingface_hub import metadata_load

    try:
        return dict(metadata_load(path) or {})
    # Somebody else's card may hold anything.
    except Exception:
        return {}


def _text(card: dict[str, Any], name: str) -> str:
    value = card.get(name)
    return value if isinstance(value, str) and value else _UNKNOWN
