from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from damage import flip_bit
from incatalog.artifacts import MANIFEST, read_json
from incatalog.codes.assign import PICTURE_FILE, REPORT_FILE, assign_items
from incatalog.codes.codebooks import fit_codebooks
from incatalog.codes.quantize import quantize_items
from incatalog.codes.quantizer import load_quantizer
from incatalog.codes.semantic_ids import SemanticIds, load_semantic_ids
from incatalog.codes.settings import AssignSettings, QuantizeSettings
from incatalog.data.catalog import Catalog, Item
from incatalog.errors import ArtifactError, ConfigError, SemanticIdError, VectorError

ITEMS = 40


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assignment") / "toys"
    catalog = Catalog.from_items([Item(f"i{row}", f"Toy {row}") for row in range(ITEMS)])
    catalog.save(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(data: Path) -> Path:
    """Forty vectors, every tenth the same as the first."""
    rows = np.random.default_rng(0).normal(size=(ITEMS, 6)).astype(np.float32)
    rows[::10] = rows[0]
    path = data.parent / "toys.npy"
    np.save(path, rows)
    return path


@pytest.fixture(scope="module", params=["rqvae", "rqkmeans"])
def model(request: pytest.FixtureRequest, vectors: Path) -> Path:
    return quantize_items(
        QuantizeSettings(
            vectors=vectors,
            out=vectors.parent / request.param,
            method=request.param,
            codebooks=(2, 40),
            sinkhorn_eps=(0.0, 0.003),
            layers=(8,),
            e_dim=4,
            epochs=5,
            validate_every=5,
            device="cpu",
        )
    )


def test_every_item_gets_an_id_of_its_own(
    data: Path, vectors: Path, model: Path, tmp_path: Path
) -> None:
    config = AssignSettings(
        data=data, out=tmp_path / "ids", model=str(model), vectors=vectors, device="cpu"
    )
    out = assign_items(config)
    catalog = Catalog.load(data)
    ids = SemanticIds.load(out, "toys", catalog)
    assert ids.collisions() == 0
    rows = np.load(vectors)
    quantizer = load_quantizer(model, "collision", torch.device("cpu"))
    plain = quantizer.codes(rows)
    assert np.array_equal(ids.codes[:, 0], plain[:, 0])
    shared = ITEMS - len({tuple(row) for row in plain.tolist()})
    assert shared >= 3
    report = read_json(out / REPORT_FILE)
    assert report["before"]["collision_rate"] == pytest.approx(shared / ITEMS)
    assert report["after"]["collision_rate"] == 0
    assert report["moved"] == shared == (ids.codes != plain).any(1).sum()
    assert report["moved_by_sinkhorn"] + report["moved_to_nearest"] == shared
    assert report["before"]["unexplained"] == pytest.approx(quantizer.unexplained(rows, plain))
    assert report["before"]["unexplained"] <= report["after"]["unexplained"] + 1e-6 or (
        model.name == "rqvae"
    )
    assert report["prefixes"]["neighbours"][1] == 0
    assert (out / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")
    names = {MANIFEST, REPORT_FILE, PICTURE_FILE, "toys.index.json", "toys.item2id"}
    assert {path.name for path in out.iterdir()} == names
    # The same command leaves a finished run alone.
    before = (out / "toys.index.json").stat().st_mtime_ns
    assert assign_items(config) == out
    assert (out / "toys.index.json").stat().st_mtime_ns == before


def test_an_extra_level_counts_those_with_the_same_codes(
    data: Path, vectors: Path, model: Path, tmp_path: Path
) -> None:
    out = assign_items(
        AssignSettings(
            data=data,
            out=tmp_path,
            model=str(model),
            vectors=vectors,
            extra_level=True,
            dataset="other",
            device="cpu",
        )
    )
    ids = SemanticIds.load(out, "other", Catalog.load(data))
    plain = load_quantizer(model, "collision", torch.device("cpu")).codes(np.load(vectors))
    assert np.array_equal(ids.codes[:, :2], plain)
    assert ids.collisions() == 0
    assert ids.codes[::10, 2].tolist() == [
        (plain[:row] == plain[0]).all(1).sum() for row in range(0, ITEMS, 10)
    ]
    report = read_json(out / REPORT_FILE)
    assert report["moved"] == 0
    assert len(report["after"]["used"]) == 3


def write_index(folder: Path, rows: list[list[str]], name: str = "made") -> Path:
    path = folder / f"{name}.index.json"
    path.write_text(json.dumps({str(row): tokens for row, tokens in enumerate(rows)}))
    return path


def tokens(codes: np.ndarray) -> list[list[str]]:
    return [[f"<{'abc'[level]}_{code}>" for level, code in enumerate(row)] for row in codes]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Codes of two levels in which items 1 and 3 are like item 0."""
    codes = np.array([divmod(row, 8) for row in range(ITEMS)])
    codes[[1, 3]] = codes[0]
    return write_index(tmp_path, tokens(codes))


def test_collisions_of_a_foreign_index_are_refused_with_the_command_to_repair(
    data: Path, foreign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = AssignSettings(data=data, out=tmp_path / "ids", index=foreign)
    with pytest.raises(SemanticIdError) as raised:
        assign_items(config)
    message = str(raised.value)
    assert "2 of 40 items share all their codes" in message
    assert "rows 0 and 1 are both <a_0><b_0>" in message
    assert f"incatalog items assign --index {foreign} --data {data}" in message
    assert message.endswith("--repair")
    assert not (tmp_path / "ids").exists()
    notice = capsys.readouterr().err
    assert "notice: no made.item2id beside made.index.json" in notice


def test_a_foreign_index_is_repaired_without_vectors(
    data: Path, foreign: Path, tmp_path: Path
) -> None:
    out = assign_items(AssignSettings(data=data, out=tmp_path / "x", index=foreign, repair=True))
    ids = SemanticIds.load(out, "toys", Catalog.load(data))
    # Codes 1 and 3 are all that nobody has under this prefix.
    assert sorted(ids.codes[[1, 3]].tolist()) == [[0, 1], [0, 3]]
    assert ids.codes[[0, 2, 4]].tolist() == [[0, 0], [0, 2], [0, 4]]
    report = read_json(out / REPORT_FILE)
    assert report["moved"] == 2
    assert "prefixes" not in report
    assert "unexplained" not in report["before"]


def test_a_foreign_index_is_repaired_with_vectors(
    data: Path, vectors: Path, foreign: Path, tmp_path: Path
) -> None:
    out = assign_items(
        AssignSettings(data=data, out=tmp_path / "x", index=foreign, vectors=vectors, repair=True)
    )
    ids = SemanticIds.load(out, "toys", Catalog.load(data))
    assert sorted(ids.codes[[1, 3], 1].tolist()) == [1, 3]
    report = read_json(out / REPORT_FILE)
    assert 0 < report["after"]["unexplained"] < 1
    assert len(report["prefixes"]["neighbours"]) == 2


def test_an_index_with_an_item_file_may_have_any_order(data: Path, tmp_path: Path) -> None:
    index = write_index(tmp_path, tokens(np.array([divmod(row, 8) for row in range(ITEMS)])))
    rows = "".join(f"i{row}\t{ITEMS - 1 - row}\n" for row in range(ITEMS))
    (tmp_path / "made.item2id").write_text(rows)
    out = assign_items(AssignSettings(data=data, out=tmp_path / "x", index=index))
    ids = SemanticIds.load(out, "toys", Catalog.load(data))
    assert ids.codes[0].tolist() == [4, 7]
    assert ids.codes[-1].tolist() == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "has no entry 39, the row of item 'i39'"),
        (lambda rows: [*rows, ["<a_9>", "<b_0>"]], "entry 40 is the row of no item"),
        (lambda rows: [["<b_0>", "<a_0>"], *rows[1:]], r"entry 0 has '<b_0>' at level 1"),
        (lambda rows: [["<a_0>"], *rows[1:]], "entry 1 has 2 codes; expected 1"),
    ],
)
def test_an_index_that_does_not_fit_is_named(
    data: Path, foreign: Path, tmp_path: Path, change: object, message: str
) -> None:
    rows = change(list(json.loads(foreign.read_text()).values()))  # type: ignore[operator]
    index = write_index(tmp_path, rows, "broken")
    with pytest.raises(SemanticIdError, match=message) as raised:
        assign_items(AssignSettings(data=data, out=tmp_path / "x", index=index, repair=True))
    assert len(str(raised.value).splitlines()) == 1


def test_an_entry_that_is_there_twice_is_named(data: Path, foreign: Path, tmp_path: Path) -> None:
    text = foreign.read_text()
    foreign.write_text(text[:-1] + ',\n"7": ["<a_0>", "<b_1>"]}')
    with pytest.raises(SemanticIdError, match=r"index\.json:2: entry 7 is there twice"):
        assign_items(AssignSettings(data=data, out=tmp_path / "x", index=foreign, repair=True))


def test_a_full_prefix_needs_an_extra_level(data: Path, tmp_path: Path) -> None:
    index = write_index(tmp_path, [["<a_0>", "<b_1>"]] * ITEMS)
    repair = AssignSettings(data=data, out=tmp_path / "x", index=index, repair=True)
    with pytest.raises(SemanticIdError, match=r"40 items share the codes <a_0>, but .* 2 codes"):
        assign_items(repair)
    assert not (tmp_path / "x").exists()
    out = assign_items(AssignSettings(data=data, out=tmp_path / "x", index=index, extra_level=True))
    ids = SemanticIds.load(out, "toys", Catalog.load(data))
    assert ids.codes[:, 2].tolist() == list(range(ITEMS))


def test_fitted_codebooks_by_hand() -> None:
    vectors = np.array([[1.0], [3.0], [10.0]], dtype=np.float32)
    codes = np.array([[0, 1], [0, 2], [2, 1]], dtype=np.int32)
    first, second = fit_codebooks(vectors, codes, (3, 3))
    assert first.tolist() == [[2.0], [0.0], [10.0]]
    # Residuals are -1, 1 and 0.
    assert second.tolist() == [[0.0], [-0.5], [1.0]]


def test_flags_that_do_not_go_together(data: Path, vectors: Path, tmp_path: Path) -> None:
    def refused(**changes: object) -> str:
        with pytest.raises(ConfigError) as raised:
            assign_items(AssignSettings(data=data, out=tmp_path / "x", **changes))  # type: ignore[arg-type]
        return str(raised.value)

    assert refused().startswith("--model: expected either --model")
    assert refused(model="m", index=Path("i")).startswith("--model: expected either")
    assert refused(model="m").startswith("--vectors: required with --model")
    assert refused(model="m", vectors=vectors, repair=True).startswith("--repair")
    assert refused(index=Path("i"), repair=True, extra_level=True).startswith("--extra-level")
    assert refused(index=Path("i"), sinkhorn_eps=0.0).startswith("--sinkhorn-eps 0.0")
    assert refused(index=Path("i"), neighbours=0).startswith("--neighbours 0")
    with pytest.raises(ArtifactError, match=r"quantizer\.json: no such file"):
        assign_items(
            AssignSettings(data=data, out=tmp_path / "x", model=str(tmp_path), vectors=vectors)
        )


def test_vectors_of_another_catalog_are_refused(data: Path, model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((ITEMS - 1, 6), np.float32))
    with pytest.raises(VectorError, match="39 rows; expected one for each of the 40 items"):
        assign_items(
            AssignSettings(
                data=data,
                out=tmp_path / "x",
                model=str(model),
                vectors=tmp_path / "other.npy",
                device="cpu",
            )
        )


def test_the_published_index_is_repaired(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "office"
    index = data / "published.index.json"
    with pytest.raises(SemanticIdError, match=r"15 of 3459 items share .*--repair"):
        assign_items(AssignSettings(data=data, out=tmp_path / "x", index=index))
    out = assign_items(AssignSettings(data=data, out=tmp_path / "x", index=index, repair=True))
    catalog = Catalog.load(data)
    repaired = SemanticIds.load(out, "office", catalog)
    published = SemanticIds.read(index, None, catalog)
    assert repaired.collisions() == 0
    changed = (repaired.codes != published.codes).any(0)
    assert changed.tolist() == [False, False, True]
    assert (repaired.codes != published.codes).any(1).sum() == 15


@pytest.mark.parametrize("method", ["rqvae", "rqkmeans"])
@pytest.mark.parametrize("items", [1, 2])
@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_the_smallest_catalogs_get_codes(method: Any, items: int, tmp_path: Path) -> None:
    catalog = Catalog.from_items([Item(f"i{row}", f"Toy {row}") for row in range(items)])
    catalog.save(tmp_path / "toys")
    vectors = tmp_path / "v.npy"
    np.save(vectors, np.ones((items, 6), np.float32))
    settings = QuantizeSettings(
        vectors=vectors, out=tmp_path / "q", method=method, codebooks=(1, items),
        sinkhorn_eps=(0.0, 0.003), layers=(4,), e_dim=2, epochs=1, validate_every=1, device="cpu",
    )  # fmt: skip
    quantize_items(settings)
    config = AssignSettings(data=tmp_path / "toys", out=tmp_path / "ids")
    made = replace(config, model=tmp_path / "q", vectors=vectors)
    extra = replace(made, out=tmp_path / "extra", extra_level=True)
    index = replace(config, out=tmp_path / "again", index=tmp_path / "ids" / "toys.index.json")
    for one in (made, extra, index, replace(index, out=tmp_path / "with", vectors=vectors)):
        folder = assign_items(one)
        assert SemanticIds.load(folder, "toys", catalog).collisions() == 0
        assert (folder / PICTURE_FILE).read_bytes().startswith(b"\x89PNG")
    report = read_json(tmp_path / "ids" / REPORT_FILE)
    assert report["prefixes"]["count"] == items - 1


def test_damage_to_codes_or_quantizer_is_named(
    data: Path, vectors: Path, model: Path, tmp_path: Path
) -> None:
    config = AssignSettings(
        data=data, out=tmp_path / "ids", model=str(model), vectors=vectors, device="cpu"
    )
    out = assign_items(config)
    catalog = Catalog.load(data)
    for name in ("toys.index.json", "toys.item2id"):
        whole = (out / name).read_bytes()
        # One digit becomes another: still a file of its kind, of other codes or rows.
        damaged = re.sub(rb"\d(?=\D*$)", lambda found: b"%d" % (9 - int(found[0])), whole)
        (out / name).write_bytes(damaged)
        with pytest.raises(ArtifactError, match=f"{name}: is not as it was written"):
            load_semantic_ids(out, catalog)
        (out / name).write_bytes(whole)
    assert len(load_semantic_ids(out, catalog)) == ITEMS

    copied = tmp_path / "model"
    shutil.copytree(model, copied)
    weights = next(copied.glob("*.safetensors"))
    flip_bit(weights, weights.stat().st_size - 2)
    best = "collision" if "collision" in weights.name else "reconstruction"
    with pytest.raises(ArtifactError, match=f"{weights.name}: is not as it was written"):
        load_quantizer(copied, best, torch.device("cpu"))
