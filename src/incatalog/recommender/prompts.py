"""From a history or a conversation to a request of the engine."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import numpy as np
from transformers import PreTrainedTokenizerFast

from incatalog.config import ItemDecode, ListForm
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.data.conversations import Role
from incatalog.decoding.request import Request, Scaffold, Slot
from incatalog.dialogue.render import Message, Renderer, Text
from incatalog.dialogue.tasks import fit_history, list_parts, recommend_messages
from incatalog.dialogue.templates import wording_named
from incatalog.errors import ConfigError, ContextLengthError, DataError
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recent import RecentlyUsed
from incatalog.recommender.items import ModelItems
from incatalog.recommender.spotting import as_known

_log = logging.getLogger(__name__)
_CUT = "the prompt exceeds the model's %d tokens: the oldest %d of %d history items were left out"

# Users choose how long lists are, so the number of scaffolds that are kept is bounded.
_SCAFFOLDS_KEPT = 64

ChatMessage = Message | Mapping[str, str]

# What stands before each item of a list, and behind the last.
_List = tuple[Scaffold, tuple[int, ...]]


class Prompts:
    """Asks one model for items of one catalog, in the words it was trained with."""

    def __init__(self, backbone: Backbone, spec: ModelSpec, items: ModelItems) -> None:
        self._backbone, self._spec, self._items = backbone, spec, items
        self._scaffolds: RecentlyUsed[int, _List] = RecentlyUsed(_SCAFFOLDS_KEPT)
        self.renderer = Renderer(backbone.tokenizer, items.tokens, spec.system)

    def with_items(self, items: ModelItems) -> Prompts:
        """The same for other items, which were written with the same tokenizer."""
        other = copy.copy(self)
        other._items = items
        other.renderer = self.renderer.with_items(items.tokens)
        return other

    def list_request(
        self,
        history: Sequence[int],
        k: int,
        excluded: ExcludedItems | None = None,
        *,
        weights: ItemWeights | None = None,
        grounded: bool = True,
        max_history: int | None = None,
        item_decode: ItemDecode = "search",
    ) -> Request:
        """The request for a list of ``k`` items of the catalog, worded as in training.

        The history (oldest item first) is cut to the newest `max_history` items, by default as many
        as in training. The exclusions are the base of the weights. An answer that is not grounded
        is held neither to the catalog nor to the form of a list.
        """
        k = self._items.at_most(k)
        longest = self._spec.max_length
        limit = self._spec.max_history if max_history is None else max_history
        shown = list(map(int, history))[-limit:] if limit else []
        messages, cut = fit_history(self.renderer, partial(self.messages, k=k), shown, longest)
        if cut:
            _log.warning(_CUT, longest, cut, len(shown))
        scaffold, room = self._list(k)
        return Request(
            self.renderer.prompt(messages).tolist(),
            max_new_tokens=room,
            max_items=k,
            excluded=self._items.rule() if excluded is None else excluded,
            weights=weights,
            item_decode=item_decode,
            first_share=self._spec.first_share,
            scaffold=scaffold if grounded else None,
            grounding=self._items.grounding,
            grounded=grounded,
        )

    def slot(
        self,
        history: Sequence[int],
        k: int,
        excluded: ExcludedItems | None = None,
        *,
        weights: ItemWeights | None = None,
        max_history: int | None = None,
    ) -> Slot:
        """The first place of the list that `list_request` asks for, to be searched."""
        request = self.list_request(history, k, excluded, max_history=max_history)
        assert request.scaffold is not None
        return Slot([*request.prompt_ids, *request.scaffold.before_item[0]], excluded, weights)

    def chat_request(
        self,
        messages: Sequence[ChatMessage],
        *,
        history: Sequence[int] = (),
        k: int | None = None,
        items: bool = True,
        excluded: ExcludedItems | None = None,
        weights: ItemWeights | None = None,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int = 0,
        item_decode: ItemDecode = "search",
    ) -> Request:
        """The request for the next turn of a conversation, whose last message is the user's.

        The newest items of the history (oldest first) follow the last message, in the words the
        model was trained with. With `k` the answer is a list, without the model writes as it likes,
        and with `items` false it writes text alone. Titles in the messages are put as the model
        knows the items (`as_known`) unless `items` is false. The rest is as in `Request`.
        """
        k = None if k is None else self._items.at_most(k)
        turns = list(map(as_message, messages))
        if items:
            turns = [as_known(turn, self._items) for turn in turns]
        if turns and turns[-1].role == "user" and (history or k is not None):
            turns[-1:] = self._with_history(turns[-1], history, k)
        prompt = self.renderer.prompt(turns).tolist()
        context = self.context_length
        if context is not None and len(prompt) >= context:
            limit = f"the model reads and writes {context} in all; leave the oldest out"
            raise ContextLengthError(f"messages: {len(prompt)} tokens; {limit}")
        scaffold, room = (None, max_new_tokens) if k is None else self._list(k)
        if context is not None:
            room = min(room, context - len(prompt))
        return Request(
            prompt,
            max_new_tokens=min(max_new_tokens, room),
            max_items=k if items else 0,
            excluded=self._items.rule() if excluded is None else excluded,
            weights=weights,
            temperature=temperature,
            top_p=top_p,
            item_decode=item_decode,
            first_share=self._spec.first_share,
            seed=seed,
            scaffold=scaffold,
            grounding=self._items.grounding,
        )

    def messages(self, history: Sequence[int], k: int) -> tuple[Message, ...]:
        """What a user says to get ``k`` items after a history."""
        spec, titles = self._spec, self._items.catalog.titles_t
        forms = spec.history_form, spec.list_form
        return recommend_messages(wording_named(spec.wording), history, k, None, titles, *forms)

    @property
    def context_length(self) -> int | None:
        """Tokens the model reads and writes in all; None if its configuration does not say."""
        found: int | None = getattr(self._backbone.model.config, "max_position_embeddings", None)
        return found

    @property
    def stop_token_ids(self) -> set[int]:
        """The special token the chat template ends a turn with, and what the model itself names."""
        _, end = self._scaffold(1)
        configured = getattr(self._backbone.model.generation_config, "eos_token_id", None)
        return stop_tokens(self._backbone.tokenizer, end, configured)

    def _with_history(
        self, message: Message, history: Sequence[int], k: int | None
    ) -> list[Message]:
        """A user's message, followed by the request that the model was trained to answer."""
        shown = list(history)[-self._spec.max_history :]
        asked = self.messages(shown, k or self._spec.list_length)
        said = [part for part in message.parts if not isinstance(part, Text) or part.text.strip()]
        between = (*said, Text("\n\n")) if said else ()
        *opening, request = asked
        return [*opening, Message("user", (*between, *request.parts))]

    def _scaffold(self, k: int) -> _List:
        return self._scaffolds.get(k, lambda: list_scaffold(self.renderer, self._spec.list_form, k))

    def _list(self, k: int) -> tuple[Scaffold, int]:
        """The scaffold of a list, and the tokens that the list takes at most."""
        scaffold, end = self._scaffold(k)
        around = sum(map(len, scaffold.before_item)) + len(end)
        return scaffold, around + k * self._items.longest_span


