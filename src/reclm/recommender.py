"""The public face: a trained model, its catalog and its engine."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from jaxtyping import Float32

from reclm.backbone import Backbone, ModelSpec, load_model, load_spec
from reclm.config import Decode
from reclm.data.catalog import Catalog
from reclm.data.chat import Role
from reclm.decoding.beam import ItemBeam, RankedItems, Slot
from reclm.decoding.constraint import ExcludedItems
from reclm.decoding.events import FinishReason
from reclm.decoding.generate import (
    Completion,
    Engine,
    Event,
    Finished,
    Grounding,
    ItemDone,
    Request,
    Scaffold,
    TextToken,
)
from reclm.decoding.retrieve import ItemRanking, ItemRetriever
from reclm.dialogue.render import ItemRef, Message, Part, Renderer, Text
from reclm.dialogue.tasks import ListScaffold, fit_history, list_scaffold, recommend_messages
from reclm.dialogue.templates import wording_named
from reclm.errors import ConfigError, DataError, NoItemLeftError, SemanticIdError, VectorError
from reclm.items.semantic_ids import INDEX, ITEM2ID, SemanticIds, load_semantic_ids
from reclm.items.titles import canonical_titles
from reclm.items.tokens import ItemTokens, encode_titles

_log = logging.getLogger(__name__)
_UNFINISHED_CHARACTER = "\ufffd"

ChatMessage = Message | Mapping[str, str]


@dataclass(frozen=True)
class Recommendation:
    """An item in an answer.

    Attributes:
        item_id: Its id in the catalog.
        title: Its title as published.
        rank: Its place in the answer, from 1.
        score: Probability the model gave it at its place: in a ranking among all items of the
            catalog, in a written list among those that were still allowed.
    """

    item_id: str
    title: str
    rank: int
    score: float


@dataclass(frozen=True)
class Answer:
    """What the assistant said.

    Attributes:
        text: The answer with titles in place of item spans.
        items: The items it recommends, in order.
        message: The same as a turn of the conversation, to be put before the user's next one.
        finish_reason: Why it ended: ``eos``, ``length`` or ``no_item_left``.
    """

    text: str
    items: tuple[Recommendation, ...]
    message: Message
    finish_reason: FinishReason


class Recommender:
    """A model that recommends items of one catalog.

    Args:
        backbone: Model and tokenizer.
        spec: How the model was trained, which is how it has to be asked.
        catalog: The items.
        semantic_ids: Codes of the items, for a model that writes codes.

    Attributes:
        backbone: Model and tokenizer.
        spec: How the model was trained.
        catalog: The items, each with the title the model writes as its ``title_t``.
        item_tokens: Tokens of the items.
        renderer: Turns messages into prompts.
        grounding: The items in the form the engine names them in.
        engine: Generates answers.
        beam: Ranks the items of one place in a text.

    Raises:
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
    ) -> None:
        titles = canonical_titles(catalog, backbone.tokenizer)
        self.backbone = backbone
        self.spec = spec
        self.catalog = catalog.with_titles_t(titles)
        self.item_tokens = _item_tokens(backbone, spec, catalog, titles, semantic_ids)
        self.renderer = Renderer(backbone.tokenizer, self.item_tokens)
        self._titles = titles
        self._trie = self.item_tokens.trie()
        self._longest = int(np.diff(self.item_tokens.offsets).max())
        self._scaffolds: dict[int, ListScaffold] = {}
        self._category_rules: dict[tuple[str, ...], ExcludedItems] = {}
        retriever = None if backbone.head is None else ItemRetriever(backbone.head)
        self.grounding = Grounding(self._trie, retriever)
        self.engine = Engine(
            backbone.model,
            self._trie,
            soi_token_id=backbone.soi_token_id,
            eoi_token_id=backbone.eoi_token_id,
            stop_token_ids=_stop_token_ids(backbone, self._scaffold(1)),
            item_only_token_ids=backbone.code_token_ids,
            retriever=retriever,
        )
        self.beam: ItemBeam | ItemRanking
        if retriever is not None:
            self.beam = ItemRanking(backbone.model, self._trie, retriever)
        else:
            self.beam = ItemBeam(
                backbone.model,
                self._trie,
                soi_token_id=backbone.soi_token_id,
                eoi_token_id=backbone.eoi_token_id,
            )

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: str = "auto") -> Recommender:
        """Loads a trained model with the catalog that lies beside it.

        Args:
            folder: Folder of a trained model.
            device: ``auto``, ``cpu``, ``cuda``, ...

        Raises:
            BackboneError: The model is incomplete or damaged.
            DataError: The catalog is.
            SemanticIdError: The model writes codes, and the index files are missing or damaged.
            TokenizerError: The tokenizer is not the one the model was saved with.
        """
        catalog = Catalog.load(folder)
        semantic_ids = None
        if load_spec(folder).item_form == "codes":
            semantic_ids = load_semantic_ids(folder, catalog)
        backbone, spec = load_model(folder, device)
        return cls(backbone, spec, catalog, semantic_ids)

    def with_catalog(
        self,
        catalog: Catalog,
        semantic_ids: SemanticIds | None = None,
        vectors: Float32[np.ndarray, "items dim"] | None = None,
    ) -> Recommender:
        """The same model on another catalog; the weights are shared.

        Args:
            catalog: The items.
            semantic_ids: Codes of the items, needed by a model that writes codes; from the
                quantizer whose codes the model was trained with.
            vectors: Vector of each item, needed by a model that retrieves; made by the model and
                wording of those it was trained with (`reclm items embed`).

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
        return Recommender(backbone, self.spec, catalog, semantic_ids)

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
        """
        rows = [self.catalog.rows(history).tolist() for history in histories]
        excluded = [self.excluded(exclude, categories, row, exclude_seen) for row in rows]
        found: list[list[Recommendation]] = []
        for start in range(0, len(rows), batch_size):
            batch = zip(
                rows[start : start + batch_size], excluded[start : start + batch_size], strict=True
            )
            if decode == "beam":
                slots = [self.slot(history, k, without) for history, without in batch]
                found += map(self._ranking, self.beam.top_items(slots, k))
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
        if not categories:
            return ExcludedItems.build(self._trie, rows)
        key = tuple(sorted(set(categories)))
        if key not in self._category_rules:
            outside = ~self.catalog.allowed_rows(key)
            self._category_rules[key] = ExcludedItems.build(self._trie, outside)
        return ExcludedItems.build(self._trie, rows, base=self._category_rules[key])

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
            k: Items to recommend.
            excluded: Items the answer may not name.
            grounded: Whether items are held to the catalog and the form of the list is given; if
                not, the model writes what it likes.
            max_history: Newest items the prompt shows; None takes what the model was trained with.

        Raises:
            ConfigError: ``k`` is not positive, or the prompt does not fit the model.
        """
        if k < 1:
            raise ConfigError(f"k: found {k}; expected at least 1")
        wording = wording_named(self.spec.wording)
        limit = self.spec.max_history if max_history is None else max_history
        shown = [int(row) for row in history][-limit:] if limit else []

        def build(rows: Sequence[int]) -> tuple[Message, ...]:
            return recommend_messages(
                wording,
                rows,
                k,
                None,
                self._titles,
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
        room = sum(map(len, scaffold.before_item)) + k * (self._longest + 2) + len(scaffold.end)
        return Request(
            self.renderer.prompt(messages).tolist(),
            max_new_tokens=room,
            max_items=k,
            excluded=excluded,
            scaffold=Scaffold(scaffold.before_item) if grounded else None,
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
        pieces = AnswerText(self)
        request = self._chat_request(
            messages, exclude, categories, max_new_tokens, temperature, seed
        )
        for _ in pieces.read(request):
            pass
        return pieces.answer()

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
        """Answers as :meth:`chat` does, in pieces: text, and items in place of their titles."""
        request = self._chat_request(
            messages, exclude, categories, max_new_tokens, temperature, seed
        )
        return AnswerText(self).read(request)

    def _chat_request(
        self,
        messages: Sequence[ChatMessage],
        exclude: Sequence[str],
        categories: Sequence[str],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Request:
        turns = tuple(map(_as_message, messages))
        return Request(
            self.renderer.prompt(turns).tolist(),
            max_new_tokens=max_new_tokens,
            excluded=self.excluded(exclude, categories),
            temperature=temperature,
            seed=seed,
        )

    def _scaffold(self, k: int) -> ListScaffold:
        if k not in self._scaffolds:
            self._scaffolds[k] = list_scaffold(self.renderer, self.spec.list_form, k)
        return self._scaffolds[k]

    def _list(self, completion: Completion) -> list[Recommendation]:
        ranked = enumerate(zip(completion.items, completion.logprobs, strict=True), start=1)
        return [self.recommendation(row, rank, logprob) for rank, (row, logprob) in ranked]

    def _ranking(self, found: RankedItems) -> list[Recommendation]:
        ranked = enumerate(zip(found.rows.tolist(), found.logprobs.tolist(), strict=True), start=1)
        return [self.recommendation(row, rank, logprob) for rank, (row, logprob) in ranked]

    def recommendation(self, row: int, rank: int, logprob: float) -> Recommendation:
        """What is said of an item row that the engine named."""
        item = self.catalog.item(row)
        return Recommendation(item.item_id, item.title, rank, math.exp(logprob))

    def spelled_tokens(self, row: int) -> list[int]:
        """Tokens of an item's title in its span, which text behind the span is decoded after."""
        if self.spec.item_form == "titles":
            return self.item_tokens.span(row)
        [title] = encode_titles([self._titles[row]], self.backbone.tokenizer)
        return [self.item_tokens.soi_token_id, *title, self.item_tokens.eoi_token_id]

    def no_item_left(self) -> NoItemLeftError:
        """The error where an answer could not name a single item."""
        return NoItemLeftError(
            "no item left to recommend: the exclusions leave none of the "
            f"{len(self.catalog)} items; exclude fewer or name other categories"
        )


