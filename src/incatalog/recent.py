"""Values that were made lately, kept for another use, up to a number of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class RecentlyUsed(Generic[Key, Value]):
    """Values by their keys; of too many, the one that was not used for longest leaves.

    Several threads may use it. A copy starts empty.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[RecentlyUsed[Key, Value]], tuple[int]]:
        """A lock cannot be copied, and what is kept can be made again."""
        return RecentlyUsed, (self._most,)

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
        with self._lock:
            self._kept[key] = value
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return value
