"""reclm: a language model that recommends only what is in the catalog."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reclm.data.catalog import Catalog, Item
    from reclm.decoding.processor import ItemConstrainedLogitsProcessor
    from reclm.items.tokens import ItemTokens
    from reclm.items.trie import ItemTrie
    from reclm.recommender import Recommender

__all__ = [
    "Catalog",
    "Item",
    "ItemConstrainedLogitsProcessor",
    "ItemTokens",
    "ItemTrie",
    "Recommender",
]

_HOMES = {
    "Catalog": "reclm.data.catalog",
    "Item": "reclm.data.catalog",
    "ItemConstrainedLogitsProcessor": "reclm.decoding.processor",
    "ItemTokens": "reclm.items.tokens",
    "ItemTrie": "reclm.items.trie",
    "Recommender": "reclm.recommender",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that ``import reclm`` does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reclm' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
