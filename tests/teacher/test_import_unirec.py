from __future__ import annotations

import json
import math
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from incatalog import cli
from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.errors import ArtifactError, ConfigError, DataError, TeacherError
from incatalog.teacher.import_unirec import import_unirec, network_of, read_weights
from incatalog.teacher.sasrec import TEACHER_FILE, WEIGHTS_FILE
from incatalog.teacher.settings import ImportUnirecSettings
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_validation import VALIDATION_FILE
from unirec_weights import reference, state_dict

NUM_ITEMS = 24
# The published training: embedding and hidden 128, inner 256 (its SASRec.yaml), max length 10.
PUBLISHED = {"hidden": 128, "inner": 256, "layers": 2, "length": 10}


def checkpoint(weights: dict[str, Tensor], **settings: Any) -> dict[str, Any]:
    """A checkpoint as UniRec's trainer writes it, numpy scalars, optimiser and all."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimiser = torch.optim.Adam([parameter])
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", patience=1)
    scheduler.step(np.float64(0.04))
    published = {
        "model": "SASRec",
        "n_layers": 2,
        "n_heads": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": "1e-12",
        "max_seq_len": 10,
        "distance_type": "dot",
        "use_position_emb": True,
        "has_item_bias": 0,
        "has_user_bias": 0,
        "loss_type": "fullsoftmax",
        "history_mask_mode": "autoregressive",
        "time_seq": 0,
        "device": torch.device("cpu"),
    }
    return {
        "config": published | settings,
        "cur_epoch": 4,
        "cur_step": 0,
        "best_valid_score": {"hit@10": np.float64(0.1), "ndcg@10": np.float64(0.04)},
        "state_dict": OrderedDict(weights),
        "optimizer": optimiser.state_dict(),
        "scheduler": scheduler.state_dict(),
    }


@pytest.fixture(scope="session")
def weights() -> dict[str, Tensor]:
    return state_dict(**PUBLISHED)


def run(data: Path, folder: Path, content: Any, **flags: Any) -> Path:
    """Saves `content` and imports it."""
    path = folder / "weights.pth"
    torch.save(content, path)
    flags = {"out": folder / "run", "device": "cpu"} | flags
    return import_unirec(ImportUnirecSettings(weights=path, data=data, **flags))


HISTORIES = [[7], [3, 1, 4, 1, 5], list(range(10)), [*range(20, 5, -1), 23], [0, 23]]


def assert_ranks_as(
    out: Path, catalog: Catalog, weights: dict[str, Tensor], **options: Any
) -> None:
    teacher = load_teacher(out, catalog, "cpu")
    scores = teacher.scores(HISTORIES)
    ranks = teacher.ranking(HISTORIES, [range(NUM_ITEMS)] * len(HISTORIES))
    for history, found, order in zip(HISTORIES, scores, ranks, strict=True):
        wanted = reference(weights, [row + 1 for row in history], **options)
        np.testing.assert_allclose(found, wanted.numpy(), atol=2e-4, rtol=1e-4)
        best = torch.argsort(wanted, descending=True).tolist()
        assert np.argsort(order).tolist() == best


def test_the_checkpoint_of_the_published_training_ranks_as_the_reference(
    walks: Path, catalog: Catalog, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    out = run(walks, tmp_path, checkpoint(weights))
    assert_ranks_as(out, catalog, weights)
    assert {path.name for path in out.iterdir()} == {
        MANIFEST,
        TEACHER_FILE,
        WEIGHTS_FILE,
        VALIDATION_FILE,
    }
    split = leave_one_out(Histories.load(walks, catalog))
    hits = 0
    for user in range(len(split)):
        held_out = split.valid(user)
        scores = reference(weights, (held_out.history + 1).tolist())
        hits += bool((scores > scores[held_out.target]).sum() < 10)
    metrics = read_json(out / VALIDATION_FILE)["metrics"]
    assert metrics["HR@10"] == pytest.approx(hits / len(split))
    assert read_json(out / MANIFEST)["results"] == metrics


def test_scalars_under_the_name_of_numpy_1_are_read(tmp_path: Path) -> None:
    torch.save(checkpoint(SMALL), tmp_path / "new.pth")
    replaced = 0
    with (
        zipfile.ZipFile(tmp_path / "new.pth") as new,
        zipfile.ZipFile(tmp_path / "old.pth", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            replaced += content.count(b"numpy._core.multiarray\nscalar")
            old.writestr(name, content.replace(b"numpy._core.", b"numpy.core."))
    assert replaced
    tensors, settings = read_weights(tmp_path / "old.pth")
    assert settings["n_heads"] == 2
    assert all(torch.equal(tensors[name], value) for name, value in SMALL.items())


def test_safetensors_and_bare_state_dicts_take_the_published_settings(
    walks: Path, catalog: Catalog, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    assert_ranks_as(run(walks, tmp_path, weights), catalog, weights)
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    config = ImportUnirecSettings(weights=path, data=walks, out=tmp_path / "other", device="cpu")
    assert_ranks_as(import_unirec(config), catalog, weights)


@pytest.mark.parametrize(
    ("activation", "heads", "eps"),
    [("swish", 16, 1e-10), ("relu", 1, 0.1), ("tanh", 4, 1e-12), ("sigmoid", 2, 1e-12)],
)
def test_settings_come_from_the_checkpoint_or_from_flags(
    activation: str, heads: int, eps: float, walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    weights = state_dict(1, hidden=32, inner=16, layers=1, length=4)
    options = {"activation": activation, "heads": heads, "eps": eps}
    theirs = {"hidden_act": activation, "n_heads": heads, "layer_norm_eps": eps, "max_seq_len": 4}
    out = run(walks, tmp_path, checkpoint(weights, **theirs))
    assert_ranks_as(out, catalog, weights, **options)
    flags = {"activation": activation, "heads": heads, "norm_eps": eps}
    out = run(walks, tmp_path, weights, out=tmp_path / "flags", **flags)
    assert_ranks_as(out, catalog, weights, **options)


SMALL = state_dict(2, hidden=8, inner=8, layers=1, length=3)


@given(st.permutations(range(1, NUM_ITEMS + 1)))
def test_item_numbers_move_the_embeddings(numbers: list[int]) -> None:
    config = ImportUnirecSettings(Path("w.pth"), Path("data"), Path("out"))
    network = network_of(SMALL, {}, np.array(numbers), config)
    rows = [5, 0, 9]
    with torch.no_grad():
        hidden = network.last_hidden(network.pad([np.array(rows)]))
        scores = network.item_scores(hidden)[0]
    wanted = reference(SMALL, [numbers[row] for row in rows])
    torch.testing.assert_close(
        scores.double(), wanted[[n - 1 for n in numbers]], atol=1e-4, rtol=1e-4
    )


def test_numbers_by_appearance_and_by_file_agree(
    walks: Path, catalog: Catalog, tmp_path: Path
) -> None:
    sequences = json.loads((walks / "sequential.jsonl").read_text())
    order = list(dict.fromkeys(item for items in sequences.values() for item in items))
    path = tmp_path / "item2id.json"
    path.write_text(json.dumps({"[PAD]": 0} | {item: n for n, item in enumerate(order, 1)}))
    scores = [
        load_teacher(
            run(walks, tmp_path, SMALL, out=tmp_path / f"run{place}", item_numbers=numbers),
            catalog,
            "cpu",
        ).scores([[3, 8]])
        for place, numbers in enumerate((str(path), "appearance", "row"))
    ]
    np.testing.assert_array_equal(scores[0], scores[1])
    assert not np.allclose(scores[0], scores[2])
    rows = [order.index(f"i{row}") + 1 for row in (3, 8)]
    wanted = reference(SMALL, rows)[[order.index(f"i{row}") for row in range(NUM_ITEMS)]]
    np.testing.assert_allclose(scores[0][0], wanted.numpy(), atol=1e-4)


def test_tables_without_effect_are_passed_over(
    walks: Path, catalog: Catalog, weights: dict[str, Tensor], tmp_path: Path
) -> None:
    more = {"user_embedding.weight": torch.ones(5, 128), "user_bias": torch.ones(5)}
    assert_ranks_as(run(walks, tmp_path, weights | more), catalog, weights)


def _without(*names: str) -> dict[str, Tensor]:
    return {name: value for name, value in SMALL.items() if name not in names}


_QUERY = "trm_encoder.layer.0.multi_head_attention.query.weight"


@pytest.mark.parametrize(
    ("content", "flags", "message"),
    [
        (SMALL | {"item_bias": torch.zeros(25)}, {}, "unknown layer item_bias.*has_item_bias"),
        (SMALL | {"scorer_layers.eps": torch.zeros(())}, {}, "unknown layer.*for distance_type"),
        (SMALL | {"gru.weight": torch.zeros(1, 1)}, {}, "unknown layer gru.weight; see docs"),
        (_without("position_embedding.weight"), {}, "lacks layer position_embedding.weight"),
        (_without(_QUERY), {}, f"lacks layer {_QUERY}"),
        ({"user_embedding.weight": torch.zeros(2, 2)}, {}, "expected the state dict of UniRec's"),
        (
            SMALL | {_QUERY: torch.zeros(8, 7)},
            {},
            r"query.weight has shape \[8, 7\]; expected \[8, 8\]",
        ),
        (SMALL | {_QUERY: torch.zeros(8)}, {}, r"shape \[8\]; expected floats in 2 dimensions"),
        (
            SMALL | {_QUERY: torch.zeros(8, 8, dtype=torch.long)},
            {},
            "torch.int64.*expected floats in 2",
        ),
        (SMALL | {_QUERY: torch.full((8, 8), math.nan)}, {}, "query.weight is not finite"),
        (
            SMALL | {_QUERY: torch.full((8, 8), 1e39, dtype=torch.float64)},
            {},
            "query.weight is not finite",
        ),
        (
            SMALL | {"item_embedding.weight": torch.zeros(9, 8)},
            {},
            "has 9 rows; expected 25, one for padding and one for each of the 24 items",
        ),
        (SMALL | {"step": 3}, {}, "holds no state dict"),
        ([1, 2], {}, "holds no state dict"),
        ({"state_dict": SMALL, "config": [1]}, {}, "config is a list; expected settings by name"),
        (checkpoint(SMALL, model="GRU"), {}, "trained with model 'GRU'; expected 'SASRec'"),
        (checkpoint(SMALL, distance_type="mlp"), {}, "trained with distance_type 'mlp'"),
        (checkpoint(SMALL, use_position_emb=0), {}, "use_position_emb 0; expected True"),
        (checkpoint(SMALL, score_clip_value=1.0), {}, "score_clip_value 1.0; expected -1"),
        (checkpoint(SMALL, max_seq_len=4), {}, r"has 4 rows; expected 4 \(max_seq_len\) and one"),
        (
            checkpoint(SMALL, max_seq_len=3, n_heads="two"),
            {},
            "n_heads is 'two'; expected a value like 2",
        ),
        (checkpoint(SMALL, max_seq_len=3, n_heads=3), {}, "--heads 3: expected a divisor of the"),
        (checkpoint(SMALL, max_seq_len=3, hidden_act="elu"), {}, "--activation elu: expected one"),
        (
            checkpoint(SMALL, max_seq_len=3),
            {"heads": 4},
            "--heads 4: the checkpoint was trained with n_heads 2; leave the flag out",
        ),
        (SMALL, {"norm_eps": 2.0}, "--norm-eps 2.0: expected more than 0 and less than 1"),
        (SMALL, {"item_numbers": "rows"}, "--item-numbers rows: no such file; expected row, app"),
        (SMALL, {"device": "abacus"}, "--device abacus: not usable"),
    ],
)
def test_what_does_not_fit_is_one_line(
    content: Any, flags: dict[str, Any], message: str, walks: Path, tmp_path: Path
) -> None:
    with pytest.raises((TeacherError, ConfigError), match=message) as caught:
        run(walks, tmp_path, content, **flags)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


class _Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("place", ["config", "state_dict", "best_valid_score"])
def test_a_pickle_that_runs_code_is_refused(place: str, walks: Path, tmp_path: Path) -> None:
    mark = tmp_path / "owned"
    content = checkpoint(SMALL) | {place: {"x": _Malicious(mark)}}
    with pytest.raises(TeacherError, match=r"not read, since it asks for \w+\.system, and"):
        run(walks, tmp_path, content)
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(_Malicious(mark)))
    with pytest.raises(TeacherError, match=r"plain\.pth: "):
        read_weights(tmp_path / "plain.pth")
    assert not mark.exists()


@given(st.data())
def test_damaged_checkpoints_are_one_line(tmp_path_factory: Any, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    whole = folder / "whole.pth"
    if not whole.exists():
        torch.save(checkpoint(SMALL), whole)
    content = bytearray(whole.read_bytes())
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "weights.pth"
    path.write_bytes(content)
    message, tensors = "", {}
    try:
        tensors, _ = read_weights(path)
    except TeacherError as error:
        message = str(error)
    assert "\n" not in message
    assert all(isinstance(value, Tensor) for value in tensors.values())


def test_files_that_are_no_weights_are_named(walks: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("none.pth", None, "none.pth: no such file"),
        ("map.pkl", b"x", "found '.pkl'; expected .safetensors, .pth or .pt"),
        ("text.pth", b"hello", "damaged, or not written by torch.save"),
        ("empty.pth", b"", "damaged, or not written by torch.save"),
        ("cut.safetensors", b"\x08\0\0", "damaged safetensors"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(TeacherError, match=message):
            read_weights(tmp_path / name)


def test_a_finished_import_is_not_repeated(walks: Path, tmp_path: Path) -> None:
    out = run(walks, tmp_path, SMALL)
    before = (out / WEIGHTS_FILE).stat().st_mtime_ns
    assert run(walks, tmp_path, SMALL) == out
    assert (out / WEIGHTS_FILE).stat().st_mtime_ns == before
    with pytest.raises(ArtifactError, match="other settings"):
        run(walks, tmp_path, SMALL, heads=4)


def test_the_command_line_reaches_both_ways(
    walks: Path, catalog: Catalog, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "walks")
    assert cli.main(["data", "to-unirec", str(walks), "--out", out]) == 0
    torch.save(SMALL, tmp_path / "weights.pth")
    numbers = ["--item-numbers", f"{out}/item2id.json"]
    flags = ["--weights", str(tmp_path / "weights.pth"), "--data", str(walks), *numbers]
    run_folder = tmp_path / "run"
    assert cli.main(["teacher", "import-unirec", *flags, "--out", str(run_folder)]) == 0
    assert_ranks_as(run_folder, catalog, SMALL)
    assert "valid NDCG@10" in capsys.readouterr().err
    flags_of_evaluation = ["--data", str(walks), "--split", "valid", "--out", str(tmp_path / "e")]
    assert (
        cli.main(["evaluate", "recommend", "--model", str(run_folder), *flags_of_evaluation]) == 0
    )
    metrics = read_json(tmp_path / "e" / "summary.json")["metrics"]
    validated = read_json(run_folder / VALIDATION_FILE)["metrics"]
    assert metrics["NDCG@10"]["value"] == pytest.approx(validated["NDCG@10"])
    capsys.readouterr()
    (tmp_path / "broken.json").write_text("{")
    flags[-1] = str(tmp_path / "broken.json")
    assert cli.main(["teacher", "import-unirec", *flags, "--out", str(tmp_path / "x")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_bad_data_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metas\.jsonl: no such file"):
        run(tmp_path / "nowhere", tmp_path, SMALL)
