"""Keys and values of all rows of a model, side by side in one preallocated pool per layer.

Each row has a stretch of the pool to itself. All rows are written with one copy a layer, and where
rows begin alike the beginning is copied from one to the other instead of being computed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from reclm.errors import BackboneError

_FIRST_CAPACITY = 1024
_SMALLEST_STRETCH = 64

Slots = Int64[np.ndarray, " tokens"]
KeyValues = tuple[
    Float[Tensor, "capacity kv_heads head_dim"], Float[Tensor, "capacity kv_heads head_dim"]
]


class KeyValuePool:
    """Room for the keys and values of tokens, in every layer at the same places.

    It grows by doubling and never shrinks; what rows give up is used by others.

    Attributes:
        capacity: Tokens there is room for.
    """

    def __init__(self) -> None:
        self.capacity = 0
        self._free: list[tuple[int, int]] = []
        self._layers: dict[nn.Module, KeyValues] = {}

    @property
    def layers(self) -> int:
        """Attention layers that have stored something."""
        return len(self._layers)

    def layer(self, module: nn.Module, like: Float[Tensor, "kv_heads new head_dim"]) -> KeyValues:
        """The keys and values of a layer; made at its first use."""
        if module not in self._layers:
            # Zeros, as what is masked out must not be infinite either.
            shape = (self.capacity, like.shape[0], like.shape[2])
            self._layers[module] = (like.new_zeros(shape), like.new_zeros(shape))
        return self._layers[module]

    def allocate(self, tokens: int) -> int:
        """Takes a stretch for some tokens; returns where it starts."""
        for place, (start, end) in enumerate(self._free):
            if end - start >= tokens:
                self._free[place] = (start + tokens, end)
                if start + tokens == end:
                    del self._free[place]
                return start
        self._grow(tokens)
        return self.allocate(tokens)

    def release(self, start: int, tokens: int) -> None:
        """Gives a stretch back."""
        merged: list[tuple[int, int]] = []
        for stretch in sorted([*self._free, (start, start + tokens)]):
            if merged and merged[-1][1] == stretch[0]:
                merged[-1] = (merged[-1][0], stretch[1])
            else:
                merged.append(stretch)
        self._free = merged

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copies what some tokens have stored to other places, which do not overlap them."""
        for stored in self._layers.values():
            for buffer in stored:
                buffer[target : target + tokens] = buffer[source : source + tokens]

    def gather(self, sources: Slots, start: int) -> None:
        """Copies what tokens at some places have stored to a stretch, which may overlap them."""
        for stored in self._layers.values():
            for buffer in stored:
                # What is picked by index is a copy already.
                buffer[start : start + len(sources)] = buffer[torch.from_numpy(sources)]

    def _grow(self, tokens: int) -> None:
        old = self.capacity
        self.capacity = max(_FIRST_CAPACITY, 2 * old, old + tokens)
        for module, stored in self._layers.items():
            keys, values = (
                torch.cat([buffer, buffer.new_zeros(self.capacity - old, *buffer.shape[1:])])
                for buffer in stored
            )
            self._layers[module] = keys, values
        self.release(old, self.capacity - old)


class RowCache:
    """Which tokens of a row are stored, and where.

    A row may begin as a copy of the first tokens of another one. They are copied when the row is
    fed first; the other row has to be fed before, or ahead of it in the same pass.

    Args:
        donor: The row to copy from.
        shared: Its tokens to copy, from the first on.

    Attributes:
        length: Tokens of the row that every layer holds.
        start: Where its stretch of the pool begins.
    """

    def __init__(self, donor: RowCache | None = None, shared: int = 0) -> None:
        self.length = shared
        self.start = 0
        self._capacity = 0
        self._donor = donor
        self._pool: KeyValuePool | None = None

    def __del__(self) -> None:
        """Gives the stretch back."""
        if self._pool is not None and self._capacity:
            self._pool.release(self.start, self._capacity)

    def reserve(self, pool: KeyValuePool, tokens: int) -> None:
        """Makes room for as many tokens in all, by doubling.

        Raises:
            BackboneError: The row is stored in another pool.
        """
        if self._pool is None:
            self._pool = pool
        elif self._pool is not pool:
            raise BackboneError("a row's keys and values are those of another model")
        if tokens <= self._capacity:
            return
        capacity = max(_SMALLEST_STRETCH, tokens + tokens // 2)
        start = pool.allocate(capacity)
        if self._capacity:
            pool.move(self.start, start, self.length)
            pool.release(self.start, self._capacity)
        self.start, self._capacity = start, capacity

    def new_slots(self, tokens: int) -> Slots:
        """Places in the pool of the next tokens."""
        first = self.start + self.length
        return np.arange(first, first + tokens)

    def sources(self) -> Slots:
        """Where the keys and values of the row's tokens are, or will be in this pass.

        Those of a row that begins as a copy are still with the row they are copied from.
        """
        own = np.arange(self.start, self.start + self._capacity)
        if self._donor is None:
            return own
        copied = self._donor.sources()[: self.length]
        return np.concatenate([copied, own[self.length :]])

    def copies(self) -> tuple[Slots, Slots]:
        """Where the tokens that the row begins with have to be copied from, and where to."""
        if self._donor is None:
            none = np.empty(0, np.int64)
            return none, none
        return self.sources()[: self.length], np.arange(self.start, self.start + self.length)

    def advance(self, tokens: int) -> None:
        """Counts tokens that every layer has stored now."""
        self.length += tokens
        self._donor = None

    def adopt(self, offsets: Sequence[int]) -> None:
        """Counts tokens that every layer has stored beyond the row's own, and lets others go.

        Args:
            offsets: Their places behind the last token of the row, ascending.
        """
        assert self._pool is not None
        end = self.start + self.length
        if list(offsets) != list(range(len(offsets))):
            self._pool.gather(end + np.array(offsets), end)
        self.length += len(offsets)


@dataclass(frozen=True, eq=False)
class Writes:
    """Where the new tokens of a pass are stored, and what is copied between rows.

    Attributes:
        slots: Place of each new token.
        copied_from: Places of the tokens that rows begin with.
        copied_to: Where they are copied to.
    """

    slots: Int64[Tensor, " tokens"]
    copied_from: Int64[Tensor, " copied"]
    copied_to: Int64[Tensor, " copied"]

    def store(
        self,
        stored: KeyValues,
        keys: Float[Tensor, "kv_heads tokens head_dim"],
        values: Float[Tensor, "kv_heads tokens head_dim"],
    ) -> None:
        """Writes the keys and values of one layer."""
        for buffer, new in zip(stored, (keys, values), strict=True):
            buffer[self.slots] = new.transpose(0, 1)
            if len(self.copied_from):
                buffer[self.copied_to] = buffer[self.copied_from]
