from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from incatalog.artifacts import MANIFEST, read_json, write_json
from incatalog.data.catalog import CATEGORIES, METAS, Catalog, Item
from incatalog.data.interactions import SEQUENCES, Histories
from incatalog.data.prepared import Prepared, write_prepared
from incatalog.errors import ArtifactError, CatalogError


@dataclass(frozen=True)
class Settings:
    out: Path
    seed: int = 3
    format: str = "json"


CATALOG = Catalog.from_items([Item("a", "A", categories=("x",)), Item("b", "B")])
PREPARED = Prepared(
    CATALOG, Histories.from_lists(["u"], [[0, 1, 0]]), {"odd lines": 2, "even lines": 0}
)


def write(out: Path, source: Path, prepared: Prepared = PREPARED) -> Path:
    return write_prepared(prepared, "data test", Settings(out), {"source": source})


@pytest.fixture
def source(tmp_path) -> Path:
    path = tmp_path / "source.txt"
    path.write_text("x")
    return path


def test_files_manifest_and_summary(tmp_path, source, capsys) -> None:
    out = write(tmp_path / "deep" / "out", source)
    assert sorted(p.name for p in out.iterdir()) == sorted([METAS, CATEGORIES, SEQUENCES, MANIFEST])
    manifest = read_json(out / MANIFEST)
    assert (manifest["stage"], manifest["status"], manifest["seed"]) == ("data test", "finished", 3)
    assert manifest["results"] == {
        "users": 1,
        "items": 2,
        "interactions": 3,
        "categories": 1,
        "skipped": {"odd lines": 2},
    }
    printed = capsys.readouterr().out
    assert "skipped: odd lines" in printed
    assert "even lines" not in printed


def test_earlier_data_is_replaced(tmp_path, source) -> None:
    out = write(tmp_path / "out", source)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert {p.name: p.read_bytes() for p in write(out, source).iterdir()} == before
    other = Catalog.from_items([Item("c", "C")])
    write(out, source, Prepared(other, Histories.from_lists(["v"], [[0, 0, 0]]), {}))
    assert Catalog.load(out) == Catalog.from_items([Item("c", "C")], "out")


def test_other_files_are_never_replaced(tmp_path, source) -> None:
    with pytest.raises(ArtifactError, match=r"--out .*source\.txt: is a file"):
        write(source, source)
    mine = tmp_path / "mine"
    CATALOG.save(mine)
    foreign = r"would overwrite metas\.jsonl, category\.jsonl, which `incatalog data` did not write"
    with pytest.raises(ArtifactError, match=foreign):
        write(mine, source)
    write_json(mine / MANIFEST, {"stage": "teacher fit"})
    with pytest.raises(ArtifactError, match="`incatalog data` did not write"):
        write(mine, source)
    # A folder of UniRec's files has a category.jsonl too.
    write_json(mine / MANIFEST, {"stage": "data to-unirec", "files": {"train.pkl": "", METAS: ""}})
    with pytest.raises(ArtifactError, match="`incatalog data` did not write"):
        write(mine, source)
    write_json(mine / MANIFEST, ["no manifest"])
    with pytest.raises(ArtifactError, match="`incatalog data` did not write"):
        write(mine, source)
    assert Catalog.load(mine) == Catalog.from_items(CATALOG.items, "mine")


def test_other_files_stay(tmp_path, source) -> None:
    assert write(tmp_path, source) == tmp_path
    assert Catalog.load(tmp_path).titles == ("A", "B")
    other = Catalog.from_items([Item("c", "C")])
    write(tmp_path, source, Prepared(other, Histories.from_lists(["v"], [[0, 0, 0]]), {}))
    assert Catalog.load(tmp_path).titles == ("C",)
    assert read_json(tmp_path / MANIFEST)["results"]["users"] == 1
    assert source.read_text() == "x"
    assert {path.name for path in tmp_path.iterdir()} == {
        "source.txt", METAS, CATEGORIES, SEQUENCES, MANIFEST
    }  # fmt: skip
    wrong = Prepared(CATALOG, Histories.from_lists(["u"], [[0, 1, 7]]), {})
    with pytest.raises(CatalogError):
        write(tmp_path, source, wrong)
    assert Catalog.load(tmp_path).titles == ("C",)
    assert len(list(tmp_path.iterdir())) == 5


def test_what_is_read_is_never_overwritten(tmp_path, source) -> None:
    out = write(tmp_path / "out", source)
    with pytest.raises(ArtifactError, match=r"would overwrite .*metas\.jsonl, which is read"):
        write(out, out / METAS)


def test_a_failure_leaves_what_was_there(tmp_path, source) -> None:
    out = write(tmp_path / "out", source)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    wrong = Prepared(CATALOG, Histories.from_lists(["u"], [[0, 1, 7]]), {})
    with pytest.raises(CatalogError):
        write(out, source, wrong)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "source.txt"]
