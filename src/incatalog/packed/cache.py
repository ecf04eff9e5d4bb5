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

from incatalog.errors import BackboneError

_FIRST_CAPACITY = 1024
_SMALLEST_STRETCH = 64
_NOWHERE = np.empty(0, np.int64)

Slots = Int64[np.ndarray, " tokens"]
Stretch = tuple[int, int]
"""Where some places of the pool begin and end."""
Buffer = Float[Tensor, "capacity kv_heads head_dim"]
KeyValues = tuple[Buffer, Buffer]
New = Float[Tensor, "kv_heads new head_dim"]


class KeyValuePool:
    """Room for the keys and values of tokens, in every layer at the same places.

    It grows by a quarter or more as rows need room, and shrinks where a quarter of it would do.
    What rows give up is used by others. Room is taken by one thread at a time, the one whose turn
    with the model it is; rows may be let go by any.
    """

    def __init__(self) -> None:
        self.capacity = 0  # tokens there is room for
        self.rows: set[RowCache] = set()  # those whose stretch is kept from others
        self._layers: dict[nn.Module, KeyValues] = {}

    def __len__(self) -> int:
        """Rows that hold room."""
        return len(self.rows)

    def layer(self, module: nn.Module, like: New) -> KeyValues:
        """The keys and values of a layer; made at its first use."""
        if module not in self._layers:
            # Zeros, as what is masked out must not be infinite either.
            shape = (self.capacity, like.shape[0], like.shape[2])
            self._layers[module] = (like.new_zeros(shape), like.new_zeros(shape))
        return self._layers[module]

    def allocate(self, tokens: int) -> Stretch:
        """The first stretch for some tokens that no row holds; it is free until one does."""
        # A copy in one go, as other threads let rows go meanwhile.
        held = sorted(row.stretch for row in list(self.rows))
        start, used = 0, max((end for _, end in held), default=0)
        for first, end in held:
            if first - start >= tokens:
                break
            start = max(start, end)
        needed = max(used, start + tokens)
        if needed > self.capacity:
            self._resize(max(_FIRST_CAPACITY, needed + needed // 4))
        elif self.capacity > _FIRST_CAPACITY and 4 * needed <= self.capacity:
            self._resize(max(_FIRST_CAPACITY, 2 * needed))
        return start, start + tokens

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

    def _resize(self, capacity: int) -> None:
        # No layer may ever have less room than is told, even if memory ends halfway.
        self.capacity = min(self.capacity, capacity)
        for module, (keys, values) in self._layers.items():
            self._layers[module] = _resized(keys, capacity), _resized(values, capacity)
        self.capacity = capacity


def _resized(buffer: Buffer, capacity: int) -> Buffer:
    kept = min(len(buffer), capacity)
    resized = buffer.new_zeros(capacity, *buffer.shape[1:])
    resized[:kept] = buffer[:kept]
    return resized


class RowCache:
    """Which tokens of a row are stored, and where; it holds room until its :meth:`release`.

    A row may begin as a copy of the first tokens of another one. They are copied when the row is
    fed first; the other row has to be fed before, or ahead of it in the same pass, and must not be
    let go before.
    """

    def __init__(self, donor: RowCache | None = None, shared: int = 0) -> None:
        self.length = shared  # tokens of the row that every layer holds
        self.stretch: Stretch = (0, 0)
        self._donor = donor
        self._pool: KeyValuePool | None = None

    @property
    def start(self) -> int:
        """Where its stretch of the pool begins."""
        return self.stretch[0]

    def release(self) -> None:
        """Gives the stretch back and forgets all tokens; a second time does nothing."""
        if self._pool is not None:
            self._pool.rows.discard(self)
        self.length, self.stretch, self._donor, self._pool = 0, (0, 0), None, None

    def reserve(self, pool: KeyValuePool, tokens: int) -> None:
        """Makes room for so many tokens in all, and for half as many more."""
        if self._pool is None:
            self._pool = pool
            pool.rows.add(self)
        elif self._pool is not pool:
            raise BackboneError("a row's keys and values are those of another model")
        start, end = self.stretch
        if tokens <= end - start:
            return
        stretch = pool.allocate(max(_SMALLEST_STRETCH, tokens + tokens // 2))
        if end > start:
            pool.move(start, stretch[0], self.length)
        self.stretch = stretch

    def new_slots(self, tokens: int) -> Slots:
        """Places in the pool of the next tokens."""
        return np.arange(self.start + self.length, self.start + self.length + tokens)

    def sources(self) -> Slots:
        """Where the keys and values of the row's tokens are, or will be in this pass.

        Those of a row that begins as a copy are still with the row they are copied from.
        """
        own = np.arange(*self.stretch)
        if self._donor is None:
            return own
        copied = self._donor.sources()[: self.length]
        return np.concatenate([copied, own[self.length :]])

    def copies(self) -> tuple[Slots, Slots]:
        """Where the tokens that the row begins with have to be copied from, and where to."""
        if self._donor is None:
            return _NOWHERE, _NOWHERE
        return self.sources()[: self.length], np.arange(self.start, self.start + self.length)

    def advance(self, tokens: int) -> None:
        """Counts tokens that every layer has stored now."""
        self.length += tokens
        self._donor = None

    def take_back(self, length: int) -> None:
        """Counts the first tokens only; what others have stored stays until the row is fed."""
        self.length = length

    def adopt(self, offsets: Sequence[int]) -> None:
        """Counts tokens that every layer has stored at these places behind the row's own."""
        assert self._pool is not None
        end = self.start + self.length
        if list(offsets) != list(range(len(offsets))):
            self._pool.gather(end + np.array(offsets), end)
        self.length += len(offsets)


@dataclass(frozen=True, eq=False)
class Writes:
    """Where the new tokens of a pass are stored, and what is copied between rows."""

    slots: Int64[Tensor, " tokens"]  # place of each new token
    copied_from: Int64[Tensor, " copied"]  # places of the tokens that rows begin with
    copied_to: Int64[Tensor, " copied"]  # where they are copied to

    def store(self, stored: KeyValues, keys: New, values: New) -> None:
        """Writes the keys and values of one layer."""
        for buffer, new in zip(stored, (keys, values), strict=True):
            buffer[self.slots] = new.transpose(0, 1)
            if len(self.copied_from):
                buffer[self.copied_to] = buffer[self.copied_from]
