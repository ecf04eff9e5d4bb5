"""Packed rows: ragged rows side by side in one forward pass, with a key/value cache of our own.

The tokens of all rows lie in one ``[1, tokens]`` input, so linear layers see no padding; only
attention knows about rows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name the PyTorch documentation uses
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig

from incatalog.errors import BackboneError
from incatalog.model.backbone import base_model, output_rows
from incatalog.packed.attention import IMPLEMENTATION, KEYWORD, PackedRows
from incatalog.packed.branches import Branches, Guess, branches
from incatalog.packed.cache import KeyValuePool, RowCache, Writes
from incatalog.packed.products import LaidOutLayers

Rows = Sequence[tuple[RowCache, Sequence[int]]]
"""Rows with their new tokens."""
_KNOWN_LAYER_TYPES = {"full_attention", "sliding_attention"}

# One a model, as it may be packed or wrapped more than once, each time for another thread.
_locks: WeakKeyDictionary[nn.Module, threading.RLock] = WeakKeyDictionary()
_making = threading.Lock()


@dataclass(frozen=True, eq=False)
class Readout:
    """What the model says of some tokens, with as little of the output layer as is needed.

    Scores over the vocabulary are there where the output layer is not plain linear; else the last
    hidden states are.
    """

    hidden: Float[Tensor, "rows hidden"] | None
    logits: Float[Tensor, "rows vocab"] | None
    head: Callable[..., Tensor]  # the output layer
    weight: Float[Tensor, "vocab hidden"]
    bias: Float[Tensor, " vocab"] | None

    def states(self, rows: Sequence[int]) -> Float[Tensor, "chosen hidden"]:
        """The hidden states of some rows, from which the output layer makes the scores."""
        if self.hidden is None:
            raise BackboneError(
                "the model transforms the scores of its output layer, and retrieval needs the "
                "states before it; choose another model"
            )
        return self.hidden[list(rows)]

    @torch.no_grad()
    def full(self, rows: Sequence[int]) -> Float[Tensor, "chosen vocab"]:
        """Scores of the whole vocabulary for some rows, in float32."""
        if self.logits is not None:
            return self.logits[list(rows)].float()
        scores: Tensor = self.head(self.states(rows))
        return scores.float()

    @torch.no_grad()
    def some(
        self, rows: Sequence[int], tokens: Int[np.ndarray, " some"]
    ) -> Float[Tensor, "chosen some"]:
        """Scores of some tokens for some rows, in float32: only their rows are multiplied."""
        device = (self.weight if self.logits is None else self.logits).device
        columns = torch.as_tensor(tokens, dtype=torch.long, device=device)
        if self.logits is not None:
            return self.logits[list(rows)][:, columns].float()
        bias = None if self.bias is None else self.bias[columns]
        return F.linear(self.states(rows), self.weight[columns], bias).float()


class PackedModel:
    """A causal LM that is fed packed rows; the model itself is left as it was between calls.

    Several threads may feed rows of their own: one pass is computed at a time, whatever number of
    objects of this class there are for the model. While it is, the model is not as it was, so
    that another thread that uses the model itself, to generate as transformers does or to train,
    has to hold the lock too.
    """

    def __init__(self, model: Any, *, batched: bool | None = None, frozen: bool = False) -> None:
        self.model: Any = model
        with self.lock:
            self._configs = _configs(model)
            _check_support(model, self._configs)
            self._base = base_model(model)
            self._head: nn.Module = _plain_model(model).get_output_embeddings()
            self._weight, self._bias = output_rows(model)
            self.device: torch.device = self._weight.device
            self._parts: list[nn.Module] = list(model.modules())
            self._linear = self._head_is_linear()
            self._laid_out = LaidOutLayers([*self._base.modules(), self._head] if frozen else ())
        self._batched = self.device.type != "cpu" if batched is None else batched
        self.pool = KeyValuePool()
        self.vocabulary_size = len(self._weight)

    @property
    def lock(self) -> threading.RLock:
        """Held while the model computes; the same for all that share the model."""
        with _making:
            return _locks.setdefault(_plain_model(self.model), threading.RLock())

    @torch.no_grad()
    def forward(
        self, rows: Rows, guesses: Sequence[Sequence[Guess] | Branches] | None = None
    ) -> Readout:
        """Feeds every row its new token ids (at least one each) and advances the caches.

        The caches hold the tokens of guesses behind those of the row, but do not count them;
        :meth:`RowCache.adopt` does, until the row is fed again. A row that is searched has branches
        in place of guesses, which are all its new tokens; they count until they are taken back.

        Returned is what the model says after the last new token of each row (of one with branches,
        after its first end), then after each guess, or each of the other ends, row by row.
        """
        guessed = guesses or [()] * len(rows)
        trees = [
            own if isinstance(own, Branches) else branches(cache.length, new, own) if own else None
            for (cache, new), own in zip(rows, guessed, strict=True)
        ]
        read, ends, first = [], [], 0
        for (_, new), tree in zip(rows, trees, strict=True):
            read.append(first + (len(new) - 1 if tree is None else tree.read[0]))
            ends += [] if tree is None else [first + end for end in tree.read[1:]]
            first += len(new if tree is None else tree.token_ids)
        return self._feed(rows, read + ends, trees)

    @torch.no_grad()
    def forward_branches(self, rows: Sequence[tuple[RowCache, Branches]]) -> Readout:
        """Feeds every row its branches; scores are those of all wanted ends, row by row."""
        read, first = list[int](), 0
        for _, tree in rows:
            read += [first + end for end in tree.read]
            first += len(tree.token_ids)
        tokens = [(cache, tree.token_ids) for cache, tree in rows]
        return self._feed(tokens, read, [tree for _, tree in rows])

    def _feed(self, rows: Rows, read: Sequence[int], trees: Sequence[Branches | None]) -> Readout:
        """Feeds each row its tree, or its new tokens; counts the new tokens of all."""
        with self.lock:
            readout = self._read(rows, read, trees)
        for cache, new in rows:
            cache.advance(len(new))
        return readout

    def _read(self, rows: Rows, read: Sequence[int], trees: Sequence[Branches | None]) -> Readout:
        tokens, positions, counts = list[int](), list[int](), list[int]()
        for (cache, new), tree in zip(rows, trees, strict=True):
            own = new if tree is None else tree.token_ids
            plain = range(cache.length, cache.length + len(own))
            positions += plain if tree is None else tree.positions[cache.length :].tolist()
            tokens += own
            counts.append(len(own))
        packed = self._packed_rows([cache for cache, _ in rows], counts, trees)
        wanted = torch.tensor(read, device=self.device)
        inputs = {
            "input_ids": torch.tensor([tokens], device=self.device),
            "position_ids": torch.tensor([positions], device=self.device),
            "use_cache": False,
            KEYWORD: packed,
        }
        hidden = logits = None
        before = [config._attn_implementation for config in self._configs]
        # Adapters may have come since, but to go through all parts takes a while.
        parts = self.model.modules() if self.model.training else self._parts
        trained = [part for part in parts if part.training]
        try:
            self._enter(trained)
            if self._linear:
                hidden = self._base(**inputs).last_hidden_state[0, wanted]
            else:
                logits = self.model(**inputs, logits_to_keep=wanted).logits[0]
        finally:
            try:
                self._leave(before, trained)
            except BaseException:
                # Ctrl-C has come here.
                self._leave(before, trained)
                raise
        if len(packed.layers) != self._layers:
            raise BackboneError(
                f"{type(self.model).__name__} sent {len(packed.layers)} of {self._layers} layers "
                "through its attention interface; packed rows need all of them"
            )
        head = self._laid_out.product(self._head)
        return Readout(hidden, logits, head, self._weight, self._bias)

    def _packed_rows(
        self, caches: Sequence[RowCache], counts: Sequence[int], trees: Sequence[Branches | None]
    ) -> PackedRows:
        """Makes room for the new tokens of all rows."""
        for cache, count in zip(caches, counts, strict=True):
            cache.reserve(self.pool, cache.length + count)
        slots = [cache.new_slots(count) for cache, count in zip(caches, counts, strict=True)]
        sources, targets = zip(*(cache.copies() for cache in caches), strict=True)
        places = (torch.from_numpy(np.concatenate(own)) for own in (slots, sources, targets))
        writes = Writes(*(own.to(self.device) for own in places))
        stretches = tuple(cache.start for cache in caches), tuple(cache.length for cache in caches)
        return PackedRows(self.pool, writes, *stretches, tuple(counts), self._batched, tuple(trees))

    @property
    def _layers(self) -> int:
        return int(self.model.config.get_text_config(decoder=True).num_hidden_layers)

    @torch.no_grad()
    def _head_is_linear(self) -> bool:
        """Whether nothing, such as a scale or a cap, comes between output layer and scores."""
        probe = torch.arange(min(16, len(self._weight)), device=self.device)[None]
        expected = self.model(input_ids=probe, use_cache=False).logits
        hidden = self._base(input_ids=probe, use_cache=False).last_hidden_state
        # The very same product gives the very same bits; a scale or cap near 1 must not slip by.
        return torch.equal(F.linear(hidden, self._weight, self._bias).float(), expected.float())

    def _enter(self, trained: Sequence[nn.Module]) -> None:
        """Changes the model to what packed rows need."""
        for part in trained:
            part.training = False
        for config in self._configs:
            config._attn_implementation = IMPLEMENTATION
        self._laid_out.enter()

    def _leave(self, before: Sequence[str | None], trained: Sequence[nn.Module]) -> None:
        """Makes the model what it was; may be called more than once."""
        self._laid_out.leave()
        for config, implementation in zip(self._configs, before, strict=True):
            config._attn_implementation = implementation
        for part in trained:
            part.training = True


def _plain_model(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _configs(model: nn.Module) -> list[PretrainedConfig]:
    """Every configuration object that a part of the model reads its attention's name from."""
    found = (getattr(module, "config", None) for module in model.modules())
    return list({id(c): c for c in found if isinstance(c, PretrainedConfig)}.values())


def _check_support(model: nn.Module, configs: Sequence[PretrainedConfig]) -> None:
    name = type(_plain_model(model)).__name__
    if not _plain_model(model)._can_set_attn_implementation():
        raise BackboneError(f"{name} does not take its attention from transformers' interface")
    for config in configs:
        other = set(getattr(config, "layer_types", None) or ()) - _KNOWN_LAYER_TYPES
        if other or getattr(config, "attention_chunk_size", None):
            kinds = ", ".join(sorted(other)) or "chunked attention"
            raise BackboneError(f"{name} has layers of type {kinds}, which packed rows do not know")
