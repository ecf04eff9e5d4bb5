from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from damage import edit_json
from incatalog.artifacts import read_json
from incatalog.cli import main
from incatalog.data.catalog import Catalog, Item
from incatalog.data.vectors import save_vectors
from incatalog.embedding.encoders import encoder_folder, load_encoder
from incatalog.errors import ConfigError, DataError, MissingExtraError
from incatalog.journal import Journal
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_backbone
from incatalog.rewrite.apply_rewrite import _kept, _single_rows
from incatalog.rewrite.rewrite_data import ROWS_FILE, make_rewrite_data, nearest
from incatalog.rewrite.rewrite_rewards import REWRITE_REWARDS, GroupRow, SingleRow
from incatalog.rewrite.rows import record, rewrite_of, row_of
from incatalog.rewrite.scoring import RewriteScoring
from incatalog.rewrite.settings import (
    RewriteApplySettings,
    RewriteDataSettings,
    RewriteTrainSettings,
)
from incatalog.rewrite.train_rewrite import row_order, train_rewrite


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("films")
    items = [
        Item(f"i{row}", title, f"About {title}", ("Drama",) if row % 2 else ())
        for row, title in enumerate(titles[:30])
    ]
    Catalog.from_items(items).save(folder)
    random = np.random.default_rng(0)
    histories = {
        f"u{user}": [f"i{row}" for row in random.permutation(30)[: random.integers(4, 9)]]
        for user in range(20)
    }
    (folder / "sequential.jsonl").write_text(json.dumps(histories))
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """Vectors of the titles by the sentence encoder."""
    import torch

    encoder = load_encoder("sentence", "minilm", torch.device("cpu"), max_tokens=64)
    path = tmp_path_factory.mktemp("vectors") / "titles.npy"
    save_vectors(path, encoder.encode(list(titles[:30])))
    return path


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory, data: Path, vectors: Path) -> Path:
    out = tmp_path_factory.mktemp("rows") / "out"
    return make_rewrite_data(RewriteDataSettings(data, vectors, out, groups=12, max_history=3))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / ROWS_FILE).read_text().splitlines()]


def test_rows_hold_what_the_rewards_need(rows: Path, data: Path, vectors: Path) -> None:
    found = lines(rows)
    singles = [row_of(line) for line in found if line["kind"] == "single"]
    groups = [row_of(line) for line in found if line["kind"] == "group"]
    catalog = Catalog.load(data)
    assert {single.title for single in singles if isinstance(single, SingleRow)} == set(
        catalog.titles
    )
    assert 0 < len(groups) <= 12
    around = nearest(np.load(vectors), 10)
    histories = json.loads((data / "sequential.jsonl").read_text())
    for single in singles:
        assert isinstance(single, SingleRow)
        row = catalog.titles.index(single.title)
        assert list(single.neighbours) == around[row].tolist()
        assert row not in single.neighbours
        assert [catalog.titles[n] for n in single.neighbours[:3]] == list(single.distractors)
        assert "Could you recommend me a list 1 different items?" in single.prompt
    for group in groups:
        assert isinstance(group, GroupRow)
        ids = [f"i{catalog.titles.index(title)}" for title in group.titles]
        target = f"i{group.target}"
        # The target follows the history in somebody's training items.
        assert any(
            [*ids, target] == train[max(0, place - len(ids)) : place + 1]
            for train in (history[:-2] for history in histories.values())
            for place in range(1, len(train))
        )
        assert len(ids) <= 3
    for line in found:
        assert record(row_of(line)) == line
        assert set(line) == set(found[0])
        [message] = line["messages"]
        assert message["role"] == "user"
        for title in line["titles"] or [line["title"]]:
            assert title in message["content"]


