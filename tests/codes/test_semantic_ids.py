from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from incatalog.codes.semantic_ids import (
    SemanticIds,
    code_names,
    index_name,
    is_code_token,
    load_semantic_ids,
    missing_index,
)
from incatalog.data.catalog import Catalog, Item
from incatalog.errors import CatalogError, SemanticIdError

CODES = np.array([[1, 0, 3], [1, 2, 0], [0, 2, 3]], dtype=np.int32)


@pytest.fixture
def ids() -> SemanticIds:
    return SemanticIds(CODES.copy(), (2, 3, 4))


@pytest.fixture
def catalog() -> Catalog:
    return Catalog.from_items([Item("x", "X"), Item("B0-1", "B"), Item("7", "Seven")], "toys")


def test_tokens_of_rows_and_levels(ids: SemanticIds) -> None:
    assert (len(ids), ids.levels) == (3, 3)
    assert ids.tokens(0) == ("<a_1>", "<b_0>", "<c_3>")
    assert ids.tokens(2) == ("<a_0>", "<b_2>", "<c_3>")
    assert code_names(ids.sizes) == (
        "<a_0>", "<a_1>", "<b_0>", "<b_1>", "<b_2>", "<c_0>", "<c_1>", "<c_2>", "<c_3>",
    )  # fmt: skip
    assert all(map(is_code_token, code_names(ids.sizes)))
    for text in ("<a_01>", "<a_>", "a_1", "<A_1>", "<a_1> ", "<aa_1>", "<a_-1>"):
        assert not is_code_token(text)
    for row in (-1, 3):
        with pytest.raises(CatalogError, match="expected 0 to 2"):
            ids.tokens(row)


def test_collisions_count_the_items_behind_the_first() -> None:
    codes = np.array([[0, 0], [0, 1], [0, 0], [1, 1], [0, 0], [0, 1]], dtype=np.int32)
    ids = SemanticIds(codes, (2, 2))
    assert ids.collisions() == 3
    with pytest.raises(SemanticIdError, match=r"3 of 6 items share all their codes.*items assign"):
        ids.require_unique()
    SemanticIds(codes[:2], (2, 2)).require_unique()


@pytest.mark.parametrize(
    ("codes", "sizes", "said"),
    [
        (CODES.astype(np.int64), (2, 3, 4), r"found int64 of shape \(3, 3\)"),
        (CODES[0], (2, 3, 4), r"shape \(3,\); expected int32 of shape \[items, levels\]"),
        (CODES[:0], (2, 3, 4), r"shape \(0, 3\)"),
        (CODES, (2, 3), "found 2 for 3 levels"),
        (np.zeros((2, 27), np.int32), (1,) * 27, "26 levels at most"),
        (CODES, (2, 2, 4), "item row 1: code 2 at level 2; expected 0 to 1"),
        (-CODES, (2, 3, 4), "item row 0: code -1 at level 1"),
    ],
)
def test_wrong_codes_are_refused(codes: np.ndarray, sizes: tuple[int, ...], said: str) -> None:
    with pytest.raises(SemanticIdError, match=said):
        SemanticIds(codes.copy(), sizes)


def test_files_are_as_the_format_says(ids: SemanticIds, catalog: Catalog, tmp_path: Path) -> None:
    ids.save(tmp_path / "new", "toys", catalog)
    index = json.loads((tmp_path / "new" / "toys.index.json").read_text())
    assert index == {
        "0": ["<a_1>", "<b_0>", "<c_3>"],
        "1": ["<a_1>", "<b_2>", "<c_0>"],
        "2": ["<a_0>", "<b_2>", "<c_3>"],
    }
    assert (tmp_path / "new" / "toys.item2id").read_text() == "x\t0\nB0-1\t1\n7\t2\n"
    found = SemanticIds.load(tmp_path / "new", "toys", catalog)
    assert np.array_equal(found.codes, CODES)
    assert found.codes.dtype == np.int32
    assert found.sizes == (2, 3, 4)
    assert not found.codes.flags.writeable


def write(folder: Path, index: object, items: str, name: str = "toys") -> None:
    text = index if isinstance(index, str) else json.dumps(index)
    (folder / f"{name}.index.json").write_text(text, encoding="utf-8")
    (folder / f"{name}.item2id").write_text(items, encoding="utf-8")


INDEX = {"5": ["<a_9>", "<b_1>"], "0": ["<a_2>", "<b_0>"], "3": ["<a_0>", "<b_7>"]}
ITEMS = "7 3\n\nx\t5\n  B0-1   0  \n"


def test_rows_of_other_files_follow_their_item_file(catalog: Catalog, tmp_path: Path) -> None:
    write(tmp_path, INDEX, ITEMS)
    found = load_semantic_ids(tmp_path, catalog)
    assert found.codes.tolist() == [[9, 1], [2, 0], [0, 7]]
    assert found.sizes == (10, 8)


