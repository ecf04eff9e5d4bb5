"""Packed rows: ragged rows side by side in one forward pass, with a key/value cache of our own.

The tokens of all rows lie in one ``[1, tokens]`` input, so linear layers see no padding; only
attention knows about rows. It is registered with transformers' ``AttentionInterface``, which makes
this work for every architecture that takes its attention from there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name the PyTorch documentation uses
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig

from reclm.backbone import base_model, output_rows
from reclm.decoding.cache import KeyValuePool, KeyValues, RowCache, Writes
from reclm.errors import BackboneError

__all__ = ["Branches", "PackedModel", "Readout", "RowCache", "packed_attention"]

IMPLEMENTATION = "reclm_packed"
_KEYWORD = "packed_rows"
_KNOWN_LAYER_TYPES = {"full_attention", "sliding_attention"}
# Arguments that change what attention computes and that packed attention does not know.
_UNSUPPORTED = ("s_aux", "position_bias", "head_mask", "cu_seq_lens_q", "block_table")


@dataclass(frozen=True, eq=False)
class Branches:
    """New tokens that continue one row in several ways at once; its cache then holds a tree.

    Attributes:
        token_ids: The new tokens, one branch after the other.
        positions: Place in the text of every token of the row, those of the cache first.
        visible: Which tokens of the row each new token follows, itself included.
        read: Which of the new tokens are the ends whose scores are wanted.
    """

    token_ids: Sequence[int]
    positions: Int64[np.ndarray, " seen+new"]
    visible: Bool[np.ndarray, "new seen+new"]
    read: Sequence[int]


@dataclass(frozen=True, eq=False)
class PackedRows:
    """What packed attention has to know about one forward pass.

    Attributes:
        pool: The keys and values of all rows.
        writes: Where those of the new tokens go.
        starts: Where each row's stretch of the pool begins.
        seen: Tokens each row has stored before.
        counts: New tokens of each row, in the order they lie in the input.
        batched: Attend to all rows at once, padded, instead of one by one.
        branches: Per row the branches its new tokens are; empty where rows are plain text.
        layers: The layers that have stored something in this pass.
    """

    pool: KeyValuePool
    writes: Writes
    starts: tuple[int, ...]
    seen: tuple[int, ...]
    counts: tuple[int, ...]
    batched: bool
    branches: tuple[Branches, ...] = ()
    layers: set[nn.Module] = field(default_factory=set)
    _masks: dict[tuple[int, int, int | None], Tensor | None] = field(default_factory=dict)
    _branch_masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict)
    _padded: dict[int | None, PaddedRows] = field(default_factory=dict)

    def mask(self, row: int, window: int | None, device: torch.device) -> Tensor | None:
        """The ``[new, seen + new]`` mask of a row, or None where every key may be attended to."""
        if self.branches:
            if (row, window) not in self._branch_masks:
                self._branch_masks[row, window] = _branch_mask(self.branches[row], window, device)
            return self._branch_masks[row, window]
        key = (self.seen[row], self.counts[row], window)
        if key not in self._masks:
            self._masks[key] = _causal_mask(*key, device)
        return self._masks[key]

    def padded(self, window: int | None, device: torch.device) -> PaddedRows:
        """Where each row's keys and queries stand once all rows are equally long."""
        if window not in self._padded:
            masks = [self.mask(row, window, device) for row in range(len(self.counts))]
            self._padded[window] = _pad(self, masks, device)
        return self._padded[window]


@dataclass(frozen=True, eq=False)
class PaddedRows:
    """Rows of a pass side by side in one batch.

    Attributes:
        row: Row of each new token.
        place: Its place among the new tokens of the row.
        longest: Most new tokens of a row.
        keys: Place in the pool of each row's keys; any where there is none.
        mask: Which of them each new token attends to; padding attends to the first.
    """

    row: Int64[Tensor, " tokens"]
    place: Int64[Tensor, " tokens"]
    longest: int
    keys: Int64[Tensor, "rows keys"]
    mask: Bool[Tensor, "rows 1 longest keys"]


