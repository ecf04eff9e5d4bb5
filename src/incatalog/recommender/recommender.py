"""The public face: a trained model, its catalog and its engine."""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import Float32

from incatalog.codes.semantic_ids import INDEX, ITEM2ID, SemanticIds, load_semantic_ids
from incatalog.config import Decode
from incatalog.constraint.excluded import ExcludedItems
from incatalog.data.catalog import Catalog, Item
from incatalog.data.conversations import Role
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Completion, RankedItems
from incatalog.decoding.ranking import ItemBeam, ItemRanking
from incatalog.decoding.request import Grounding, Request, Scaffold, Slot
from incatalog.decoding.retriever import ItemRetriever
from incatalog.dialogue.render import Message, Renderer, Text
from incatalog.dialogue.tasks import ListScaffold, fit_history, list_scaffold, recommend_messages
from incatalog.dialogue.templates import wording_named
from incatalog.errors import (
    BackboneError,
    CatalogError,
    ConfigError,
    ContextLengthError,
    DataError,
    NoItemLeftError,
    SemanticIdError,
    TrieError,
    VectorError,
)
from incatalog.items.aliases import Aliases
from incatalog.items.titles import canonical_titles, new_titles
from incatalog.items.tokens import ItemTokens, encode_titles
from incatalog.model.backbone import Backbone
from incatalog.model.saved import load_model
from incatalog.model.spec import ModelSpec, load_spec, spec_file
from incatalog.packed.model import PackedModel
from incatalog.recent import RecentlyUsed
from incatalog.recommender.answer import Answer, AnswerText, Recommendation, recommendation
from incatalog.trie.trie import ItemTrie

_log = logging.getLogger(__name__)

# Rules for sets of categories and texts of lists that are kept: users choose which there are.
_RULES_KEPT = 16
_SCAFFOLDS_KEPT = 64

ChatMessage = Message | Mapping[str, str]


