from __future__ import annotations

import gc
from pathlib import Path

import pytest

from incatalog.errors import ConfigError
from incatalog.trie.trie import ItemTrie
from incatalog.vllm.shared_tries import WrittenTries, trie_folder


def test_what_one_process_writes_another_reads(tmp_path: Path) -> None:
    written = WrittenTries(tmp_path)
    # Three items, the first of which has another spelling; the last is removed.
    first = ItemTrie.build([[1, 2], [1, 3], [4], [5]], [0, 1, 2, 0]).without_items([2])
    second = ItemTrie.build([[7]])
    names = [written.name(trie) for trie in (first, second, first)]
    assert names[0] == names[2] != names[1]
    found = ItemTrie.load(trie_folder(tmp_path, names[0]))
    assert found.fingerprint == first.fingerprint
    assert found.num_live == first.num_live == 3
    assert ItemTrie.load(trie_folder(tmp_path, names[1])).fingerprint == second.fingerprint


def test_a_trie_that_nobody_holds_is_deleted(tmp_path: Path) -> None:
    name = WrittenTries(tmp_path).name(ItemTrie.build([[1, 2]]))
    gc.collect()
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("name", ["../0", "", "a", "0/1", ".."])
def test_a_name_leads_nowhere_else(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a number"):
        trie_folder(tmp_path, name)
