"""incatalog: a language model that recommends only what is in the catalog."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from incatalog.constraint.processor import ItemConstrainedLogitsProcessor
    from incatalog.data.catalog import Catalog, Item
    from incatalog.items.tokens import ItemTokens
    from incatalog.recommender.recommender import Recommender
    from incatalog.recommender.span_reader import SpanReader
    from incatalog.trie.trie import ItemTrie

__all__ = [
    "Catalog",
    "Item",
    "ItemConstrainedLogitsProcessor",
    "ItemTokens",
    "ItemTrie",
    "Recommender",
    "SpanReader",
]

_HOMES = {
    "Catalog": "incatalog.data.catalog",
    "Item": "incatalog.data.catalog",
    "ItemConstrainedLogitsProcessor": "incatalog.constraint.processor",
    "ItemTokens": "incatalog.items.tokens",
    "ItemTrie": "incatalog.trie.trie",
    "Recommender": "incatalog.recommender.recommender",
    "SpanReader": "incatalog.recommender.span_reader",
}


def __getattr__(name: str) -> Any:
    """Imports a public name on first use, so that ``import incatalog`` does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'incatalog' has no attribute {name!r}")
    from incatalog.installation import telling_broken

    with telling_broken():
        return getattr(importlib.import_module(_HOMES[name]), name)
