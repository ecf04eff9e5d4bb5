from __future__ import annotations

import json
from pathlib import Path

import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.check import examined
from incatalog.data.convert import convert_data
from incatalog.data.interactions import Histories
from incatalog.data.settings import CheckSettings, ConvertSettings, TableSettings
from incatalog.data.tables import prepare_table
from incatalog.errors import ArtifactError, DataError

METAS = {
    "a": {"title": "Alien", "short": "A", "year": 1979, "tags": ["x", "y"], "seen": None},
    "b": {"name": "Brazil", "year": "eighties", "more": {"k": [1, 2.5]}, "boost": 2},
    "7": {"title": "Seven", "description": ["It", "is"], "price": 1.0, "new": False},
}
# The order of a document is that of the categories of an item.
CATEGORIES = {"z": ["a", 7], "none": [], "x": ["a"]}
SEQUENCES = {"u": ["a", "b", 7], "v": [], "w": ["b"]}


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    documents = {"metas": METAS, "category": CATEGORIES, "sequential": SEQUENCES}
    for name, document in documents.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(document))
    (folder / "catalog.json").write_text('{"formats": {"price": "EUR"}}')
    return folder


def loaded(folder: Path, **options: str) -> tuple[Catalog, list[str], list[int], list[int]]:
    catalog = Catalog.load(folder, "shop", **options)
    found = Histories.load(folder, catalog)
    return catalog, list(found.user_ids), found.offsets.tolist(), found.rows.tolist()


def test_there_and_back(tmp_path, data) -> None:
    there = convert_data(ConvertSettings(data, tmp_path / "there"))
    assert {path.name for path in there.iterdir()} == {
        ".histories", "metas.parquet", "category.parquet", "sequential.parquet", "catalog.json",
        MANIFEST,
    }  # fmt: skip
    back = convert_data(ConvertSettings(there, tmp_path / "back", "json"))
    expected = loaded(data)
    assert expected[0].item(0).categories == ("z", "x")
    assert loaded(there) == loaded(back) == expected
    prints = [loaded(folder)[0].fingerprint for folder in (data, there, back)]
    assert prints == [expected[0].fingerprint] * 3
    # A field that names items is there, too.
    for folder in (data, there, back):
        with pytest.raises(DataError, match=r"year of item 'a' is 1979; expected text"):
            loaded(folder, title_field="year")
    again = convert_data(ConvertSettings(back, tmp_path / "again"))
    for name in ("metas.parquet", "category.parquet", "sequential.parquet"):
        assert (again / name).read_bytes() == (there / name).read_bytes()


def test_both_formats_are_checked_alike(tmp_path, data) -> None:
    there = convert_data(ConvertSettings(data, tmp_path / "there"))
    found = [examined(CheckSettings(folder)) for folder in (data, there)]
    assert [one.trainable for one in found] == [False, False]
    counts = [
        (one.users, one.items, one.interactions, one.categories, one.repeats) for one in found
    ]
    assert counts == [(3, 3, 4, 3, 0)] * 2
    assert [problem.count for problem in found[0].problems] == [2]
    assert (
        found[1].problems[0].examples[0].startswith(f"{there / 'sequential.parquet'}:2: user 'v'")
    )


def test_tables_are_prepared_in_either_format(tmp_path) -> None:
    (tmp_path / "c.csv").write_text("user_id,item_id,timestamp\n" + "u,a,2\nu,b,1\nu,c,3\n" * 2)
    (tmp_path / "i.csv").write_text("item_id,title,genre,price\na,A,z|x,€1\nb,B,x,€2\nc,C,,\n")
    flags = {"category_column": "genre", "category_separator": "|"}
    found = []
    for form in ("json", "parquet"):
        settings = TableSettings(
            tmp_path / "c.csv", tmp_path / "i.csv", tmp_path / "out", format=form, **flags
        )
        # The files of the other format go.
        out = prepare_table(settings)
        assert (out / "metas.jsonl").exists() == (form == "json")
        assert read_json(out / MANIFEST)["results"]["interactions"] == 3
        found.append(loaded(out))
    assert found[0] == found[1]
    assert found[0][0].formats == (("price", "EUR"),)
    back = convert_data(ConvertSettings(tmp_path / "out", tmp_path / "back", "json"))
    prepare_table(TableSettings(tmp_path / "c.csv", tmp_path / "i.csv", tmp_path / "own", **flags))
    for name in ("metas.jsonl", "category.jsonl", "sequential.jsonl", "catalog.json"):
        assert (back / name).read_bytes() == (tmp_path / "own" / name).read_bytes()


def test_refusals(tmp_path, data) -> None:
    with pytest.raises(ArtifactError, match=r"would overwrite .*which `incatalog data` did not"):
        convert_data(ConvertSettings(data, data))
    with pytest.raises(DataError, match=r"nowhere/metas\.jsonl: no such file"):
        convert_data(ConvertSettings(tmp_path / "nowhere", tmp_path / "out"))
    (data / "sequential.jsonl").write_text('{"u": ["q"]}')
    with pytest.raises(DataError, match=r"user 'u' has item 'q', unknown to metas\.jsonl"):
        convert_data(ConvertSettings(data, tmp_path / "out"))
    (data / "metas.parquet").touch()
    with pytest.raises(DataError, match=r"holds metas\.jsonl and metas\.parquet; expected one"):
        convert_data(ConvertSettings(data, tmp_path / "out"))
    assert not (tmp_path / "out").exists()