class Recommender:
    """A model that recommends items of one catalog.

    Several threads may use it, and all others of the same model: they take turns with the model,
    pass by pass. A stream that is not read on waits and holds up no one. Who uses the model itself
    meanwhile, as by ``model.generate``, has to hold ``engine.model.lock``.

    Args:
        backbone: Model and tokenizer.
        spec: How the model was trained, which is how it has to be asked.
        catalog: The items.
        semantic_ids: Codes of the items, for a model that writes codes.
        aliases: Spellings of the items besides their titles, for a model that writes those too.
            What is said of an item, in answers and in further prompts, is its title.
        packed: The same model as the engine feeds it, where there is one already.

    Attributes:
        backbone: Model and tokenizer.
        spec: How the model was trained.
        catalog: The items, each with the title the model writes as its ``title_t``.
        item_tokens: Tokens of the items, by their titles or codes.
        aliases: Spellings of the items besides their titles.
        renderer: Turns messages into prompts.
        grounding: The items in the form the engine names them in.
        engine: Generates answers, also for the same model on other catalogs.

    Raises:
        CatalogError: An alias is the title of an item.
        ConfigError: ``packed`` is another model.
        SemanticIdError: The model writes codes and none are given.
        TokenizerError: The tokenizer lacks tokens of the items.
        VectorError: The model retrieves, and its vectors are those of another number of items.
    """

    def __init__(
        self,
        backbone: Backbone,
        spec: ModelSpec,
        catalog: Catalog,
        semantic_ids: SemanticIds | None = None,
        aliases: Aliases | None = None,
        packed: PackedModel | None = None,
    ) -> None:
        if packed is not None and packed.model is not backbone.model:
            raise ConfigError("packed: is another model than the backbone's; pack that one")
        titles = canonical_titles(catalog, backbone.tokenizer)
        self.backbone = backbone
        self.spec = spec
        self.catalog = catalog.with_titles_t(titles)
        self.item_tokens = _item_tokens(backbone, spec, catalog, titles, semantic_ids)
        self.aliases = aliases or Aliases()
        self.renderer = Renderer(backbone.tokenizer, self.item_tokens)
        retriever = None if backbone.head is None else ItemRetriever(backbone.head)
        self._scaffolds: RecentlyUsed[int, ListScaffold] = RecentlyUsed(_SCAFFOLDS_KEPT)
        self._disabled: frozenset[int] = frozenset()
        self._longest_alias = 0
        self._ground(self._spelled_trie(), retriever)
        self.engine = Engine(
            backbone.model if packed is None else packed,
            self._trie,
            soi_token_id=backbone.soi_token_id,
            eoi_token_id=backbone.eoi_token_id,
            stop_token_ids=_stop_token_ids(backbone, self._scaffold(1)),
            item_only_token_ids=backbone.code_token_ids,
            retriever=retriever,
        )

    def _spelled_trie(self) -> ItemTrie:
        """The prefix tree of all spellings."""
        if not self.aliases:
            return self.item_tokens.trie()
        shared = self.catalog.titles_taken.intersection(self.aliases.texts)
        if shared:
            raise CatalogError(
                f"catalog {self.catalog.name}: {min(shared)!r} is the title of an item and an "
                "alias; expected it to name one item; give the catalog the model was trained on"
            )
        others = ItemTokens.from_titles(self.aliases.texts, self.backbone.tokenizer)
        self._longest_alias = int(np.diff(others.offsets).max())
        return self.item_tokens.joined(others).trie(self.aliases.items(len(self.catalog)))

    def _ground(self, trie: ItemTrie, retriever: ItemRetriever | None) -> None:
        """Takes the items in the form the engine names them in."""
        self._trie = trie
        self.grounding = Grounding(trie, retriever)
        longest = int(np.diff(self.item_tokens.offsets).max())
        self._longest = max(longest, self._longest_alias)
        self._rules = _no_rules()
        self._beam: ItemBeam | ItemRanking | None = None

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, device: str = "auto", *, frozen: bool = True, verify: bool = True
    ) -> Recommender:
        """Loads a trained model with the catalog that lies beside it.

        Args:
            folder: Folder of a trained model.
            device: ``auto``, ``cpu``, ``cuda``, ...
            frozen: Nothing will change the weights; see
                :class:`~incatalog.packed.model.PackedModel`.
            verify: Check the files against the checksums that were recorded when the model was
                trained; without, huge models load sooner.

        Raises:
            ArtifactError: A file is not the one that was written.
            BackboneError: The model is incomplete or damaged.
            DataError: The catalog is.
            SemanticIdError: The model writes codes, and the index files are missing or damaged.
            TokenizerError: The tokenizer is not the one the model was saved with.
        """
        catalog = Catalog.load(folder)
        semantic_ids = None
        spec = load_spec(folder)
        try:
            wording_named(spec.wording)
        except ConfigError as error:
            raise BackboneError(f"{spec_file(folder)}: wording: {error}") from error
        if spec.item_form == "codes":
            semantic_ids = load_semantic_ids(folder, catalog)
        backbone, spec = load_model(folder, device, verify=verify)
        aliases = Aliases.load(folder, catalog, spec.aliases)
        packed = PackedModel(backbone.model, frozen=frozen)
        return cls(backbone, spec, catalog, semantic_ids, aliases, packed)

    def with_catalog(
        self,
        catalog: Catalog,
        semantic_ids: SemanticIds | None = None,
        vectors: Float32[np.ndarray, "items dim"] | None = None,
    ) -> Recommender:
        """The same model on another catalog, whose items have no aliases; the weights are shared.

        Args:
            catalog: The items.
            semantic_ids: Codes of the items, needed by a model that writes codes; from the
                quantizer whose codes the model was trained with.
            vectors: Vector of each item, needed by a model that retrieves; made by the model and
                wording of those it was trained with (`incatalog items embed`).

        Raises:
            SemanticIdError: The model writes codes and none are given.
            TokenizerError: The model has no token for one of the codes.
            VectorError: The model retrieves and vectors are missing or do not fit.
        """
        backbone = self.backbone
        if backbone.head is not None:
            if vectors is None:
                raise VectorError(
                    f"catalog {catalog.name}: the model finds items by their vectors, and this "
                    f"catalog comes without; {backbone.head.how_to_embed()}"
                )
            backbone = replace(backbone, head=backbone.head.with_vectors(vectors))
        return Recommender(backbone, self.spec, catalog, semantic_ids, packed=self.engine.model)

    @property
    def beam(self) -> ItemBeam | ItemRanking:
        """Ranks the items of one place in a text."""
        if self._beam is None:
            trie, retriever = self.grounding.trie, self.grounding.retriever
            if retriever is not None:
                self._beam = ItemRanking(self.engine.model, trie, retriever)
            else:
                self._beam = ItemBeam(
                    self.engine.model,
                    trie,
                    soi_token_id=self.backbone.soi_token_id,
                    eoi_token_id=self.backbone.eoi_token_id,
                )
        return self._beam

    def with_changes(
        self,
        items: Sequence[Item] = (),
        removed: Sequence[str] = (),
        semantic_ids: SemanticIds | None = None,
        vectors: Float32[np.ndarray, "items dim"] | None = None,
    ) -> Recommender:
        """The same model on a changed catalog; answers that have begun are not disturbed.

        Nothing is built anew, so it takes milliseconds.

        Args:
            items: New items; one of them may take the id of a removed one.
            removed: Ids of items that leave, with all their spellings.
            semantic_ids: Codes of the new items, needed by a model that writes codes.
            vectors: Vectors of the new items, needed by a model that retrieves.

        Raises:
            CatalogError: A removed item is not there, a new one's id is taken, or none is left.
            DataError: A title is empty once cleaned, or the tokenizer cannot spell it.
            SemanticIdError: The model writes codes, and none are given or those of another item.
            TokenizerError: The model has no token for one of the codes.
            VectorError: The model retrieves and vectors are missing or do not fit.
        """
        if not items and not removed:
            return self
        gone = [self.catalog.row(item_id) for item_id in removed]
        changed = copy.copy(self)
        changed.aliases = self.aliases.without(gone)
        titles = self._titles_of(items, gone)
        tokens = self._tokens_of(items, titles, gone, semantic_ids)
        named = [replace(item, title_t=t) for item, t in zip(items, titles, strict=True)]
        changed.catalog, rows = self.catalog.with_changes(named, removed)
        changed._disabled = self._disabled.difference(gone)
        trie, retriever = self._trie, self.grounding.retriever
        if items:
            changed.item_tokens = self.item_tokens.with_rows(rows, tokens)
            changed.renderer = self.renderer.with_items(changed.item_tokens)
            trie = trie.with_items(tokens, rows=rows)
            retriever = self._retriever_with(rows, vectors)
        changed._ground(trie.without_items(gone), retriever)
        return changed

    def with_metadata(self, catalog: Catalog) -> Recommender:
        """The same items under another catalog's name, categories and descriptions.

        Raises:
            CatalogError: They are not the same items in the same order.
        """
        if catalog.fingerprint != self.catalog.fingerprint:
            raise CatalogError(
                f"catalog {catalog.name}: ids or titles differ from {self.catalog.name}; "
                "expected the same items in the same order"
            )
        changed = copy.copy(self)
        changed.catalog = catalog.with_titles_t(self.catalog.titles_t)
        changed._rules = _no_rules()
        return changed

    def with_disabled(self, item_ids: Collection[str]) -> Recommender:
        """The same recommender, where exactly these items of the catalog are never recommended.

        Unlike removed ones they may stand in histories, and come back as they were.

        Raises:
            CatalogError: An item is not in the catalog.
        """
        changed = copy.copy(self)
        changed._disabled = frozenset(self.catalog.row(item_id) for item_id in item_ids)
        changed._rules = _no_rules()
        return changed

    @property
    def disabled(self) -> frozenset[int]:
        """Rows of items that are never recommended."""
        return self._disabled

    def _titles_of(self, items: Sequence[Item], gone: Sequence[int]) -> list[str]:
        """Titles of new items in the form the model writes."""
        left = {self.catalog.titles_t[row] for row in gone}
        taken = self.catalog.titles_taken - left
        if self.aliases:
            taken = taken.union(self.aliases.without(gone).texts)
        return new_titles(items, taken, self.backbone.tokenizer)

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
        if self.spec.item_form == "titles":
            return encode_titles(titles, self.backbone.tokenizer)
        if semantic_ids is None or len(semantic_ids) != len(items):
            raise SemanticIdError(
                f"catalog {self.catalog.name}: the model writes items as codes, and item "
                f"{items[0].item_id!r} comes without; give the codes of every new item"
            )
        coded = ItemTokens.from_codes(semantic_ids, self.backbone.tokenizer)
        tokens = [row.tolist() for row in coded.rows()]
        for item, own in zip(items, tokens, strict=True):
            if None in self._next_tokens(own, gone):
                raise SemanticIdError(
                    f"item {item.item_id!r}: its codes are those of another item too; give it "
                    "codes of its own"
                )
        return tokens

    def _next_tokens(self, prefix: Sequence[int], gone: Sequence[int]) -> list[int | None]:
        try:
            return self._trie.next_tokens(prefix, excluded=gone)
        except TrieError:
            return []

    def _retriever_with(
        self, rows: Sequence[int], vectors: Float32[np.ndarray, "items dim"] | None
    ) -> ItemRetriever | None:
        """Finds the items of this catalog and new ones at some rows."""
        retriever = self.grounding.retriever
        if retriever is None:
            return None
        if vectors is None or len(vectors) != len(rows):
            raise VectorError(
                f"catalog {self.catalog.name}: the model finds items by their vectors, and a new "
                f"item comes without; {retriever.head.how_to_embed()}"
            )
        return ItemRetriever(retriever.head.with_rows(rows, vectors))

    def recommend(
        self,
        history_item_ids: Sequence[str],
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        exclude_seen: bool = True,
        decode: Decode = "beam",
    ) -> list[Recommendation]:
        """Recommends items that follow a history.

        Args:
            history_item_ids: Item ids, oldest first; the model sees the newest of them.
            k: Items to recommend.
            exclude: Item ids never to recommend.
            categories: Recommend from these categories only; all if empty.
            exclude_seen: Never recommend items of the history.
            decode: ``beam`` ranks the items the model would write in first place, by their exact
                probability; ``list`` has it write a list, item after item.

        Returns:
            ``k`` different items, best first; fewer only where the catalog has no more to offer.

        Raises:
            CatalogError: An item or category is not in the catalog.
            NoItemLeftError: The exclusions leave no item at all.
        """
        [found] = self.recommend_batch(
            [history_item_ids], k, exclude, categories, exclude_seen, decode
        )
        if not found:
            raise self.no_item_left()
        return found

    def recommend_batch(
        self,
        histories: Sequence[Sequence[str]],
        k: int = 10,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        exclude_seen: bool = True,
        decode: Decode = "beam",
        batch_size: int = 64,
    ) -> list[list[Recommendation]]:
        """Recommends for many histories side by side; arguments as in :meth:`recommend`.

        A history that leaves no item to recommend gets an empty list and does not stop the others.

        Raises:
            CatalogError: An item or category is not in the catalog.
            ConfigError: ``k`` or ``batch_size`` is not positive.
        """
        if batch_size < 1:
            raise ConfigError(f"batch_size: found {batch_size}; expected at least 1")
        k = self._most(k)
        rows = [self.catalog.rows(history).tolist() for history in histories]
        excluded = [self.excluded(exclude, categories, row, exclude_seen) for row in rows]
        found: list[list[Recommendation]] = []
        for start in range(0, len(rows), batch_size):
            batch = zip(
                rows[start : start + batch_size], excluded[start : start + batch_size], strict=True
            )
            if decode == "beam":
                slots = [self.slot(history, k, without) for history, without in batch]
                found += map(self.ranking, self.beam.top_items(slots, k))
            else:
                requests = [self.list_request(history, k, without) for history, without in batch]
                found += map(self._list, self.engine.complete(requests))
        return found

    def excluded(
        self,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        history: Sequence[int] = (),
        exclude_seen: bool = False,
    ) -> ExcludedItems:
        """The items an answer may not name.

        Args:
            exclude: Item ids.
            categories: Items outside all of these are excluded; none is if empty.
            history: Item rows of the history.
            exclude_seen: Whether the history is excluded.

        Raises:
            CatalogError: An item or category is not in the catalog.
        """
        rows = {int(row) for row in self.catalog.rows(exclude)}
        if exclude_seen:
            rows.update(int(row) for row in history)
        return ExcludedItems.build(self._trie, rows, base=self._rule(categories))

    def _rule(self, categories: Sequence[str]) -> ExcludedItems | None:
        """The items that no answer from these categories may name, whoever asks."""
        key = tuple(sorted(set(categories)))
        if not key and not self._disabled:
            return None
        return self._rules.get(key, lambda: self._new_rule(key))

    def _new_rule(self, categories: Sequence[str]) -> ExcludedItems:
        outside = ~self.catalog.allowed_rows(categories)
        outside[list(self._disabled)] = True
        return ExcludedItems.build(self._trie, outside)

    def list_request(
        self,
        history: Sequence[int],
        k: int,
        excluded: ExcludedItems | None = None,
        *,
        grounded: bool = True,
        max_history: int | None = None,
    ) -> Request:
        """The request for a list of ``k`` items, worded as in training.

        Args:
            history: Item rows, oldest first.
            k: Items to recommend; all of the catalog where it has fewer.
            excluded: Items the answer may not name.
            grounded: Whether items are held to the catalog and the form of the list is given; if
                not, the model writes what it likes.
            max_history: Newest items the prompt shows; None takes what the model was trained with.

        Raises:
            ConfigError: ``k`` is not positive, or the prompt does not fit the model.
        """
        k = self._most(k)
        wording = wording_named(self.spec.wording)
        limit = self.spec.max_history if max_history is None else max_history
        shown = [int(row) for row in history][-limit:] if limit else []

        def build(rows: Sequence[int]) -> tuple[Message, ...]:
            return recommend_messages(
                wording,
                rows,
                k,
                None,
                self.catalog.titles_t,
                self.spec.history_form,
                self.spec.list_form,
            )

        messages, cut = fit_history(self.renderer, build, shown, self.spec.max_length)
        if cut:
            _log.warning(
                "the prompt exceeds the model's %d tokens: the oldest %d of %d history items "
                "were left out",
                self.spec.max_length,
                cut,
                len(shown),
            )
        scaffold = self._scaffold(k)
        return Request(
            self.renderer.prompt(messages).tolist(),
            max_new_tokens=self._room(scaffold),
            max_items=k,
            excluded=self._rule(()) if excluded is None else excluded,
            scaffold=Scaffold(scaffold.before_item) if grounded else None,
            grounding=self.grounding,
            grounded=grounded,
        )

    def slot(
        self,
        history: Sequence[int],
        k: int,
        excluded: ExcludedItems | None = None,
        *,
        max_history: int | None = None,
    ) -> Slot:
        """The first place of the list that :meth:`list_request` asks for, to be searched.

        Raises:
            ConfigError: ``k`` is not positive, or the prompt does not fit the model.
        """
        request = self.list_request(history, k, excluded, max_history=max_history)
        assert request.scaffold is not None
        return Slot([*request.prompt_ids, *request.scaffold.before_item[0]], excluded)

    def chat(
        self,
        messages: Sequence[ChatMessage],
        *,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Answer:
        """Answers the last message of a conversation.

        Args:
            messages: Mappings with ``role`` (system, user, assistant) and ``content``, or the
                ``message`` of an earlier answer, which keeps its items items.
            exclude: Item ids never to recommend.
            categories: Recommend from these categories only; all if empty.
            max_new_tokens: Tokens of the answer at most.
            temperature: Divides the scores before sampling; 0 decodes greedily.
            seed: Seed of the samples.

        Raises:
            CatalogError: An item or category is not in the catalog.
            DataError: A message is malformed.
            NoItemLeftError: The exclusions leave no item at all.
        """
        text = self.answer_text()
        request = self._chat_request(
            messages, exclude, categories, max_new_tokens, temperature, seed
        )
        for _ in self._read(request, text):
            pass
        return text.answer()

    def stream(
        self,
        messages: Sequence[ChatMessage],
        *,
        exclude: Sequence[str] = (),
        categories: Sequence[str] = (),
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[str | Recommendation]:
        """Answers as :meth:`chat` does, in pieces: text, and items in place of their titles.

        Between two pieces the recommender may be used for anything else, by any thread. An answer
        that is not read to its end is given up when the stream is closed or forgotten.
        """
        request = self._chat_request(
            messages, exclude, categories, max_new_tokens, temperature, seed
        )
        return self._read(request, self.answer_text())

    def answer_text(self) -> AnswerText:
        """What turns the events of one answer into text and items of this catalog."""
        return AnswerText(
            self.backbone.tokenizer, self.catalog, self.spelled_tokens, self.no_item_left
        )

    def _read(self, request: Request, text: AnswerText) -> Iterator[str | Recommendation]:
        with contextlib.closing(self.engine.generate([request])) as events:
            for event in events:
                yield from text.feed(event)

    def _chat_request(
        self,
        messages: Sequence[ChatMessage],
        exclude: Sequence[str],
        categories: Sequence[str],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Request:
        return self.chat_request(
            messages,
            excluded=self.excluded(exclude, categories),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )

    def chat_request(
        self,
        messages: Sequence[ChatMessage],
        *,
        history: Sequence[int] = (),
        k: int | None = None,
        items: bool = True,
        excluded: ExcludedItems | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
    ) -> Request:
        """The request for the next turn of a conversation.

        Args:
            messages: The conversation; its last message is the user's.
            history: Item rows of the user's history, oldest first. The newest of them follow the
                last message, in the words the model was trained with.
            k: Answer with a list of this many items, all of the catalog where it has fewer; None
                lets the model write as it likes.
            items: Whether the answer may name items at all.
            excluded: Items the answer may not name.
            max_new_tokens: Tokens of the answer at most.
            temperature: Divides the scores before sampling; 0 decodes greedily.
            top_p: Sample from the smallest set of tokens with this probability.
            seed: Seed of the samples.

        Raises:
            ContextLengthError: The prompt does not fit the model.
            ConfigError: A number cannot work.
            DataError: A message is malformed, or the last one is not the user's.
        """
        k = None if k is None else self._most(k)
        turns = [_as_message(message) for message in messages]
        if turns and turns[-1].role == "user" and (history or k is not None):
            turns[-1:] = self._with_history(turns[-1], history, k)
        prompt = self.renderer.prompt(turns).tolist()
        context = self.context_length
        if context is not None and len(prompt) >= context:
            raise ContextLengthError(
                f"messages: {len(prompt)} tokens; the model reads and writes {context} in all; "
                "leave the oldest out"
            )
        scaffold = None
        if k is not None:
            written = self._scaffold(k)
            scaffold = Scaffold(written.before_item)
            max_new_tokens = min(max_new_tokens, self._room(written))
        if context is not None:
            max_new_tokens = min(max_new_tokens, context - len(prompt))
        return Request(
            prompt,
            max_new_tokens=max_new_tokens,
            max_items=k if items else 0,
            excluded=self._rule(()) if excluded is None else excluded,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            scaffold=scaffold,
            grounding=self.grounding,
        )

    @property
    def context_length(self) -> int | None:
        """Tokens the model reads and writes in all; None if its configuration does not say."""
        config = self.backbone.model.config
        found: int | None = getattr(config, "max_position_embeddings", None)
        return found

    def _with_history(
        self, message: Message, history: Sequence[int], k: int | None
    ) -> list[Message]:
        """A user's message, and behind it what the model was trained to be asked."""
        asked = recommend_messages(
            wording_named(self.spec.wording),
            list(history)[-self.spec.max_history :],
            k or self.spec.list_length,
            None,
            self.catalog.titles_t,
            self.spec.history_form,
            self.spec.list_form,
        )
        said = [part for part in message.parts if not isinstance(part, Text) or part.text.strip()]
        if not said:
            return list(asked)
        *opening, request = asked
        return [*opening, Message("user", (*said, Text("\n\n"), *request.parts))]

    def _scaffold(self, k: int) -> ListScaffold:
        return self._scaffolds.get(k, lambda: list_scaffold(self.renderer, self.spec.list_form, k))

    def _most(self, k: int) -> int:
        """So many items, or all there are.

        Raises:
            ConfigError: ``k`` is not positive.
        """
        if k < 1:
            raise ConfigError(f"k: found {k}; expected at least 1")
        return min(k, self.catalog.num_live)

    @property
    def longest_span(self) -> int:
        """Tokens of an item span at most, the two control tokens included."""
        return self._longest + 2

    def _room(self, scaffold: ListScaffold) -> int:
        """Tokens that a list takes at most."""
        around = sum(map(len, scaffold.before_item)) + len(scaffold.end)
        return around + len(scaffold.before_item) * self.longest_span

    def _list(self, completion: Completion) -> list[Recommendation]:
        ranked = enumerate(zip(completion.items, completion.logprobs, strict=True), start=1)
        return [recommendation(self.catalog, row, rank, prob) for rank, (row, prob) in ranked]

    def ranking(self, found: RankedItems) -> list[Recommendation]:
        """What a search found, as recommendations."""
        ranked = enumerate(zip(found.rows.tolist(), found.logprobs.tolist(), strict=True), start=1)
        return [recommendation(self.catalog, row, rank, prob) for rank, (row, prob) in ranked]

    def spelled_tokens(self, row: int) -> list[int]:
        """Tokens of an item's title in its span, which text behind the span is decoded after."""
        if self.spec.item_form == "titles":
            return self.item_tokens.span(row)
        [title] = encode_titles([self.catalog.titles_t[row]], self.backbone.tokenizer)
        return [self.item_tokens.soi_token_id, *title, self.item_tokens.eoi_token_id]

    def no_item_left(self) -> NoItemLeftError:
        """The error where an answer could not name a single item."""
        return NoItemLeftError(
            "no item left to recommend: the exclusions leave none of the "
            f"{len(self.catalog)} items; exclude fewer or name other categories"
        )


def _no_rules() -> RecentlyUsed[tuple[str, ...], ExcludedItems]:
    return RecentlyUsed(_RULES_KEPT)


def _item_tokens(
    backbone: Backbone,
    spec: ModelSpec,
    catalog: Catalog,
    titles: Sequence[str],
    semantic_ids: SemanticIds | None,
) -> ItemTokens:
    """The items as this model writes them."""
    if spec.item_form == "titles":
        return ItemTokens.from_titles(titles, backbone.tokenizer)
    if semantic_ids is None:
        raise SemanticIdError(
            f"catalog {catalog.name}: the model writes items as codes, and this catalog comes "
            f"without; give its semantic IDs (*{INDEX} and *{ITEM2ID})"
        )
    if len(semantic_ids) != len(catalog):
        raise SemanticIdError(
            f"catalog {catalog.name}: {len(catalog)} items, and codes of {len(semantic_ids)}; "
            "expected codes for every item"
        )
    return ItemTokens.from_codes(semantic_ids, backbone.tokenizer)


def _as_message(message: ChatMessage) -> Message:
    if isinstance(message, Message):
        return message
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        raise DataError(
            f"messages: found {dict(message)!r}; expected a role (system, user, assistant) and "
            "a content of text"
        )
    return Message(cast(Role, role), (Text(content),))


def _stop_token_ids(backbone: Backbone, scaffold: ListScaffold) -> set[int]:
    """The special token the chat template ends a turn with, and what the model itself names."""
    special = {
        number for number, token in backbone.tokenizer.added_tokens_decoder.items() if token.special
    }
    stop = {token for token in scaffold.end if token in special}
    named = [backbone.tokenizer.eos_token_id]
    configured = getattr(backbone.model.generation_config, "eos_token_id", None)
    named += configured if isinstance(configured, list) else [configured]
    return stop | {int(token) for token in named if token is not None}