def _pad(packed: PackedRows, masks: Sequence[Tensor | None], device: torch.device) -> PaddedRows:
    counts, starts = np.array(packed.counts), np.array(packed.starts)
    totals = counts + np.array(packed.seen)
    longest, keys = int(counts.max()), np.arange(totals.max())
    mask = torch.zeros(len(counts), 1, longest, len(keys), dtype=torch.bool, device=device)
    mask[..., 0] = True
    for row, (count, total) in enumerate(zip(packed.counts, totals.tolist(), strict=True)):
        known = masks[row]
        mask[row, 0, :count, :total] = True if known is None else known
    row_of = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(len(row_of)) - np.repeat(np.cumsum(counts) - counts, counts)
    slots = starts[:, None] + np.minimum(keys, totals[:, None] - 1)
    return PaddedRows(
        torch.from_numpy(row_of).to(device),
        torch.from_numpy(place).to(device),
        longest,
        torch.from_numpy(slots).to(device),
        mask,
    )


def _branch_mask(branches: Branches, window: int | None, device: torch.device) -> Tensor:
    mask = branches.visible
    if window is not None:
        new = len(branches.token_ids)
        mask = mask & (branches.positions > branches.positions[-new:, None] - window)
    return torch.from_numpy(mask).to(device)


def _causal_mask(seen: int, new: int, window: int | None, device: torch.device) -> Tensor | None:
    windowed = window is not None and seen + new > window
    if new == 1 and not windowed:
        return None
    queries = torch.arange(seen, seen + new, device=device)[:, None]
    keys = torch.arange(seen + new, device=device)[None, :]
    mask = keys <= queries
    return mask & (keys > queries - window) if windowed and window is not None else mask


def packed_attention(
    module: nn.Module,
    query: Float[Tensor, "1 heads tokens head_dim"],
    key: Float[Tensor, "1 kv_heads tokens head_dim"],
    value: Float[Tensor, "1 kv_heads tokens head_dim"],
    attention_mask: Tensor | None,  # noqa: ARG001 - part of transformers' interface
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_rows: PackedRows | None = None,
    **kwargs: Any,
) -> tuple[Float[Tensor, "1 tokens heads head_dim"], None]:
    """Attention of each row over its own cache, in the form ``AttentionInterface`` asks for.

    Raises:
        BackboneError: The model wants something of its attention that is not built.
    """
    if packed_rows is None:
        raise BackboneError(
            f"{type(module).__name__} did not hand on `{_KEYWORD}` to its attention"
        )
    unsupported = [name for name in _UNSUPPORTED if kwargs.get(name) is not None]
    if unsupported or not getattr(module, "is_causal", True):
        what = ", ".join(unsupported) or "attention in both directions"
        raise BackboneError(
            f"{type(module).__name__} uses {what}, which packed rows do not support"
        )
    stored = packed_rows.pool.layer(module, key[0])
    packed_rows.writes.store(stored, key[0], value[0])
    packed_rows.layers.add(module)
    attend = _attend_batched if packed_rows.batched else _attend_row_by_row
    return attend(packed_rows, query, stored, sliding_window, scaling, softcap), None


def _attend_row_by_row(
    packed: PackedRows,
    query: Float[Tensor, "1 heads tokens head_dim"],
    stored: KeyValues,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
) -> Float[Tensor, "1 tokens heads head_dim"]:
    """Each row attends to its own stretch of the pool, without a copy."""
    outputs = []
    first = 0
    for row, (start, seen, count) in enumerate(
        zip(packed.starts, packed.seen, packed.counts, strict=True)
    ):
        own = slice(start, start + seen + count)
        keys, values = (buffer[own].transpose(0, 1)[None] for buffer in stored)
        queries = query[:, :, first : first + count]
        mask = packed.mask(row, window, query.device)
        outputs.append(_attend(queries, keys, values, mask, scaling, softcap))
        first += count
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _attend_batched(
    packed: PackedRows,
    query: Float[Tensor, "1 heads tokens head_dim"],
    stored: KeyValues,
    window: int | None,
    scaling: float | None,
    softcap: float | None,
) -> Float[Tensor, "1 tokens heads head_dim"]:
    """All rows in one call: the same number of kernels for any number of rows."""
    padded = packed.padded(window, query.device)
    shape = (len(packed.counts), padded.longest, query.shape[1], query.shape[3])
    queries = query.new_zeros(shape)
    queries[padded.row, padded.place] = query[0].transpose(0, 1)
    keys, values = (buffer[padded.keys].transpose(1, 2) for buffer in stored)
    attended = _attend(queries.transpose(1, 2), keys, values, padded.mask, scaling, softcap)
    return attended.transpose(1, 2)[padded.row, padded.place][None]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    if softcap is None:
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, scale=scaling, enable_gqa=groups > 1
        )
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3)
    scores = softcap * torch.tanh(scores * (scaling or query.shape[-1] ** -0.5) / softcap)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return weights @ value.repeat_interleave(groups, 1)


