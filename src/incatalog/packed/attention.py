"""Attention of packed rows: each row sees its own past, wherever it lies in the pool.

It is registered with transformers' ``AttentionInterface``, which makes it work for every
architecture that takes its attention from there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name the PyTorch documentation uses
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers import AttentionInterface

from incatalog.errors import BackboneError
from incatalog.packed.branches import Branches
from incatalog.packed.cache import KeyValuePool, KeyValues, Writes

IMPLEMENTATION = "incatalog_packed"
KEYWORD = "packed_rows"
# Arguments that change what attention computes and that packed attention does not know.
_UNSUPPORTED = ("s_aux", "position_bias", "head_mask", "cu_seq_lens_q", "block_table")

Queries = Float[Tensor, "1 heads tokens head_dim"]
Stored = Float[Tensor, "1 kv_heads tokens head_dim"]
Attended = Float[Tensor, "1 tokens heads head_dim"]
Attend = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""From queries, keys, values and a mask to what is attended to."""


@dataclass(frozen=True, eq=False)
class PackedRows:
    """What packed attention has to know about one forward pass."""

    pool: KeyValuePool  # the keys and values of all rows
    writes: Writes  # where those of the new tokens go
    starts: tuple[int, ...]  # where each row's stretch of the pool begins
    seen: tuple[int, ...]  # tokens each row has stored before
    counts: tuple[int, ...]  # new tokens of each row, in the order they lie in the input
    batched: bool  # attend to all rows at once, padded, instead of one by one
    branches: tuple[Branches | None, ...]  # of each row, None where its tokens are plain text
    layers: set[nn.Module] = field(default_factory=set)  # those that have stored something
    _masks: dict[tuple[int | None, ...], Tensor | None] = field(default_factory=dict)
    _padded: dict[int | None, PaddedRows] = field(default_factory=dict)

    def row_by_row(
        self, query: Queries, stored: KeyValues, window: int | None, attend: Attend
    ) -> Attended:
        """Each row attends to its own stretch of the pool, without a copy."""
        outputs, first = [], 0
        rows = zip(self.starts, self.seen, self.counts, strict=True)
        for row, (start, seen, count) in enumerate(rows):
            own = slice(start, start + seen + count)
            keys, values = (buffer[own].transpose(0, 1)[None] for buffer in stored)
            queries = query[:, :, first : first + count]
            outputs.append(attend(queries, keys, values, self._mask(row, window, query.device)))
            first += count
        return torch.cat(outputs, dim=2).transpose(1, 2)

    def at_once(
        self, query: Queries, stored: KeyValues, window: int | None, attend: Attend
    ) -> Attended:
        """All rows in one call: the same number of kernels for any number of rows."""
        if window not in self._padded:
            self._padded[window] = self._pad(window, query.device)
        padded = self._padded[window]
        shape = (len(self.counts), padded.longest, query.shape[1], query.shape[3])
        queries = query.new_zeros(shape)
        queries[padded.row, padded.place] = query[0].transpose(0, 1)
        keys, values = (buffer[padded.keys].transpose(1, 2) for buffer in stored)
        attended = attend(queries.transpose(1, 2), keys, values, padded.mask)
        return attended.transpose(1, 2)[padded.row, padded.place][None]

    def _mask(self, row: int, window: int | None, device: torch.device) -> Tensor | None:
        """The ``[new, seen + new]`` mask of a row, or None where every key may be attended to."""
        branches, seen, new = self.branches[row], self.seen[row], self.counts[row]
        # Rows of plain text that are equally long share one.
        key = (window, seen, new) if branches is None else (window, row)
        if key not in self._masks:
            self._masks[key] = (
                _causal_mask(seen, new, window, device)
                if branches is None
                else _branch_mask(branches, window, device)
            )
        return self._masks[key]

    def _pad(self, window: int | None, device: torch.device) -> PaddedRows:
        """Where each row's keys and queries stand once all rows are equally long."""
        counts, starts = np.array(self.counts), np.array(self.starts)
        totals = counts + np.array(self.seen)
        longest, wide = int(counts.max()), np.arange(totals.max())
        mask = torch.zeros(len(counts), 1, longest, len(wide), dtype=torch.bool, device=device)
        mask[..., 0] = True
        for number, (count, total) in enumerate(zip(self.counts, totals.tolist(), strict=True)):
            known = self._mask(number, window, device)
            mask[number, 0, :count, :total] = True if known is None else known
        row_of = np.repeat(np.arange(len(counts)), counts)
        place = np.arange(len(row_of)) - np.repeat(np.cumsum(counts) - counts, counts)
        slots = starts[:, None] + np.minimum(wide, totals[:, None] - 1)
        row, at, keys = (torch.from_numpy(found).to(device) for found in (row_of, place, slots))
        return PaddedRows(row, at, keys, longest, mask)


@dataclass(frozen=True, eq=False)
class PaddedRows:
    """Rows of a pass side by side in one batch."""

    row: Int64[Tensor, " tokens"]  # row of each new token
    place: Int64[Tensor, " tokens"]  # its place among the new tokens of the row
    keys: Int64[Tensor, "rows keys"]  # place in the pool of each row's keys; any where it has none
    longest: int  # most new tokens of a row
    mask: Bool[Tensor, "rows 1 longest keys"]  # padding attends to the first key


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
    query: Queries,
    key: Stored,
    value: Stored,
    attention_mask: Tensor | None,  # noqa: ARG001 - part of transformers' interface
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    packed_rows: PackedRows | None = None,
    **kwargs: Any,
) -> tuple[Attended, None]:
    """Attention of each row over its own cache, in the form ``AttentionInterface`` asks for."""
    if packed_rows is None:
        raise BackboneError(
            f"{type(module).__name__} did not hand on `{KEYWORD}` to its attention, or another "
            "thread uses the model in the midst of a recommender's pass; hold `engine.model.lock`"
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
    attend: Attend
    if softcap is None:
        shared = query.shape[1] > key.shape[1]
        attend = partial(F.scaled_dot_product_attention, scale=scaling, enable_gqa=shared)
    else:
        attend = _capped(scaling or query.shape[-1] ** -0.5, softcap)
    attend_all = packed_rows.at_once if packed_rows.batched else packed_rows.row_by_row
    return attend_all(query, stored, sliding_window, attend), None


def _capped(scale: float, cap: float) -> Attend:
    """Attention whose scores are bent to stay below a cap."""

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        groups = query.shape[1] // key.shape[1]
        scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3)
        scores = cap * torch.tanh(scores * scale / cap)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        return weights @ value.repeat_interleave(groups, 1)

    return attend


# No mask function is registered under this name: transformers then builds no mask at all.
AttentionInterface.register(IMPLEMENTATION, packed_attention)
