from __future__ import annotations

import json
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from incatalog.errors import CatalogError, TrieError
from incatalog.trie.build import TrieArrays
from incatalog.trie.files import load_arrays, save_arrays
from incatalog.trie.trie import ItemTrie

ROWS = [[1, 2, 3, 3], [1, 2, 4], [1, 2], [5], [1, 2, 4], [6, 7]]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    ItemTrie.build(ROWS).save(tmp_path / "trie")
    return tmp_path / "trie"


def test_a_saved_trie_comes_back_the_same(saved: Path) -> None:
    trie, again = ItemTrie.build(ROWS), ItemTrie.load(saved)
    assert again.fingerprint == trie.fingerprint
    assert again.next_tokens([1, 2], excluded=[2]) == [3, 4]
    assert again.decisions(0)[0].tolist() == [0, 2]
    again.save(saved)
    assert ItemTrie.load(saved).fingerprint == trie.fingerprint


def test_empty_arrays_are_kept(tmp_path: Path) -> None:
    for rows in ([[1]], [[1], [1]], [[1, 2]]):
        trie = ItemTrie.build(rows)
        trie.save(tmp_path / "trie")
        again = ItemTrie.load(tmp_path / "trie")
        assert again.fingerprint == trie.fingerprint
        assert again.next_tokens([]) == [1]


def test_a_folder_of_several_catalogs_is_refused(tmp_path: Path) -> None:
    """As earlier versions could write."""
    arrays = ItemTrie.build(ROWS)._stored()
    save_arrays(tmp_path / "trie", "item trie", arrays, {"domains": ["a", "b"]})
    with pytest.raises(TrieError, match="holds several catalogs"):
        ItemTrie.load(tmp_path / "trie")


FILES = ["domain_bounds" if field.name == "live" else field.name for field in fields(TrieArrays)]


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_array_is_refused(saved: Path, name: str) -> None:
    path = saved / f"{name}.npy"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 4
    other = np.load(path).astype(np.int64)
    for damage in (bytes(flipped), whole[:-1], whole[:20], b"", whole + b"\0\0\0\0"):
        path.write_bytes(damage)
        if len(damage) > len(whole):
            # Bytes behind the array are not part of it.
            assert ItemTrie.load(saved).num_items == len(ROWS)
            continue
        with pytest.raises(TrieError, match=f"{name}.npy"):
            ItemTrie.load(saved)
    np.save(path, other)
    with pytest.raises(TrieError, match=f"{name}.npy.*int64|{name}.npy.*i8"):
        ItemTrie.load(saved)
    np.save(path, np.array([{"a": 1}], dtype=object))
    with pytest.raises(TrieError, match=f"{name}.npy"):
        ItemTrie.load(saved)
    path.unlink()
    with pytest.raises(TrieError, match=f"{name}.npy: no such file"):
        ItemTrie.load(saved)


def test_every_single_flipped_byte_of_the_data_is_noticed(saved: Path) -> None:
    for name in FILES:
        path = saved / f"{name}.npy"
        whole = path.read_bytes()
        for at in range(len(whole) - np.load(path).nbytes, len(whole)):
            damaged = bytearray(whole)
            damaged[at] ^= 1
            path.write_bytes(bytes(damaged))
            with pytest.raises(TrieError):
                ItemTrie.load(saved)
        path.write_bytes(whole)
    assert ItemTrie.load(saved).num_items == len(ROWS)


def test_a_damaged_header_is_refused(saved: Path) -> None:
    path = saved / "header.json"
    header = json.loads(path.read_text())
    for text in ("", "{", "[]", "null", '{"kind": "item trie"}'):
        path.write_text(text)
        with pytest.raises(TrieError, match=r"header\.json"):
            ItemTrie.load(saved)
    changes = (
        {"version": 2},
        {"kind": "item tokens"},
        {"fields": {"domains": ["x"]}},
        {"arrays": {}},
    )
    for change in changes:
        path.write_text(json.dumps(header | change))
        with pytest.raises(TrieError, match=r"header\.json"):
            ItemTrie.load(saved)
    path.unlink()
    with pytest.raises(TrieError, match="expected a folder with a saved item trie"):
        ItemTrie.load(saved)


def test_arrays_of_another_trie_are_refused(saved: Path, tmp_path: Path) -> None:
    ItemTrie.build([[1, 2, 3, 3], [1, 2, 4], [1, 2], [5], [1, 2, 4], [6, 8]]).save(tmp_path / "b")
    (saved / "edge_token.npy").write_bytes((tmp_path / "b" / "edge_token.npy").read_bytes())
    (saved / "tail.npy").write_bytes((tmp_path / "b" / "tail.npy").read_bytes())
    with pytest.raises(TrieError, match="checksum"):
        ItemTrie.load(saved)


def test_the_arrays_of_a_folder_must_be_those_expected(tmp_path: Path) -> None:
    save_arrays(tmp_path / "x", "thing", {"a": np.arange(3)}, {"note": "é"})
    arrays, noted = load_arrays(tmp_path / "x", "thing", ("a",), CatalogError)
    assert arrays["a"].tolist() == [0, 1, 2]
    assert noted == {"note": "é"}
    with pytest.raises(CatalogError, match=r"lists the arrays \['a'\]; expected \['a', 'b'\]"):
        load_arrays(tmp_path / "x", "thing", ("a", "b"), CatalogError)


def test_a_million_ids_load_in_milliseconds(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    trie = ItemTrie.build(generator.integers(0, 256, (1_000_000, 4), dtype=np.int32))
    assert trie.nbytes <= 25_000_000
    trie.save(tmp_path / "trie")
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        again = ItemTrie.load(tmp_path / "trie")
        seconds.append(time.perf_counter() - start)
    assert again.num_nodes == trie.num_nodes
    # 20 ms with room for a busy machine.
    assert min(seconds) < 0.1
