"""What the engine is asked for: one request per answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.sampling import check_temperature
from incatalog.errors import ConfigError
from incatalog.trie.trie import ItemTrie

if TYPE_CHECKING:
    from incatalog.decoding.retriever import ItemRetriever


@dataclass(frozen=True, eq=False)
class Grounding:
    """The items an answer may name.

    Attributes:
        trie: Prefix tree of their token rows.
        retriever: Chooses the items; None where the model writes them token by token.
    """

    trie: ItemTrie
    retriever: ItemRetriever | None = None


@dataclass(frozen=True)
class Scaffold:
    """The text of a list, given: the model only decides which items stand in it.

    Attributes:
        before_item: Token ids in front of the first, second, ... item; one run an item.
    """

    before_item: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Request:
    """One answer to generate.

    Whatever spans the prompt holds, the answer starts with nothing recommended. The prompt may not
    end inside of one.

    Attributes:
        prompt_ids: Token ids of the prompt.
        max_new_tokens: Tokens of the answer at most, forced ones included.
        max_items: Items of the answer at most; None for no limit, 0 for text without items. A
            scaffold sets it to its length.
        excluded: Items that must not be recommended.
        temperature: Divides the scores before sampling; 0 decodes greedily.
        top_p: Sample from the smallest set of tokens with this probability.
        seed: Seed of the samples. They do not depend on the other requests of the batch.
        scaffold: The list to fill; None lets the model write freely between items.
        grounding: The items, such as one version of a catalog that changes while others are
            answered; None takes those of the engine.
        grounded: Hold item spans to the catalog. If not, nothing is masked or forced, no item event
            is raised, and spans are what the model makes of them; for comparison only.
    """

    prompt_ids: Sequence[int]
    max_new_tokens: int = 512
    max_items: int | None = None
    excluded: ExcludedItems | None = None
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    scaffold: Scaffold | None = None
    grounding: Grounding | None = None
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
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p: found {self.top_p}; expected more than 0 and at most 1")
        if self.scaffold is not None:
            self._check_scaffold(self.scaffold)
        elif not len(self.prompt_ids):
            raise ConfigError("prompt_ids: found none; expected at least one token")

    def _check_scaffold(self, scaffold: Scaffold) -> None:
        if not self.grounded:
            raise ConfigError("scaffold: found one with grounded=False; a scaffold needs grounding")
        if not scaffold.before_item or (self.max_items or 0) > len(scaffold.before_item):
            raise ConfigError(
                f"scaffold: found room for {len(scaffold.before_item)} items; expected at least "
                f"{self.max_items or 1}"
            )

    @property
    def item_limit(self) -> int | None:
        """Items of the answer at most, None for no limit."""
        if self.max_items is None and self.scaffold is not None:
            return len(self.scaffold.before_item)
        return self.max_items


@dataclass(frozen=True)
class Slot:
    """A place in a text where an item is to stand.

    Attributes:
        prompt_ids: Token ids of the text before the span; the opening token is added to them.
        excluded: Items that must not be found.
    """

    prompt_ids: Sequence[int]
    excluded: ExcludedItems | None = None
