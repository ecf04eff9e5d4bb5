"""Values that were made lately, kept for another use, up to a number or a size of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RecentlyUsed(Generic[Key, Value]):
    """Values by their keys; of too many, the one that was not used for longest leaves.

    Several threads may use it. A copy starts empty.
    """

    def __init__(self, most: int, size: Callable[[Value], int] | None = None) -> None:
        """Takes how many are kept; with `size`, a function of a module, the sum of their sizes."""
        self._most, self._size = most, size
        self._held = 0
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """A lock cannot be copied, and what is kept can be made again."""
        return RecentlyUsed, (self._most, self._size)

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key, made where it is not kept; nothing is kept if that fails."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Not within the lock, as it may take long; made twice, a value is the same.
        value = make()
        self._keep([(key, value)])
        return value

    def get_all(
        self, keys: Iterable[Key], make: Callable[[Sequence[Key]], Sequence[Value]]
    ) -> dict[Key, Value]:
        """The values of some keys; those that are not kept are made together."""
        wanted = dict.fromkeys(keys)
        with self._lock:
            found = {key: self._kept[key] for key in wanted if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = [key for key in wanted if key not in found]
        if missing:
            made = list(zip(missing, make(missing), strict=True))
            self._keep(made)
            found |= made
        return found

    def _keep(self, pairs: Iterable[tuple[Key, Value]]) -> None:
        with self._lock:
            for key, value in pairs:
                if key in self._kept:
                    self._held -= self._size_of(self._kept.pop(key))
                if (size := self._size_of(value)) <= self._most:
                    self._kept[key] = value
                    self._held += size
            while self._held > self._most:
                self._held -= self._size_of(self._kept.popitem(last=False)[1])

    def _size_of(self, value: Value) -> int:
        return 1 if self._size is None else self._size(value)
