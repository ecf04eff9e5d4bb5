"""The items of a catalog as one model writes them."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float32
from transformers import PreTrainedTokenizerFast

from incatalog.codes.semantic_ids import INDEX, ITEM2ID, SemanticIds
from incatalog.config import ItemForm
from incatalog.constraint.excluded import ExcludedItems
from incatalog.data.catalog import Catalog, Item
from incatalog.data.where import EVERYTHING, Where
from incatalog.decoding.request import Grounding
from incatalog.decoding.retriever import ItemRetriever
from incatalog.errors import (
    CatalogError,
    ConfigError,
    NoItemLeftError,
    SemanticIdError,
    TrieError,
    VectorError,
)
from incatalog.items.aliases import Aliases
from incatalog.items.titles import canonical_titles, new_titles
from incatalog.items.tokens import OUR_NAMES, ControlNames, ItemTokens, encode_titles
from incatalog.recent import RecentlyUsed

# Users choose which categories and conditions there are, so the number of rules is bounded.
_RULES_KEPT = 16


@dataclass(frozen=True, eq=False)
class ModelItems:
    """The items of a catalog as one model writes them; a change makes another value."""

    catalog: Catalog  # `title_t` of each item is the title the model writes
    tokenizer: PreTrainedTokenizerFast
    item_form: ItemForm
    tokens: ItemTokens  # titles or codes, by item row
    aliases: Aliases  # names that the model may write besides the titles
    grounding: Grounding  # what the engine holds answers to
    longest_alias: int = 0  # in tokens
    disabled: frozenset[int] = frozenset()  # rows that are never recommended
    # A copy with other items, categories or attributes starts without rules.
    _rules: RecentlyUsed[tuple[tuple[str, ...], Where], ExcludedItems] = field(
        init=False, repr=False, default_factory=lambda: RecentlyUsed(_RULES_KEPT)
    )

    @classmethod
    def of(
        cls,
        tokenizer: PreTrainedTokenizerFast,
        item_form: ItemForm,
        catalog: Catalog,
        semantic_ids: SemanticIds | None = None,
        aliases: Aliases | None = None,
        control: ControlNames = OUR_NAMES,
    ) -> ModelItems:
        """Writes the items of a catalog; how they are retrieved is added by the recommender."""
        catalog = catalog.with_titles_t(canonical_titles(catalog, tokenizer, control))
        if item_form == "titles":
            tokens = ItemTokens.from_titles(catalog.titles_t, tokenizer, control)
        else:
            tokens = ItemTokens.from_codes(_codes_of(catalog, semantic_ids), tokenizer, control)
        made = cls(catalog, tokenizer, item_form, tokens, Aliases(), Grounding(tokens.trie()))
        return made.with_aliases(aliases) if aliases else made

    def with_aliases(self, aliases: Aliases) -> ModelItems:
        """The same items, which the model may also write by these names."""
        shared = self.catalog.titles_taken.intersection(aliases.texts)
        if shared:
            twice = f"{min(shared)!r} is the title of an item and an alias; expected it to name one"
            hint = "give the catalog the model was trained on"
            raise CatalogError(f"catalog {self.catalog.name}: {twice} item; {hint}")
        tokens = self.spelled(aliases)
        grounding = Grounding(tokens.trie(aliases.items(len(self.catalog))))
        longest = int(np.diff(tokens.offsets[len(self.tokens) :]).max())
        return replace(self, aliases=aliases, grounding=grounding, longest_alias=longest)

    def spelled(self, aliases: Aliases) -> ItemTokens:
        """Tokens of the items, followed by those of these other names."""
        named = ItemTokens.from_titles(aliases.texts, self.tokenizer, self.control)
        return self.tokens.joined(named)

    def with_changes(
        self,
        items: Sequence[Item] = (),
        removed: Sequence[str] = (),
        semantic_ids: SemanticIds | None = None,
        vectors: Float32[np.ndarray, "items dim"] | None = None,
    ) -> ModelItems:
        """The items of a changed catalog; see :meth:`Recommender.with_changes`."""
        if not items and not removed:
            return self
        gone = [self.catalog.row(item_id) for item_id in removed]
        aliases = self.aliases.without(gone)
        taken = self.catalog.titles_taken.difference(self.catalog.titles_t[row] for row in gone)
        taken = taken.union(aliases.texts) if aliases else taken
        titles = new_titles(items, taken, self.tokenizer, self.control)
        added = self._tokens_of(items, titles, gone, semantic_ids)
        named = [replace(item, title_t=t) for item, t in zip(items, titles, strict=True)]
        catalog, rows = self.catalog.with_changes(named, removed)
        tokens, trie, retriever = self.tokens, self.grounding.trie, self.grounding.retriever
        if items:
            tokens = tokens.with_rows(rows, added)
            trie = trie.with_items(added, rows=rows)
        if items and retriever is not None:
            if vectors is None or len(vectors) != len(rows):
                lacking = "the model finds items by their vectors, and a new item comes without"
                hint = retriever.head.how_to_embed()
                raise VectorError(f"catalog {self.catalog.name}: {lacking}; {hint}")
            retriever = ItemRetriever(retriever.head.with_rows(rows, vectors))
        return replace(
            self,
            catalog=catalog,
            tokens=tokens,
            aliases=aliases,
            grounding=Grounding(trie.without_items(gone), retriever),
            disabled=self.disabled.difference(gone),
        )

    def with_updated(self, items: Sequence[Item]) -> ModelItems:
        """The same items, some of which have other categories, texts, boosts or attributes.

        Nothing that the model writes changes, so no index is touched.

        Raises:
            CatalogError: One of them is not there, or is called otherwise.
        """
        if not items:
            return self
        known = [self.catalog.item(self.catalog.row(item.item_id)) for item in items]
        for old, new in zip(known, items, strict=True):
            if (old.title, old.called) != (new.title, new.called):
                found = f"item {new.item_id!r} is called {new.called!r}, before {old.called!r}"
                expected = "expected the same name; remove it and add it for another"
                raise CatalogError(f"catalog {self.catalog.name}: {found}; {expected}")
        pairs = zip(known, items, strict=True)
        named = [replace(new, title_t=old.title_t) for old, new in pairs]
        return replace(self, catalog=self.catalog.with_updated(named))

    def with_metadata(self, catalog: Catalog) -> ModelItems:
        """The same items under another catalog's name, categories and descriptions."""
        if catalog.fingerprint != self.catalog.fingerprint:
            found = f"ids or titles differ from {self.catalog.name}"
            expected = "expected the same items in the same order"
            raise CatalogError(f"catalog {catalog.name}: {found}; {expected}")
        return replace(self, catalog=catalog.with_titles_t(self.catalog.titles_t))

    def with_disabled(self, item_ids: Collection[str]) -> ModelItems:
        """The same items, of which exactly these are never recommended."""
        return replace(self, disabled=frozenset(map(self.catalog.row, item_ids)))

    def excluded(
        self,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        history: Sequence[int] = (),
        exclude_seen: bool = False,
        where: Where = EVERYTHING,
    ) -> ExcludedItems:
        """The items an answer may not name.

        These are the given ids, items outside all given categories, items for which one of the
        conditions does not hold, items that are disabled, and with `exclude_seen` the item rows of
        the history.
        """
        rows = set(self.catalog.rows(exclude).tolist())
        rows.update(map(int, history) if exclude_seen else ())
        return ExcludedItems.build(self.grounding.trie, rows, base=self.rule(categories, where))

    def rule(
        self, categories: Sequence[str] = (), where: Where = EVERYTHING
    ) -> ExcludedItems | None:
        """What every answer from these categories and under these conditions excludes."""
        names = tuple(sorted(set(categories)))
        if not (names or where or self.disabled):
            return None

        def make() -> ExcludedItems:
            outside = ~self.catalog.allowed_rows(names)
            if where:
                outside |= ~where.rows(self.catalog)
            outside[list(self.disabled)] = True
            return ExcludedItems.build(self.grounding.trie, outside)

        return self._rules.get((names, where), make)

    def at_most(self, k: int) -> int:
        """How many items can be recommended where ``k`` are asked for."""
        if not isinstance(k, int | np.integer):
            raise ConfigError(f"k: found {k!r}; expected a whole number")
        if k < 1:
            raise ConfigError(f"k: found {k}; expected at least 1")
        return min(k, self.catalog.num_live)

    @property
    def control(self) -> ControlNames:
        """What the control tokens are called in the vocabulary."""
        return self.tokens.control(self.tokenizer)

    @cached_property
    def longest_span(self) -> int:
        """Tokens of an item span at most, the two control tokens included."""
        return max(int(np.diff(self.tokens.offsets).max()), self.longest_alias) + 2

    def title_span(self, row: int) -> list[int]:
        """Tokens of an item's title in a span, after which the text behind an item is decoded."""
        if self.item_form == "titles":
            return self.tokens.span(row)
        [title] = encode_titles([self.catalog.titles_t[row]], self.tokenizer, self.control)
        return [self.tokens.soi_token_id, *title, self.tokens.eoi_token_id]

    def no_item_left(self) -> NoItemLeftError:
        """The error where an answer could not name a single item."""
        none = f"the exclusions leave none of the {len(self.catalog)} items"
        hint = "exclude fewer, name other categories or ask for less"
        return NoItemLeftError(f"no item left to recommend: {none}; {hint}")

    def _tokens_of(
        self,
        items: Sequence[Item],
        titles: Sequence[str],
        gone: Sequence[int],
        semantic_ids: SemanticIds | None,
    ) -> list[list[int]]:
        """Token rows of new items."""
        if not items:
            return []
        if self.item_form == "titles":
            return encode_titles(titles, self.tokenizer, self.control)
        if semantic_ids is None or len(semantic_ids) != len(items):
            found = f"the model writes items as codes, and item {items[0].item_id!r} comes without"
            hint = "give the codes of every new item"
            raise SemanticIdError(f"catalog {self.catalog.name}: {found}; {hint}")
        coded = ItemTokens.from_codes(semantic_ids, self.tokenizer, self.control)
        tokens = [row.tolist() for row in coded.rows()]
        for item, own in zip(items, tokens, strict=True):
            # A prefix that no item has is an error of the trie.
            with contextlib.suppress(TrieError):
                if None in self.grounding.trie.next_tokens(own, excluded=gone):
                    taken = f"item {item.item_id!r}: its codes are those of another item too"
                    raise SemanticIdError(f"{taken}; give it codes of its own")
        return tokens


def _codes_of(catalog: Catalog, semantic_ids: SemanticIds | None) -> SemanticIds:
    if semantic_ids is None:
        found = "the model writes items as codes, and this catalog comes without"
        hint = f"give its semantic IDs (*{INDEX} and *{ITEM2ID})"
        raise SemanticIdError(f"catalog {catalog.name}: {found}; {hint}")
    if len(semantic_ids) != len(catalog):
        found = f"{len(catalog)} items, and codes of {len(semantic_ids)}"
        raise SemanticIdError(f"catalog {catalog.name}: {found}; expected codes for every item")
    return semantic_ids
