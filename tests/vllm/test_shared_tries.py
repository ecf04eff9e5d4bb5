from __future__ import annotations

import gc
from pathlib import Path

import pytest

from incatalog.errors import ConfigError, TrieError
from incatalog.trie.trie import ItemTrie
from incatalog.vllm.shared_tries import FOLDER, ReadTries, WrittenTries


def test_what_one_process_writes_another_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    written, read = WrittenTries(tmp_path), ReadTries()
    # Three items, the last of which has another spelling, is removed.
    first = ItemTrie.build([[1, 2], [1, 3], [4], [5]], [0, 1, 2, 2]).without_items([2])
    second = ItemTrie.build([[7]])
    names = [written.name(trie) for trie in (first, second, first)]
    assert names[0] == names[2] != names[1]
    found = read.get(names[0])
    assert found.fingerprint == first.fingerprint
    assert found.num_live == first.num_live == 2
    assert read.get(names[0]) is found
    assert read.get(names[1]).fingerprint == second.fingerprint


def test_a_trie_that_nobody_holds_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    written = WrittenTries(tmp_path)
    name = written.name(ItemTrie.build([[1, 2]]))
    gc.collect()
    assert not (tmp_path / name).exists()
    with pytest.raises(TrieError, match="no such file"):
        ReadTries().get(name)


@pytest.mark.parametrize("name", ["../0", "", "a", "0/1"])
def test_a_name_leads_nowhere_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "tries"))
    with pytest.raises(ConfigError, match="expected a number"):
        ReadTries().get(name)


def test_nobody_shares_tries_without_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER, raising=False)
    with pytest.raises(ConfigError, match="no service has started this engine"):
        ReadTries().get("0")
