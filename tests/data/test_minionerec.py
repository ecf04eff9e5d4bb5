from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.cli import main
from incatalog.data.minionerec import prepare_minionerec
from incatalog.data.settings import MiniOneRecSettings
from incatalog.errors import DataError

_HEADER = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid"


def items(folder, count=6):
    path = folder / "Toys.item.json"
    described = {
        "0": {"title": "Robot &amp; Co", "description": "['A robot.', 'Red.']", "brand": "Acme"},
        "1": {"title": "Kite", "description": "", "brand": "", "categories": ""},
        "2": {"title": "Ball", "description": "[not a list", "brand": "Acme"},
    }
    found = {str(n): described.get(str(n), {"title": f"Toy {n}"}) for n in range(count)}
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def rows(path, lines):
    """A CSV file as pandas writes it; a line is (user, history, target)."""
    text = [_HEADER]
    for user, history, target in lines:
        # Titles hold what makes CSV hard: quotes, commas, line breaks.
        titles = "\"['12\"\" ruler, wood', 'two\nlines']\""
        text.append(f'{user},{titles},"a, b","{history}",{target},"[\'<a_1>\']",<a_2>')
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def prepared(out, items_file, files, history="users"):
    names = tuple(str(file) for file in files)
    prepare_minionerec(MiniOneRecSettings(items_file, names, out, history))
    return json.loads((out / "sequential.jsonl").read_text(encoding="utf-8"))


def test_rows_of_a_user_become_one_history(tmp_path) -> None:
    train = rows(tmp_path / "train.csv", [("A1", [0], 1), ("A2", [5], 4), ("A1", [0, 1], 0)])
    # The window of a row has an end: the oldest item is gone.
    test = rows(tmp_path / "test.csv", [("A1", [1, 0], 3), ("A3", [2, 2], 2)])
    found = prepared(tmp_path / "out", items(tmp_path), [train, test])
    assert found == {"A1": ["0", "1", "0", "3"], "A3": ["2", "2", "2"]}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["results"]["skipped"] == {"users with fewer than 3 interactions": 1}
    metas = json.loads((tmp_path / "out" / "metas.jsonl").read_text(encoding="utf-8"))
    assert list(metas) == ["0", "1", "2", "3", "4", "5"]
    assert metas["0"] == {"title": "Robot & Co", "description": "A robot. Red."}
    assert metas["1"] == {"title": "Kite"}
    assert metas["2"]["description"] == "[not a list"
    categories = json.loads((tmp_path / "out" / "category.jsonl").read_text(encoding="utf-8"))
    assert categories == {"Acme": ["0", "2"]}


def test_each_row_may_be_a_history_of_its_own(tmp_path) -> None:
    test = rows(tmp_path / "test.csv", [("A1", [0], 1), ("A2", [], 3), ("A1", [0, 1], 1)])
    found = prepared(tmp_path / "out", items(tmp_path), [test], "rows")
    assert found == {"A1:1": ["0", "1"], "A1:2": ["0", "1", "1"]}


def test_inter_files_are_read(tmp_path) -> None:
    path = tmp_path / "Toys.test.inter"
    path.write_text(
        "user_id:token\titem_id_list:token_seq\titem_id:token\n0\t0 1\t2\n7\t3\t4\n",
        encoding="utf-8",
    )
    found = prepared(tmp_path / "out", items(tmp_path), [path], "rows")
    assert found == {"0:1": ["0", "1", "2"], "7:1": ["3", "4"]}


# Each example writes a folder.
@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=3, max_size=25),
    st.integers(1, 10),
    st.lists(st.integers(1, 24), max_size=2),
)
def test_joining_undoes_the_window(tmp_path_factory, sequence, window, cuts) -> None:
    """However the rows are spread over files, the history is the sequence they were cut from."""
    sequence = [item + 6 * at for at, item in enumerate(sequence)]
    folder = tmp_path_factory.mktemp("rows")
    lines = [
        ("A1", sequence[max(at - window, 0) : at], sequence[at]) for at in range(1, len(sequence))
    ]
    edges = [0, *sorted(min(cut, len(lines)) for cut in cuts), len(lines)]
    parts = [lines[low:high] for low, high in itertools.pairwise(edges) if low < high]
    files = [rows(folder / f"{number}.csv", part) for number, part in enumerate(parts)]
    found = prepared(folder / "out", items(folder, 6 * 26), files)
    assert found == {"A1": [str(item) for item in sequence]}


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([("A1", [0], 9)], "rows.csv:2: item '9' is not in "),
        ([("A1", "[0, x]", 1)], "rows.csv:2: history_item_id is '[0, x]'; expected a list of item"),
        (
            [("A1", [0, 1], 2), ("A1", [0], 1)],
            "rows.csv:4: the history of user 'A1' does not go on from the rows before it; "
            "expected rows in the order of time: --rows TRAIN VALID TEST",
        ),
        ([("A1", [0], 1)], "rows.csv: no user is left; give more --rows, or --history rows"),
        ([], "rows.csv: no user is left"),
    ],
)
def test_broken_rows_are_named(lines, expected, tmp_path) -> None:
    file = rows(tmp_path / "rows.csv", lines)
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "out", items(tmp_path), [file])
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ": the file is empty"),
        ("user_id,item_id\n", ":1: no column 'history_item_id'; found user_id, item_id"),
        (f"{_HEADER}\nA1,x\n", ":2: 2 cells; expected 7"),
        (f'{_HEADER}\nA1,"x"y,,,,,\n', ":2: not valid CSV"),
    ],
)
def test_broken_files_are_named(text, expected, tmp_path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "out", items(tmp_path), [file])
    assert str(caught.value).startswith(f"{file}{expected}")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "holds no items"),
        ({"0": "Kite"}, "item '0': expected an object with a title"),
        ({"0": {"title": " "}}, "item '0' has an empty title"),
        ({"0": {"title": 7}}, "title is 7; expected text"),
    ],
)
def test_broken_items_are_named(content, expected, tmp_path) -> None:
    path = tmp_path / "x.item.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    file = rows(tmp_path / "rows.csv", [("A1", [0], 0)])
    with pytest.raises(DataError, match=expected):
        prepared(tmp_path / "out", path, [file])


def test_rows_shorter_than_a_training_history_can_be_tested_with(tmp_path, capsys) -> None:
    """A question of one item before its answer is asked, and refused where something trains."""
    train = rows(tmp_path / "train.csv", [(f"A{n}", [n, n + 1], n + 2) for n in range(4)])
    test = rows(tmp_path / "test.csv", [("A1", [0], 1), ("A2", [3, 1], 2)])
    for name, file, history in (("users", train, "users"), ("rows", test, "rows")):
        prepared(tmp_path / name, items(tmp_path), [file], history)
    out = ["--out", str(tmp_path / "eval")]
    asked = ["evaluate", "recommend", "--model", "popularity", "--data", str(tmp_path / "rows")]
    assert main([*asked, *out]) == 0
    summary = json.loads((tmp_path / "eval" / "summary.json").read_text(encoding="utf-8"))
    assert summary["users"] == 2
    capsys.readouterr()
    valid = [*asked, "--split", "valid", "--out", str(tmp_path / "valid")]
    assert main(valid) == 2
    assert "user 'A1:1' has 2 items; expected at least 3" in capsys.readouterr().err