class AnswerText:
    """Turns the events of one answer into text pieces and items.

    Tokens are always decoded with all that precede them: a character may be spread over several
    tokens, and many tokenizers write a space only between two tokens.
    """

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self._tokens: list[int] = []
        self._shown = 0
        self._text: list[str] = []
        self._parts: list[Part] = []
        self._items: list[Recommendation] = []
        self._reason: FinishReason = "length"

    def read(self, request: Request) -> Iterator[str | Recommendation]:
        """Text pieces and items of a request as the engine answers it.

        Raises:
            NoItemLeftError: The exclusions leave no item at all.
        """
        for event in self._recommender.engine.generate([request]):
            yield from self.feed(event)

    def feed(self, event: Event) -> Iterator[str | Recommendation]:
        """What an event of the answer adds: text, an item, or nothing yet.

        Raises:
            NoItemLeftError: The exclusions leave no item at all.
        """
        recommender = self._recommender
        if isinstance(event, TextToken):
            self._tokens.append(event.token_id)
            yield from self._new_text(wait=True)
        elif isinstance(event, ItemDone):
            yield from self._new_text(wait=False)
            self._tokens += recommender.spelled_tokens(event.item_row)
            self._shown = len(self._decode())
            item = recommender.recommendation(event.item_row, len(self._items) + 1, event.logprob)
            self._items.append(item)
            self._parts.append(ItemRef(event.item_row))
            self._text.append(item.title)
            yield item
        elif isinstance(event, Finished):
            if event.reason == "no_item_left":
                raise recommender.no_item_left()
            yield from self._new_text(wait=False)
            self._reason = event.reason

    def answer(self) -> Answer:
        """The answer as far as it has been fed."""
        message = Message("assistant", tuple(self._parts))
        return Answer("".join(self._text), tuple(self._items), message, self._reason)

    def _decode(self) -> str:
        tokenizer: Any = self._recommender.backbone.tokenizer
        text: str = tokenizer.decode(
            self._tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _new_text(self, *, wait: bool) -> Iterator[str]:
        text = self._decode()
        piece = text[self._shown :]
        if not piece or (wait and text.endswith(_UNFINISHED_CHARACTER)):
            return
        self._shown = len(text)
        self._text.append(piece)
        if self._parts and isinstance(self._parts[-1], Text):
            piece_before = self._parts.pop()
            assert isinstance(piece_before, Text)
            self._parts.append(Text(piece_before.text + piece))
        else:
            self._parts.append(Text(piece))
        yield piece


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