# No mask function is registered under this name: transformers then builds no mask at all.
AttentionInterface.register(IMPLEMENTATION, packed_attention)


class Readout:
    """What the model says after the last token of each row, with as little output layer as needed.

    Args:
        hidden: Last hidden states, where the output layer is plain linear; else None.
        logits: Scores over the vocabulary, where it is not.
        head: The output layer.
        weight: ``[vocab, hidden]`` rows of the output layer.
        bias: ``[vocab]`` of the output layer, or None.
    """

    def __init__(
        self,
        hidden: Float[Tensor, "rows hidden"] | None,
        logits: Float[Tensor, "rows vocab"] | None,
        head: nn.Module,
        weight: Float[Tensor, "vocab hidden"],
        bias: Float[Tensor, " vocab"] | None,
    ) -> None:
        self._hidden, self._logits = hidden, logits
        self._head, self._weight, self._bias = head, weight, bias

    def states(self, rows: Sequence[int]) -> Float[Tensor, "chosen hidden"]:
        """The hidden states of some rows, from which the output layer makes the scores.

        Raises:
            BackboneError: The model transforms the scores of its output layer.
        """
        if self._hidden is None:
            raise BackboneError(
                "the model transforms the scores of its output layer, and retrieval needs the "
                "states before it; choose another model"
            )
        return self._hidden[list(rows)]

    @torch.no_grad()
    def full(self, rows: Sequence[int]) -> Float[Tensor, "chosen vocab"]:
        """Scores of the whole vocabulary for some rows, in float32."""
        if self._hidden is None:
            assert self._logits is not None
            return self._logits[list(rows)].float()
        scores: Tensor = self._head(self._hidden[list(rows)])
        return scores.float()

    @torch.no_grad()
    def some(
        self, rows: Sequence[int], tokens: Int[np.ndarray, " some"]
    ) -> Float[Tensor, "chosen some"]:
        """Scores of some tokens for some rows, in float32: only their rows are multiplied."""
        if self._hidden is None:
            assert self._logits is not None
            columns = torch.as_tensor(tokens, dtype=torch.long, device=self._logits.device)
            return self._logits[list(rows)][:, columns].float()
        columns = torch.as_tensor(tokens, dtype=torch.long, device=self._weight.device)
        bias = None if self._bias is None else self._bias[columns]
        return F.linear(self._hidden[list(rows)], self._weight[columns], bias).float()


