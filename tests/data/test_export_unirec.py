from __future__ import annotations

import json
import pickle
import pickletools
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog, Item
from incatalog.data.export_unirec import (
    load_numbers,
    numbers_by_appearance,
    numbers_by_row,
    to_unirec,
)
from incatalog.data.interactions import Histories
from incatalog.data.movielens import prepare_movielens
from incatalog.data.settings import MovieLensSettings, ToUnirecSettings
from incatalog.errors import ArtifactError, DataError, MissingExtraError

FRAMES = ("train", "valid", "test", "user_history")


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    categories = {"b": ("sweet",), "d": ("sweet", "sour")}
    items = [Item(name, f"Title {name}", categories=categories.get(name, ())) for name in "abcde"]
    return Catalog.from_items(items)


@pytest.fixture
def data(tmp_path: Path, catalog: Catalog) -> Path:
    """Item e is in no history."""
    folder = tmp_path / "data"
    catalog.save(folder)
    lists = {"anna": "cab", "bob": "bacdb", "cleo": "dcba"}
    rows = [["abcde".index(item) for item in items] for items in lists.values()]
    Histories.from_lists(tuple(lists), rows).save(folder, catalog)
    return folder


def _read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_pickle(folder / f"{name}.pkl")


def test_writes_the_split_by_numbers_from_one(data: Path, tmp_path: Path) -> None:
    out = to_unirec(ToUnirecSettings(data, tmp_path / "sweets"))
    pairs = {
        name: list(map(tuple, _read(out, name)[["user_id", "item_id"]].to_numpy().tolist()))
        for name in ("train", "valid", "test")
    }
    assert pairs == {
        "train": [(1, 3), (2, 2), (2, 1), (2, 3), (3, 4), (3, 3)],
        "valid": [(1, 1), (2, 4), (3, 2)],
        "test": [(1, 2), (2, 2), (3, 1)],
    }
    history = _read(out, "user_history")
    assert list(history.columns) == ["user_id", "item_seq"]
    assert history["user_id"].tolist() == [1, 2, 3]
    assert [items.tolist() for items in history["item_seq"]] == [[3, 1], [2, 1, 3, 4], [4, 3, 2]]
    assert pickle.loads((out / "map.pkl").read_bytes()) == {
        "user2id": {"[PAD]": 0, "anna": 1, "bob": 2, "cleo": 3},
        "item2id": {"[PAD]": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5},
        "id2user": ["[PAD]", "anna", "bob", "cleo"],
        "id2item": ["[PAD]", "a", "b", "c", "d", "e"],
    }
    assert read_json(out / "item2id.json") == {"[PAD]": 0, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert read_json(out / "category.jsonl") == {"sweet": ["b", "d"], "sour": ["d"]}
    assert yaml.safe_load((out / "sweets.yaml").read_text()) == {
        "n_users": 4,
        "n_items": 6,
        "group_size": -1,
        "train_file_format": "user-item",
        "valid_file_format": "user-item",
        "test_file_format": "user-item",
        "user_history_file_format": "user-item_seq",
        "n_neg_train_from_sampling": 0,
        "n_neg_valid_from_sampling": 0,
        "n_neg_test_from_sampling": 0,
    }
    assert read_json(out / MANIFEST)["results"] == {"users": 3, "items": 5, "interactions": 12}


def test_types_are_those_of_unirecs_loader(data: Path, tmp_path: Path) -> None:
    out = to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    for name in ("train", "valid", "test"):
        assert _read(out, name).dtypes.to_dict() == {
            "user_id": np.dtype("int64"),
            "item_id": np.dtype("int64"),
        }
    for items in _read(out, "user_history")["item_seq"]:
        assert isinstance(items, np.ndarray)
        assert items.dtype == np.int32
        items[0] = 0  # UniRec's `unorder` mask writes into a copy, which must be writable


@pytest.mark.parametrize("name", [*FRAMES, "map"])
def test_pickles_name_only_what_every_release_has(data: Path, tmp_path: Path, name: str) -> None:
    """Private modules of pandas and numpy move between releases; these names do not."""
    out = to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    content = (out / f"{name}.pkl").read_bytes()
    operations = list(pickletools.genops(content))
    strings = [a for op, a, _ in operations if op.name in ("SHORT_BINUNICODE", "BINUNICODE")]
    modules = {text for text in strings if text.split(".")[0] in ("pandas", "numpy", "builtins")}
    assert modules <= {"pandas", "pandas.core.frame", "numpy", "builtins"}
    assert next(a for op, a, _ in operations if op.name == "PROTO") <= 4
    assert not any(op.name == "GLOBAL" for op, _, _ in operations)


def _assert_is_the_split_of(data: Path, out: Path) -> None:
    """Reads all back and compares it with the histories as they stand in the file."""
    sequences = json.loads((data / "sequential.jsonl").read_text())
    items = list(json.loads((data / "metas.jsonl").read_text()))
    maps = pickle.loads((out / "map.pkl").read_bytes())
    assert maps["id2item"] == ["[PAD]", *items]
    assert maps["id2user"] == ["[PAD]", *sequences]
    for ids, names in (("item2id", "id2item"), ("user2id", "id2user")):
        assert maps[ids] == {name: number for number, name in enumerate(maps[names])}

    train, valid, test, history = (_read(out, name) for name in FRAMES)
    named: dict[str, list[str]] = {user: [] for user in sequences}
    for user, item in zip(train["user_id"].tolist(), train["item_id"].tolist(), strict=True):
        named[maps["id2user"][user]].append(maps["id2item"][item])
    assert named == {user: found[:-2] for user, found in sequences.items()}
    for frame, place in ((valid, -2), (test, -1)):
        assert {
            maps["id2user"][user]: maps["id2item"][item]
            for user, item in zip(frame["user_id"].tolist(), frame["item_id"].tolist(), strict=True)
        } == {user: found[place] for user, found in sequences.items()}
        assert len(frame) == len(sequences)
    assert {
        maps["id2user"][user]: [maps["id2item"][item] for item in found.tolist()]
        for user, found in zip(history["user_id"], history["item_seq"], strict=True)
    } == {user: found[:-1] for user, found in sequences.items()}
    description = yaml.safe_load((out / f"{out.name}.yaml").read_text())
    assert (description["n_users"], description["n_items"]) == (len(sequences) + 1, len(items) + 1)


def test_movielens_read_back_is_the_split(ml100k_source: Path, tmp_path: Path) -> None:
    data = prepare_movielens(MovieLensSettings(ml100k_source, tmp_path / "data"))
    out = to_unirec(ToUnirecSettings(data, tmp_path / "ml-100k"))
    _assert_is_the_split_of(data, out)
    assert len(_read(out, "test")) == 943


def test_office_read_back_is_the_split(shared_data: Path, tmp_path: Path) -> None:
    out = to_unirec(ToUnirecSettings(shared_data / "office", tmp_path / "office"))
    _assert_is_the_split_of(shared_data / "office", out)
    assert len(_read(out, "train")) == 22_447 - 2 * 3_231


def test_a_finished_export_is_not_repeated(data: Path, tmp_path: Path) -> None:
    out = to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    written = (out / "train.pkl").stat().st_mtime_ns
    to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    assert (out / "train.pkl").stat().st_mtime_ns == written


def test_bad_input_is_one_line(data: Path, catalog: Catalog, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="holds files but no manifest"):
        to_unirec(ToUnirecSettings(data, data))
    with pytest.raises(DataError, match=r"nowhere/metas\.jsonl: no such file"):
        to_unirec(ToUnirecSettings(tmp_path / "nowhere", tmp_path / "out"))
    Histories.from_lists(("anna", "[PAD]"), [[0, 1, 2], [2, 1, 0]]).save(data, catalog)
    with pytest.raises(DataError, match=r"user '\[PAD\]'.*rename the user"):
        to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    Histories.from_lists(("anna", "bob"), [[0, 1, 2], [1, 0]]).save(data, catalog)
    with pytest.raises(DataError, match="user 'bob' has 2 items"):
        to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_pandas_is_an_extra(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'incatalog\[unirec\]'"):
        to_unirec(ToUnirecSettings(data, tmp_path / "out"))


def test_numbers_by_appearance_follow_the_histories(catalog: Catalog) -> None:
    histories = Histories.from_lists(("anna", "bob"), [[2, 0, 2], [4, 3, 1]])
    numbers = numbers_by_appearance(catalog, histories, Path("data"))
    assert numbers.tolist() == [2, 5, 1, 4, 3]
    without = Histories.from_lists(("anna",), [[2, 0, 1]])
    with pytest.raises(DataError, match=r"item 'd' \(and 1 more\) is in no history"):
        numbers_by_appearance(catalog, without, Path("data"))


def test_numbers_of_the_export_are_read_back(data: Path, catalog: Catalog, tmp_path: Path) -> None:
    out = to_unirec(ToUnirecSettings(data, tmp_path / "out"))
    numbers = load_numbers(out / "item2id.json", catalog)
    assert numbers.tolist() == numbers_by_row(catalog).tolist() == [1, 2, 3, 4, 5]


def test_numbers_come_from_json_or_tsv(catalog: Catalog, tmp_path: Path) -> None:
    path = tmp_path / "map"
    for text in (
        '{"[PAD]": 0, "c": 1, "a": 2, "e": 3, "d": 4, "b": 5}',
        "[PAD]\t0\nc\t1\na\t2\n\ne\t3\nd\t4\nb\t5\n",
        "c 1\na 2\ne 3\nd 4\nb 5",
    ):
        path.write_text(text)
        assert load_numbers(path, catalog).tolist() == [2, 5, 1, 4, 3]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "x": 2}', r":2: item 'x' is not in the catalog"),
        ('{"a": 1, "b": 1}', r":1: item 'b': its number 1 is that of 'a' too"),
        ('{"a": 0}', r"item 'a': its number 0 is out of range; expected each of 1 to 5 once"),
        ('{"a": 6}', r"number 6 is out of range"),
        ('{"a": 1, "a": 2}', r"item 'a' occurs twice"),
        ('{"a": 1, "b": 2}', r"lacks item 'c' \(and 2 more\)"),
        ('{"a": "1"}', r'item \'a\': found "1"; expected a whole number'),
        ('{"a": true}', r"found true; expected a whole number"),
        ('{"a": 1', r":1: not valid JSON"),
        ("a\t1\nb", r":2: found 'b'; expected an item id, a tab and a number"),
        ("a\tone", r":1: found 'a\\tone'"),
        ("", r"the file is empty"),
    ],
)
def test_broken_numbers_are_named(
    catalog: Catalog, tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_numbers(path, catalog)