def test_rows_depend_on_the_seed_alone(
    tmp_path: Path, rows: Path, data: Path, vectors: Path
) -> None:
    settings = {"groups": 12, "max_history": 3}
    again = make_rewrite_data(RewriteDataSettings(data, vectors, tmp_path / "again", **settings))
    other = make_rewrite_data(
        RewriteDataSettings(data, vectors, tmp_path / "other", **settings, seed=1)
    )
    assert lines(again) == lines(rows)
    assert lines(other) != lines(rows)


def test_completions_are_read_as_rewrites() -> None:
    assert rewrite_of('  "Harbour Lights"  \n\n') == "Harbour Lights"
    assert rewrite_of([{"role": "assistant", "content": "**One**\n two"}]) == "One\ntwo"
    assert rewrite_of("\n") == ""
    with pytest.raises(DataError, match="no column"):
        row_of({"kind": "single"})
    with pytest.raises(DataError, match="found kind 'x'"):
        row_of({"kind": "x"})


@pytest.fixture(scope="module")
def scorers(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, vectors: Path
) -> Path:
    folder = tmp_path_factory.mktemp("scorers")
    save_backbone(folder / "model", tiny_backbone)
    parts = {part: {"model": str(folder / "model")} for part in ("perplexity", "tokens", "judge")}
    settings = {**parts, "retrieval": {"encoder": "minilm", "vectors": str(vectors)}}
    path = folder / "scorers.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_five_rewards_train_a_tiny_model(tmp_path: Path, rows: Path, scorers: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(scorers.parent / "model", base)
    # As many models are published; it stood in the way of the checkpoints.
    flags = {"do_sample": False, "temperature": 0.7, "top_k": 20}
    edit_json(base / "generation_config.json", lambda config: config.update(flags))
    flags = {
        "data": rows, "model": base, "scorers": scorers,
        "out": tmp_path / "out",
        "num-generations": 4, "batch-size": 8, "max-steps": 3, "max-tokens": 8,
        "learning-rate": 1e-3, "tune": "full", "device": "cpu",
    }  # fmt: skip
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    assert main(["rewrite", "train", *arguments]) == 0
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert manifest["results"]["steps"] == 3
    for name in REWRITE_REWARDS:
        assert 0 <= manifest["results"][f"rewards/{name}/mean"] <= 1
    assert (tmp_path / "out" / "model.safetensors").exists()
    # Done is done.
    assert main(["rewrite", "train", *arguments]) == 0


def train_flags(rows: Path, scorers: Path, out: Path, **changes: Any) -> list[str]:
    flags = {
        "data": rows, "model": scorers.parent / "model", "scorers": scorers, "out": out,
        "reward": "length", "num-generations": 4, "batch-size": 8, "max-steps": 6,
        "max-tokens": 4, "learning-rate": 1e-2, "checkpoint-every": 2, "device": "cpu",
    } | {name.replace("_", "-"): value for name, value in changes.items()}  # fmt: skip
    return [part for name, value in flags.items() for part in (f"--{name}", str(value))]


def test_rows_to_apply_works_with_the_defaults(
    tmp_path: Path, rows: Path, data: Path, scorers: Path
) -> None:
    rewriter = tmp_path / "rewriter"
    assert main(["rewrite", "train", *train_flags(rows, scorers, rewriter)]) == 0
    assert not list(rewriter.glob("adapter_*"))
    assert not (rewriter / "checkpoints").exists()
    plain = AutoModelForCausalLM.from_pretrained(rewriter)
    before = AutoModelForCausalLM.from_pretrained(scorers.parent / "model")
    changed = {
        name
        for name, weight in plain.named_parameters()
        if not torch.equal(weight, before.get_parameter(name))
    }
    # LoRA reaches the linear layers, and neither embeddings nor norms.
    assert changed
    assert all(name.endswith("proj.weight") for name in changed)
    arguments = [
        "--data", data, "--rows", rows, "--model", rewriter, "--out", tmp_path / "out",
        "--per-item", 2, "--max-tokens", 4, "--device", "cpu",
    ]  # fmt: skip
    assert main(["rewrite", "apply", *map(str, arguments)]) == 0
    written = (tmp_path / "out" / "paraphrases.jsonl").read_text().splitlines()
    assert len(written) == 30