@pytest.mark.parametrize(
    ("index", "items", "said"),
    [
        ("{", ITEMS, r"toys.index.json:1: not valid JSON"),
        ([], ITEMS, "expected an object of rows"),
        ({}, ITEMS, "expected an object of rows"),
        (INDEX | {"x": ["<a_1>", "<b_1>"]}, ITEMS, "entry 'x' is not a row"),
        (INDEX | {"05": ["<a_1>", "<b_1>"]}, ITEMS, "entry '05' is not a row"),
        (INDEX | {"5": "<a_1>"}, ITEMS, "entry 5: expected a list of code tokens"),
        (INDEX | {"0": ["<a_1>"]}, ITEMS, "entry 0 has 1 codes; expected 2"),
        (INDEX | {"0": ["<b_1>", "<a_1>"]}, ITEMS, "'<b_1>' at level 1; expected.*<a_0>"),
        (INDEX | {"0": ["<a_1>", 4]}, ITEMS, "entry 0 has 4 at level 2"),
        (INDEX | {"9": ["<a_1>", "<b_1>"]}, ITEMS, "entry 9 is the row of no item"),
        ({k: INDEX[k] for k in "50"}, ITEMS, "has no entry 3, the row of item '7' .toys.item2id:1"),
        (INDEX, "7 3\nx 5\n", "misses item 'B0-1' of the catalog.*items assign"),
        (INDEX | {"1": INDEX["0"]}, ITEMS + "new 1\n", "item2id:5: names item 'new'"),
        (INDEX, "7 3\nx 5\nB0-1\n", "item2id:3: found 'B0-1'; expected an item id, a tab"),
        (INDEX, "7 3\nx 5 1\n", "item2id:2: found 'x 5 1'"),
        (INDEX, "7 3\nx five\n", "item2id:2"),
        (INDEX, "7 3\n7 5\n", "item2id:2: item '7' is already on line 1"),
        (INDEX, "7 3\nx 3\n", "item2id:2: row 3 is already on line 1"),
    ],
)
def test_malformed_files_are_one_line(
    catalog: Catalog, tmp_path: Path, index: object, items: str, said: str
) -> None:
    write(tmp_path, index, items)
    with pytest.raises(SemanticIdError, match=said) as error:
        SemanticIds.load(tmp_path, "toys", catalog)
    assert "\n" not in str(error.value)


def test_what_the_format_cannot_hold_is_not_written(ids: SemanticIds, tmp_path: Path) -> None:
    spaced = Catalog.from_items([Item("x", "X"), Item("two words", "B"), Item("7", "S")])
    with pytest.raises(SemanticIdError, match="item 'two words': has white space"):
        ids.save(tmp_path, "toys", spaced)
    with pytest.raises(SemanticIdError, match="1 items for the codes of 3"):
        ids.save(tmp_path, "toys", Catalog.from_items([Item("x", "X")], "few"))
    assert list(tmp_path.iterdir()) == []


def test_index_files_are_found_in_a_folder(catalog: Catalog, tmp_path: Path) -> None:
    assert index_name(tmp_path) is None
    assert "holds no index files" in missing_index(tmp_path)
    with pytest.raises(SemanticIdError, match=r"holds no index files.*items assign"):
        load_semantic_ids(tmp_path, catalog)
    write(tmp_path, INDEX, ITEMS)
    assert index_name(tmp_path) == "toys"
    assert missing_index(tmp_path) == ""
    (tmp_path / "toys.item2id").unlink()
    assert missing_index(tmp_path).endswith("holds toys.index.json, but no toys.item2id")
    with pytest.raises(SemanticIdError, match="no such file"):
        SemanticIds.load(tmp_path, "toys", catalog)
    write(tmp_path, INDEX, ITEMS, name="games")
    with pytest.raises(SemanticIdError, match="games, toys; expected those of one data set"):
        index_name(tmp_path)


def test_published_codes_are_read_with_their_collisions(shared_data: Path, tmp_path: Path) -> None:
    catalog = Catalog.load(shared_data / "office")
    published = (shared_data / "office" / "published.index.json").read_bytes()
    (tmp_path / "office.index.json").write_bytes(published)
    lines = [f"{item.item_id}\t{row}\n" for row, item in enumerate(catalog.items)]
    (tmp_path / "office.item2id").write_text("".join(lines))
    found = SemanticIds.load(tmp_path, "office", catalog)
    assert found.codes.shape == (3459, 3)
    assert found.tokens(0) == ("<a_60>", "<b_159>", "<c_203>")
    index = json.loads(published)
    assert found.collisions() == len(index) - len({tuple(codes) for codes in index.values()}) > 0


def test_a_mark_at_the_beginning_is_passed_over(
    ids: SemanticIds, catalog: Catalog, tmp_path: Path
) -> None:
    ids.save(tmp_path, "toys", catalog)
    for name in ("toys.index.json", "toys.item2id"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes("\ufeff".encode() + content)
    assert SemanticIds.load(tmp_path, "toys", catalog).codes.tolist() == CODES.tolist()
    (tmp_path / "toys.index.json").write_text('{"0": ' + "[" * 100_000)
    with pytest.raises(SemanticIdError, match="nested too deeply"):
        SemanticIds.load(tmp_path, "toys", catalog)