class PackedModel:
    """A causal LM that is fed packed rows; the model itself is left as it was between calls.

    Args:
        model: Any transformers causal LM, also within a PEFT wrapper.
        batched: Attend to all rows at once, padded, instead of one by one; None does so on
            accelerators, where the number of kernels counts.

    Raises:
        BackboneError: The architecture does not take its attention from ``AttentionInterface``, or
            has layers that packed rows do not support.
    """

    def __init__(self, model: Any, *, batched: bool | None = None) -> None:
        self._configs = _configs(model)
        _check_support(model, self._configs)
        self._model = model
        self._base = base_model(model)
        self._head: nn.Module = _plain_model(model).get_output_embeddings()
        self._weight, self._bias = output_rows(model)
        self.device: torch.device = self._weight.device
        self._linear = self._head_is_linear()
        self._batched = self.device.type != "cpu" if batched is None else batched
        self._pool = KeyValuePool()

    @torch.no_grad()
    def forward(self, rows: Sequence[tuple[RowCache, Sequence[int]]]) -> Readout:
        """Feeds every row its new token ids (at least one each) and advances the caches.

        Raises:
            BackboneError: A layer of the model went round packed attention.
        """
        counts = [len(new) for _, new in rows]
        tokens = [token for _, new in rows for token in new]
        positions = [
            position
            for cache, new in rows
            for position in range(cache.length, cache.length + len(new))
        ]
        read = np.cumsum(counts) - 1
        return self._feed([cache for cache, _ in rows], counts, tokens, positions, read.tolist())

    @torch.no_grad()
    def forward_branches(self, rows: Sequence[tuple[RowCache, Branches]]) -> Readout:
        """Feeds every row its branches; scores are those of all wanted ends, row by row.

        Raises:
            BackboneError: A layer of the model went round packed attention.
        """
        branches = tuple(new for _, new in rows)
        counts = [len(new.token_ids) for new in branches]
        starts = np.cumsum((0, *counts)).tolist()
        return self._feed(
            [cache for cache, _ in rows],
            counts,
            [token for new in branches for token in new.token_ids],
            np.concatenate([n.positions[-len(n.token_ids) :] for n in branches]).tolist(),
            [start + end for start, new in zip(starts, branches, strict=False) for end in new.read],
            branches,
        )

    def _feed(
        self,
        caches: Sequence[RowCache],
        counts: Sequence[int],
        tokens: Sequence[int],
        positions: Sequence[int],
        read: Sequence[int],
        branches: tuple[Branches, ...] = (),
    ) -> Readout:
        packed = self._packed_rows(caches, counts, branches)
        wanted = torch.tensor(read, device=self.device)
        inputs = {
            "input_ids": torch.tensor([tokens], device=self.device),
            "position_ids": torch.tensor([positions], device=self.device),
            "use_cache": False,
            _KEYWORD: packed,
        }
        hidden = logits = None
        with self._packed():
            if self._linear:
                hidden = self._base(**inputs).last_hidden_state[0, wanted]
            else:
                logits = self._model(**inputs, logits_to_keep=wanted).logits[0]
        if len(packed.layers) != self._layers:
            raise BackboneError(
                f"{type(self._model).__name__} sent {len(packed.layers)} of {self._layers} layers "
                "through its attention interface; packed rows need all of them"
            )
        for cache, count in zip(caches, counts, strict=True):
            cache.advance(count)
        return Readout(hidden, logits, self._head, self._weight, self._bias)

    def _packed_rows(
        self,
        caches: Sequence[RowCache],
        counts: Sequence[int],
        branches: tuple[Branches, ...],
    ) -> PackedRows:
        """Makes room for the new tokens of all rows."""
        for cache, count in zip(caches, counts, strict=True):
            cache.reserve(self._pool, cache.length + count)
        slots = [cache.new_slots(count) for cache, count in zip(caches, counts, strict=True)]
        sources, targets = zip(*(cache.copies() for cache in caches), strict=True)
        writes = Writes(
            *(
                torch.from_numpy(np.concatenate(places)).to(self.device)
                for places in (slots, sources, targets)
            )
        )
        return PackedRows(
            self._pool,
            writes,
            tuple(cache.start for cache in caches),
            tuple(cache.length for cache in caches),
            tuple(counts),
            self._batched,
            branches,
        )

    @property
    def _layers(self) -> int:
        return int(self._model.config.get_text_config(decoder=True).num_hidden_layers)

    @torch.no_grad()
    def _head_is_linear(self) -> bool:
        """Whether nothing, such as a scale or a cap, comes between output layer and scores."""
        probe = torch.arange(min(16, len(self._weight)), device=self.device)[None]
        expected = self._model(input_ids=probe, use_cache=False).logits
        hidden = self._base(input_ids=probe, use_cache=False).last_hidden_state
        # The very same product gives the very same bits; a scale or cap near 1 must not slip by.
        return torch.equal(F.linear(hidden, self._weight, self._bias).float(), expected.float())

    @contextlib.contextmanager
    def _packed(self) -> Iterator[None]:
        before = [config._attn_implementation for config in self._configs]
        training = self._model.training
        if training:
            self._model.eval()
        try:
            for config in self._configs:
                config._attn_implementation = IMPLEMENTATION
            yield
        finally:
            for config, implementation in zip(self._configs, before, strict=True):
                config._attn_implementation = implementation
            if training:
                self._model.train()


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