@pytest.mark.parametrize(
    "tune",
    [
        pytest.param("lora", marks=pytest.mark.long),
        pytest.param("full", marks=pytest.mark.slow),
    ],
)
def test_killed_training_of_rewrites_ends_with_the_same_weights(
    tmp_path: Path, rows: Path, scorers: Path, tune: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # More rows than the data has: the second pass comes in the same order too.
    settings = {"tune": tune, "max_steps": 24, "num_generations": 2, "seed": 3}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    program = "import sys; from incatalog.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", program, "rewrite", "train"]
    process = subprocess.Popen(
        [*command, *train_flags(rows, scorers, killed, **settings)], stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(killed.glob("checkpoints/checkpoint-*/complete.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not (killed / "model.safetensors").exists()
    assert main(["rewrite", "train", *train_flags(rows, scorers, killed, **settings)]) == 0
    # It did not begin anew: the steps before the checkpoint were not logged again.
    assert "goes on from step" in capsys.readouterr().err
    assert main(["rewrite", "train", *train_flags(rows, scorers, whole, **settings)]) == 0
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, killed))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    results = [read_json(folder / "manifest.json")["results"] for folder in (whole, killed)]
    assert results[0] == results[1]


def test_rows_come_once_before_any_comes_again() -> None:
    config = RewriteTrainSettings(
        Path(), "", Path(), Path(), max_steps=5, batch_size=8, num_generations=4, seed=1
    )
    order = row_order(4, config, processes=2).tolist()
    assert len(order) == 5 * 8 * 2 // 4
    for start in range(0, 20, 4):
        assert sorted(order[start : start + 4]) == [0, 1, 2, 3]
    assert order == row_order(4, config, processes=2).tolist()
    assert order != row_order(4, dataclasses.replace(config, seed=2), processes=2).tolist()


@pytest.mark.swift
def test_five_rewards_train_under_ms_swift(
    tmp_path: Path, rows: Path, scorers: Path, data: Path
) -> None:
    swift = Path(__file__).parents[2] / ".venv-swift" / "bin" / "swift"
    if not swift.exists():
        pytest.skip("no ms-swift in .venv-swift; run `make test-swift`")
    settings = yaml.safe_load(scorers.read_text())
    # The wheel of the encoder is in this environment, and not in that one.
    settings["retrieval"]["encoder"] = str(encoder_folder("sentence", "minilm"))
    (tmp_path / "scorers.yaml").write_text(yaml.safe_dump(settings))
    source = Path(__file__).parents[2] / "src"
    command = [
        swift, "rlhf", "--rlhf_type", "grpo", "--model", scorers.parent / "model",
        "--model_type", "llama", "--template", "chatml", "--dataset", rows / ROWS_FILE,
        "--external_plugins", source / "incatalog" / "training" / "swift_plugin.py",
        "--reward_funcs", *REWRITE_REWARDS, "--num_generations", 4,
        "--per_device_train_batch_size", 4, "--max_completion_length", 8, "--max_steps", 8,
        "--tuner_type", "full", "--torch_dtype", "float32", "--output_dir", tmp_path / "out",
        "--remove_unused_columns", "false", "--report_to", "none", "--use_vllm", "false",
        "--logging_steps", 1, "--split_dataset_ratio", 0,
    ]  # fmt: skip
    environment = os.environ | {
        "PYTHONPATH": str(source), "INCATALOG_SCORERS": str(tmp_path / "scorers.yaml"),
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    done = subprocess.run(
        list(map(str, command)), env=environment, capture_output=True, text=True, timeout=230,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    [log] = (tmp_path / "out").glob("*/logging.jsonl")
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    seen = {name for entry in entries for name in entry if name.endswith("/mean")}
    for name in REWRITE_REWARDS:
        assert f"rewards/Incatalog_{name}/mean" in seen


def test_plugin_without_ms_swift_says_how_to_get_it() -> None:
    if importlib.util.find_spec("swift") is not None:
        pytest.skip("ms-swift is installed here")
    with pytest.raises(MissingExtraError, match="pip install ms-swift"):
        importlib.import_module("incatalog.rewrite.swift_plugin")


def test_original_titles_keep_their_neighbours_and_others_do_not(rows: Path, scorers: Path) -> None:
    found = [line for line in lines(rows) if line["kind"] == "single"][:6]
    columns = {name: [line[name] for line in found] for name in found[0]}
    scoring = RewriteScoring.load(scorers, "cpu")
    own = scoring.rewards("item2item", columns["title"], columns)
    other = scoring.rewards("item2item", ["completely different words"] * 6, columns)
    assert own == [pytest.approx(1, abs=1e-3)] * 6
    assert np.mean([reward for reward in other if reward is not None]) < 0.9
    lengths = scoring.rewards("length", columns["title"], columns)
    assert lengths == [pytest.approx(0.5)] * 6
    assert scoring.rewards("user2item", columns["title"], columns) == [None] * 6
    assert scoring.rewards("average_ppl", [""] * 6, columns) == [0.0] * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": ("beauty",)}, "no such reward"),
        ({"reward": ()}, "names no reward"),
        ({"reward_weights": (1.0,)}, "1 of them for 5"),
        ({"batch_size": 6}, "not a multiple of --num-generations 4"),
        ({"data": Path("nowhere")}, "incatalog rewrite data"),
        ({"scorers": Path("nowhere.yaml")}, "no such file"),
        ({"max_steps": 0}, "--max-steps"),
        ({"device": "cuda:77"}, "--device cuda:77: not usable"),
    ],
)  # fmt: skip
def test_settings_that_cannot_work(
    tmp_path: Path, rows: Path, scorers: Path, changes: dict[str, Any], message: str
) -> None:
    settings = {"num_generations": 4, "batch_size": 8, **changes}
    settings = {"data": rows, "scorers": scorers, **settings}
    with pytest.raises(ConfigError, match=message):
        train_rewrite(RewriteTrainSettings(model="tiny", out=tmp_path / "out", **settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jugde": {}}, "no part 'jugde'"),
        ({"judge": {"modell": "x"}}, "no setting 'modell'"),
        ({"judge": {}}, "expected 'model'"),
        ({}, "needs the part 'judge'"),
        ({"judge": {"urls": ["http://x/v1"], "model": "m", "key_variable": "NOT_SET_HERE"}},
         "no NOT_SET_HERE"),
        ({"judge": {"urls": ["http://x/v1"], "wait": 3}}, "no setting 'wait'"),
        ({"judge": {"urls": []}}, "at least one http address"),
    ],
)  # fmt: skip
def test_scorers_that_are_misnamed(rows: Path, settings: dict[str, Any], message: str) -> None:
    line = next(line for line in lines(rows) if line["kind"] == "single")
    columns = {name: [value] for name, value in line.items()}
    with pytest.raises(ConfigError, match=message):
        RewriteScoring(settings, "cpu").rewards("discriminative", ["x"], columns)


def test_paraphrases_are_titles_of_their_own(
    tmp_path: Path, rows: Path, data: Path, scorers: Path
) -> None:
    flags = {
        "data": data, "rows": rows, "model": scorers.parent / "model", "out": tmp_path / "out",
        "per-item": 3, "max-tokens": 6, "batch-size": 16, "device": "cpu",
    }  # fmt: skip
    arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
    assert main(["rewrite", "apply", *arguments]) == 0
    path = tmp_path / "out" / "paraphrases.jsonl"
    found = [json.loads(line) for line in path.read_text().splitlines()]
    catalog = Catalog.load(data)
    assert [line["item_id"] for line in found] == [item.item_id for item in catalog.items]
    assert [line["title"] for line in found] == list(catalog.titles)
    texts = [text.casefold() for line in found for text in line["paraphrases"]]
    assert len(texts) == len(set(texts)) > 30
    assert not set(texts) & {title.casefold() for title in catalog.titles}
    assert not (tmp_path / "out" / "unfinished.jsonl").exists()
    whole = path.read_bytes()
    # Interrupted in the middle of a line, it goes on to the same bytes.
    manifest = tmp_path / "out" / "manifest.json"
    running = {**json.loads(manifest.read_text()), "status": "running"}
    del running["checksum"]
    manifest.write_text(json.dumps(running))
    path.unlink()
    journal = Journal(tmp_path / "out" / "unfinished.jsonl")
    journal.append(found[:16])
    with journal.path.open("ab") as stream:
        stream.write(b'0123abcd [{"item_id": "i1')
    assert main(["rewrite", "apply", *arguments]) == 0
    assert path.read_bytes() == whole


def test_paraphrases_have_to_reach_the_rewards(
    tmp_path: Path,
    rows: Path,
    data: Path,
    scorers: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def count(least: float) -> int:
        flags = {
            "data": data, "rows": rows, "model": scorers.parent / "model",
            "out": tmp_path / f"out-{least}", "per-item": 2, "max-tokens": 6, "device": "cpu",
            "scorers": scorers, "reward": "item2item", "least": least,
        }  # fmt: skip
        arguments = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        assert main(["rewrite", "apply", *arguments]) == 0
        manifest = read_json(tmp_path / f"out-{least}" / "manifest.json")
        return int(manifest["results"]["paraphrases"])

    assert count(0.0) > count(0.6) > count(1.1) == 0
    assert main(["rewrite", "apply", "--data", str(data), "--rows", str(rows), "--model", "x",
                 "--out", str(tmp_path / "x"), "--reward", "item2item"]) == 2  # fmt: skip
    capsys.readouterr()
    assert main(["rewrite", "apply", "--data", str(data), "--rows", str(rows), "--model", "x",
                 "--out", str(tmp_path / "x"), "--per-item", "1000000000"]) == 2  # fmt: skip
    assert "--per-item 1000000000: expected 1 to 1000" in capsys.readouterr().err


def test_another_field_is_rewritten_and_the_best_rewrites_come_first(
    tmp_path: Path, data: Path, vectors: Path, scorers: Path
) -> None:
    metas = read_json(data / "metas.jsonl")
    named = {key: {**item, "short": f"S {key}"} for key, item in metas.items()}
    other = tmp_path / "data"
    other.mkdir()
    (other / "metas.jsonl").write_text(json.dumps(named))
    shutil.copy(data / "sequential.jsonl", other)
    settings = RewriteDataSettings(other, vectors, tmp_path / "rows", groups=3, title_field="short")
    found = lines(make_rewrite_data(settings))
    assert {line["title"] for line in found if line["kind"] == "single"} == {
        f"S i{row}" for row in range(30)
    }
    assert all(title.startswith("S i") for line in found for title in line["titles"])
    assert _single_rows(tmp_path / "rows" / ROWS_FILE, Catalog.load(other, title_field="short"))

    flags = {"data": other, "rows": tmp_path, "model": "m", "out": tmp_path, "least": 0.0}
    applied, row = RewriteApplySettings(**flags), {"title": "S i0"}
    texts = ["four words of text", "one", "two words", "taken", "ONE"]
    in_order = ["four words of text", "one", "two words"]
    assert _kept(applied, None, row, texts, {"taken"}) == in_order
    # Shorter is better, whatever came first.
    shortest = dataclasses.replace(applied, reward=("length",))
    scoring, columns = RewriteScoring.load(scorers, "cpu"), _columns(tmp_path / "rows")
    best = ["one", "two words", "four words of text"]
    assert _kept(shortest, scoring, columns, texts, {"taken"}) == best


def _columns(rows: Path) -> dict[str, Any]:
    return next(line for line in lines(rows) if line["kind"] == "single")
