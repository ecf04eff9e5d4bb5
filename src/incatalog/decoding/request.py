"""What the engine is asked for: one request per answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from incatalog.config import ItemDecode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights, all_excluded
from incatalog.decoding.retriever import ItemRetriever
from incatalog.decoding.sampling import check_temperature
from incatalog.errors import ConfigError
from incatalog.trie.trie import ItemTrie


@dataclass(frozen=True, eq=False)
class Grounding:
    """The items an answer may name; without a retriever the model writes them token by token."""

    trie: ItemTrie
    retriever: ItemRetriever | None = None


@dataclass(frozen=True)
class Scaffold:
    """The text of a list, given: the model only decides which items stand in it."""

    before_item: tuple[tuple[int, ...], ...]  # token ids in front of the first, second, ... item


@dataclass(frozen=True)
class Request:
    """One answer to generate.

    Whatever spans the prompt holds, the answer starts with nothing recommended. The prompt may not
    end inside of one.
    """

    prompt_ids: Sequence[int]
    max_new_tokens: int = 512  # forced ones included
    # Items of the answer at most; None for no limit (or the scaffold's), 0 for text without items.
    max_items: int | None = None
    excluded: ExcludedItems | None = None  # items that must not be recommended
    # Log-weights of the items, with exclusions of their own: `excluded` is their base.
    weights: ItemWeights | None = None
    temperature: float = 0.0  # divides the scores before sampling; 0 decodes greedily
    top_p: float = 1.0  # sample from the smallest set of tokens with this probability
    # How items are written: the best of all, found by search, or token by token. At a temperature
    # both sample, the one whole items and the other tokens.
    item_decode: ItemDecode = "token"
    # How much the ranking of the first place counts at the places behind it; see `first_place`.
    first_share: float = 0.0
    seed: int = 0  # of the samples, which do not depend on the other requests of the batch
    scaffold: Scaffold | None = None  # None lets the model write freely between items
    # The items, such as one version of a catalog that changes; None takes those of the engine.
    grounding: Grounding | None = None
    # If not, nothing is masked or forced, no item event is raised, and spans are what the model
    # makes of them; for comparison only.
    grounded: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens: found {self.max_new_tokens}; expected at least 1")
        least = 0 if self.scaffold is None else 1
        if self.max_items is not None and self.max_items < least:
            raise ConfigError(
                f"max_items: found {self.max_items}; expected at least {least}, or None"
            )
        check_temperature(self.temperature)
        if not 0 <= self.first_share < 1:
            raise ConfigError(f"first_share: found {self.first_share}; expected 0 to less than 1")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: found {self.top_p}; expected more than 0 and at most 1")
        if self.scaffold is None:
            if not len(self.prompt_ids):
                raise ConfigError("prompt_ids: found none; expected at least one token")
            return
        if not self.grounded:
            raise ConfigError("scaffold: found one with grounded=False; a scaffold needs grounding")
        room, wanted = len(self.scaffold.before_item), self.max_items or 1
        if room < wanted:
            raise ConfigError(f"scaffold: found room for {room} items; expected at least {wanted}")

    @property
    def barred(self) -> ExcludedItems | None:
        """All items that must not be recommended."""
        return all_excluded(self.excluded, self.weights)

    @property
    def item_limit(self) -> int | None:
        """Items of the answer at most, None for no limit."""
        if self.max_items is None and self.scaffold is not None:
            return len(self.scaffold.before_item)
        return self.max_items


@dataclass(frozen=True)
class Slot:
    """A place in a text where an item is to stand."""

    prompt_ids: Sequence[int]  # the text before the span; the opening token is added
    excluded: ExcludedItems | None = None  # items that must not be found
    # Log-weights of the items, with exclusions of their own: `excluded` is their base.
    weights: ItemWeights | None = None

    @property
    def barred(self) -> ExcludedItems | None:
        """All items that must not be found."""
        return all_excluded(self.excluded, self.weights)