def list_scaffold(renderer: Renderer, list_form: ListForm, k: int) -> _List:
    """What stands before each of the ``k`` items of a list, and behind the last, as in training."""
    if k < 1:
        raise ConfigError(f"k is {k}; expected at least 1")
    answer = Message("assistant", list_parts([0] * k, list_form))
    rendered = renderer.conversation((Message("user", (Text("?"),)), answer))
    written = rendered.loss_mask.nonzero()[0]
    inside = (place for span in rendered.spans for place in (span.start, span.end))
    bounds = np.split(rendered.input_ids, [written[0], *inside, written[-1] + 1])[1:-1]
    *runs, end = (tuple(run.tolist()) for run in bounds[::2])
    return Scaffold(tuple(runs)), end


def stop_tokens(
    tokenizer: PreTrainedTokenizerFast, end: Sequence[int], configured: int | list[int] | None
) -> set[int]:
    """What ends an answer: the special tokens behind a list, and those that are set up to do so."""
    known = tokenizer.added_tokens_decoder
    stop = {token for token in end if token in known and known[token].special}
    named = configured if isinstance(configured, list) else [configured]
    return stop | {int(one) for one in (tokenizer.eos_token_id, *named) if one is not None}


def weighed_request(
    request: Request, excluded: ExcludedItems | None, weights: ItemWeights | None
) -> Request:
    """The same request with other exclusions, and with weights that have them as their base."""
    return replace(request, excluded=excluded, weights=weights)


def as_message(message: ChatMessage) -> Message:
    """A turn of a conversation; a DataError if it is none."""
    if isinstance(message, Message):
        return message
    role, content = message.get("role"), message.get("content")
    if role not in ("system", "user", "assistant") or not isinstance(content, str):
        expected = "a role (system, user, assistant) and a content of text"
        raise DataError(f"messages: found {dict(message)!r}; expected {expected}")
    return Message(cast(Role, role), (Text(content),))
