"""Tries that two processes share through files: a service writes them, vLLM's engine reads them."""

from __future__ import annotations

import itertools
import re
import shutil
import weakref
from pathlib import Path

from incatalog.errors import ConfigError
from incatalog.storage import writing
from incatalog.trie.trie import ItemTrie

_NAME = re.compile(r"[0-9]{1,12}")


class WrittenTries:
    """A folder with the tries that requests name, as long as anyone holds them here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = itertools.count()
        self._names: weakref.WeakKeyDictionary[ItemTrie, str] = weakref.WeakKeyDictionary()

    def name(self, trie: ItemTrie) -> str:
        """What requests call a trie; it is written the first time."""
        found = self._names.get(trie)
        if found is None:
            found = str(next(self._numbers))
            place = self.folder / found
            with writing(place):
                trie.save(place)
            self._names[trie] = found
            # An engine that has it open keeps what it reads, and no new request can name it.
            weakref.finalize(trie, shutil.rmtree, place, ignore_errors=True)
        return found


def trie_folder(folder: Path, name: str) -> Path:
    """Where the trie of a name lies.

    Raises:
        ConfigError: It is no name that `WrittenTries` gives.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"trie: found {name[:40]!r}; expected a number")
    return folder / name
