from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.artifacts import read_json
from incatalog.cli import main
from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.rewrite.rewrite_catalog import new_names

ITEMS = {
    "a": {
        "title": "Alien [VHS]",
        "description": ["In space", "no one"],
        "brand": "Fox",
        "year": 79,
    },
    "b": {"title": "Tea &amp; Milk", "title_t": "old", "boost": 2.0},
    "c": {"title": "Dune", "empty": None},
    "d": {"title": "Dune"},
    "e": {"title": "Emma"},
}
PARAPHRASES = {
    # Taken by other items: its title in other letters, and what the item before is called now.
    "b": ["dune", "  Milk\nTea "],
    "a": ["Alien"],
    "e": ["Milk tea", "ALIEN", "emma"],
    "c": [],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "metas.jsonl").write_text(json.dumps(ITEMS, indent=1))
    (folder / "category.jsonl").write_text('{"space":   ["a"], "sand": ["d"]}')
    (folder / "sequential.jsonl").write_text('{"1": ["a","b","c"],\n "2": ["d", "e", "a"]}')
    return folder


def paraphrased(tmp_path: Path, found: dict[str, Any] = PARAPHRASES, **more: Any) -> Path:
    path = tmp_path / "paraphrases.jsonl"
    lines = [
        {"item_id": key, "title": ITEMS[key]["title"], "paraphrases": texts} | more
        for key, texts in found.items()
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def run(paraphrases: Path, data: Path, out: Path, *flags: str) -> int:
    paths = ["--paraphrases", str(paraphrases), "--data", str(data), "--out", str(out)]
    return main(["rewrite", "catalog", *paths, *flags])


def test_items_get_the_first_usable_paraphrase_and_keep_the_rest(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", paraphrased(tmp_path)
    assert run(file, data, out) == 0
    told = capsys.readouterr().out
    assert "3 of 5 items have a paraphrase as their title_t, the others their title" in told
    assert "--title-field title_t" in told
    found = read_json(out / "metas.jsonl")
    # Two items share a title and have no paraphrase; the category tells the second one apart.
    names = {"a": "Alien", "b": "Milk Tea", "c": "Dune", "d": "Dune (sand)", "e": "emma"}
    assert found == {key: {**value, "title_t": names[key]} for key, value in ITEMS.items()}
    for name in ("category.jsonl", "sequential.jsonl"):
        assert (out / name).read_bytes() == (data / name).read_bytes()
    catalog = Catalog.load(out, title_field="title_t")
    assert catalog.titles == Catalog.load(data).titles
    assert catalog.fingerprint != Catalog.load(out).fingerprint == Catalog.load(data).fingerprint
    manifest = read_json(out / "manifest.json")
    assert manifest["results"] == {"items": 5, "renamed": 3}
    assert main(["data", "check", str(out), "--title-field", "title_t"]) == 0
    assert "notice" not in capsys.readouterr().err
    # Finished: the same command does nothing, another one is refused.
    before = (out / "metas.jsonl").stat().st_mtime_ns
    assert run(file, data, out) == 0
    assert (out / "metas.jsonl").stat().st_mtime_ns == before
    assert run(file, data, out, "--title-field", "title_t") == 2


def test_another_field_that_was_rewritten_is_kept_without_a_paraphrase(
    tmp_path: Path, data: Path
) -> None:
    metas = {key: {**value, "short": f"s{key}"} for key, value in ITEMS.items()}
    (data / "metas.jsonl").write_text(json.dumps(metas))
    file = paraphrased(tmp_path, {"a": ["first"]}, title="sa")
    assert run(file, data, tmp_path / "out", "--title-field", "short") == 0
    catalog = Catalog.load(tmp_path / "out", title_field="title_t")
    assert catalog.names == ("first", "sb", "sc", "sd", "se")


@pytest.mark.parametrize(
    ("found", "more", "message"),
    [
        ({"a": ["Dune"], "e": [" "]}, {}, "holds no paraphrase that is not the title"),
        ({"a": ["x"]}, {"item_id": "z"}, "item 'z' is not in the catalog"),
        ({"a": ["x"]}, {"title": "Other"}, "is called 'Other'; in the catalog it is 'Alien"),
        ({"a": ["x"]}, {"paraphrases": "x"}, "paraphrases: found 'x'; expected a list"),
    ],
)
def test_paraphrases_that_cannot_be_used(
    tmp_path: Path,
    data: Path,
    capsys: pytest.CaptureFixture[str],
    found: dict[str, Any],
    more: dict[str, Any],
    message: str,
) -> None:
    assert run(paraphrased(tmp_path, found, **more), data, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert message in error
    assert "paraphrases.jsonl" in error
    assert not (tmp_path / "out").exists()


def test_wrong_places(tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = paraphrased(tmp_path)
    assert run(file, data, data) == 2
    assert "is the data itself" in capsys.readouterr().err
    assert run(tmp_path / "none", data, tmp_path / "out") == 2
    assert "no such file; make it with `incatalog rewrite apply`" in capsys.readouterr().err
    assert run(file, data, tmp_path / "out", "--title-field", "titel") == 2
    assert "has no field 'titel'" in capsys.readouterr().err


WORDS = st.sampled_from(
    ["Sea", "sea", "Sea (2)", "Sea (x)", "Lamp", " Lamp ", "of", "&amp;", "Tea"]
)


@given(
    st.lists(st.tuples(WORDS, st.lists(WORDS, max_size=3)), min_size=1, max_size=8), st.booleans()
)
def test_names_are_those_of_one_item(given: list[tuple[str, list[str]]], categories: bool) -> None:
    own = ("x",) if categories else ()
    items = [Item(str(row), title, categories=own) for row, (title, _) in enumerate(given)]
    catalog = Catalog.from_items(items)
    pairs = [(row, text) for row, (_, texts) in enumerate(given) for text in texts]
    names, renamed = new_names(catalog, pairs)
    assert len(set(names)) == len(names) == len(items)
    assert all(name == clean_title(name) for name in names)
    folded = [clean_title(title).casefold() for title, _ in given]
    by_paraphrase = 0
    for row, name in enumerate(names):
        texts = [clean_title(text) for text in given[row][1]]
        others = {*folded[:row], *folded[row + 1 :]}
        if name in texts and name.casefold() not in others and name != clean_title(given[row][0]):
            by_paraphrase += 1
    assert renamed <= by_paraphrase
