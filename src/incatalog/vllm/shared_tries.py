"""Tries that two processes share through files: a service writes them, vLLM's engine reads them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import weakref
from pathlib import Path

from incatalog.errors import ConfigError
from incatalog.recent import RecentlyUsed
from incatalog.storage import writing
from incatalog.trie.trie import ItemTrie

# Where the engine's process finds them; who starts it says so.
FOLDER = "INCATALOG_TRIES"
_KEPT = 16
_NAME = re.compile(r"[0-9]{1,12}")


class WrittenTries:
    """A folder with the tries that requests name, as long as anyone holds them here."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._names: weakref.WeakKeyDictionary[ItemTrie, str] = weakref.WeakKeyDictionary()

    def name(self, trie: ItemTrie) -> str:
        """What requests call a trie; it is written the first time."""
        found = self._names.get(trie)
        if found is None:
            found = str(next(self._numbers))
            place = self._folder / found
            with writing(place):
                trie.save(place)
            self._names[trie] = found
            # An engine that has it open keeps what it reads, and no new request can name it.
            weakref.finalize(trie, shutil.rmtree, place, ignore_errors=True)
        return found


class ReadTries:
    """The tries of the folder that the environment names."""

    def __init__(self) -> None:
        self._read: RecentlyUsed[str, ItemTrie] = RecentlyUsed(_KEPT)

    def get(self, name: str) -> ItemTrie:
        """The trie of a name, memory-mapped.

        Raises:
            ConfigError: Nobody shares tries with this process, or the name is none.
            TrieError: It is not there any more, or damaged.
        """
        folder = os.environ.get(FOLDER)
        if folder is None:
            why = "names a trie of a service, and no service has started this engine"
            raise ConfigError(f"trie: {why}; name an item list by its catalog instead")
        if not _NAME.fullmatch(name):
            raise ConfigError(f"trie: found {name[:40]!r}; expected a number")
        return self._read.get(name, lambda: ItemTrie.load(Path(folder) / name))
