"""Presets are the settings of recipes; flags and files win over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from incatalog.cli import main
from incatalog.flags import parse
from incatalog.training.presets import implied_preset, preset_settings
from incatalog.training.settings import SftSettings

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
FOLDERS = {"tiny": "movielens", "small": "smollm2", "8b": "published"}
# What a recipe says of the training itself rather than of how it is done.
_NAMED = {"preset", "method", "model", "item_form"}


def sft(*flags: str) -> SftSettings:
    settings: SftSettings = parse("train sft", SftSettings, [*flags, "--data", "d", "--out", "o"])
    return settings


@pytest.mark.parametrize("method", ["cgen", "token", "ret"])
@pytest.mark.parametrize("preset", FOLDERS)
def test_a_preset_is_its_recipe(preset: Any, method: Any) -> None:
    recipe = yaml.safe_load((RECIPES / FOLDERS[preset] / f"{method}.yaml").read_text("utf-8"))
    model = recipe["model"]
    found = preset_settings(preset, method, {"model": model, "chat": "c.json"})
    plain = {name: getattr(SftSettings("m", "d", "o"), name) for name in recipe}
    # What the recipe repeats of the plain defaults, the preset need not.
    assert plain | found == (plain | recipe | {name: plain[name] for name in _NAMED & set(plain)})


def test_what_the_model_implies(tmp_path: Path) -> None:
    assert implied_preset("tiny") == "tiny"
    assert implied_preset("smollm2") == "small"
    assert implied_preset("meta-llama/Meta-Llama-3-8B-Instruct") == "none"
    sizes = {"hidden_size": 576, "num_hidden_layers": 30, "intermediate_size": 1536}
    for width, expected in ((576, "small"), (4096, "none")):
        config = sizes | {"hidden_size": width, "vocab_size": 49152}
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert implied_preset(str(tmp_path)) == expected
    # One that was trained goes on as it was.
    (tmp_path / "config.json").write_text(json.dumps(sizes | {"vocab_size": 9}))
    (tmp_path / "incatalog.json").write_text("{}")
    assert implied_preset(str(tmp_path)) == "none"
    (tmp_path / "incatalog.json").unlink()
    (tmp_path / "config.json").write_text("{")
    assert implied_preset(str(tmp_path)) == "none"


def test_flags_and_files_win_over_the_preset(tmp_path: Path) -> None:
    tiny = sft("--model", "tiny")
    assert (tiny.preset, tiny.tune, tiny.epochs, tiny.learning_rate) == ("tiny", "full", 40, 4e-3)
    assert sft("--model", "tiny", "--method", "ret").epochs == 26
    # Also where a flag says what the plain default is.
    flags = sft("--model", "tiny", "--tune", "lora", "--epochs", "10")
    assert (flags.tune, flags.epochs, flags.batch_size) == ("lora", 10, 32)
    file = tmp_path / "sft.yaml"
    file.write_text("model: tiny\nbatch_size: 8\n")
    found = sft("--config", str(file), "--seed", "3")
    assert (found.batch_size, found.tune, found.seed) == (8, "full", 3)
    none = sft("--model", "tiny", "--preset", "none")
    assert none == SftSettings("tiny", Path("d"), Path("o"), preset="none")
    forced = sft("--model", "x/y", "--preset", "8b")
    assert (forced.gradient_accumulation, forced.bf16, forced.keep_best) == (32, True, True)
    assert forced.multi_round_ratio == 0
    assert sft("--model", "x/y") == SftSettings("x/y", Path("d"), Path("o"))


@pytest.mark.parametrize(
    "flags",
    [
        ["--model", "tiny", "--keep-best", "--exclude-seen"],
        ["--model", "tiny", "--answer-form", "title"],
        ["--model", "tiny", "--history-form", "title"],
        ["--model", "tiny", "--method", "ret", "--negatives", "5"],
        ["--model", "tiny", "--method", "ret", "--teacher", "data", "--distill", "0.5"],
        ["--model", "x/y", "--preset", "8b", "--validate-every", "0"],
        ["--model", "x/y", "--preset", "8b", "--checkpoint-every", "9"],
        ["--model", "x/y", "--preset", "8b", "--list-length", "20"],
        ["--model", "x/y", "--preset", "8b", "--method", "ret", "--unseen-only"],
        ["--model", "x/y", "--preset", "8b", "--method", "token", "--teacher", "data", "--distill",
         "0.5"],
        ["--model", "x/y", "--preset", "tiny"],
    ],
)  # fmt: skip
def test_a_preset_contradicts_no_flag(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from incatalog.training.sft import check_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    vectors = ["--vectors", "v.npy"] if "ret" in flags else []
    (tmp_path / "v.npy").touch()
    check_config(
        parse("train sft", SftSettings, [*flags, *vectors, "--data", "data", "--out", "o"])
    )


def test_the_manifest_of_a_run_says_what_was_used(tmp_path: Path, titles: tuple[str, ...]) -> None:
    from incatalog.data.catalog import Catalog, Item
    from incatalog.data.interactions import Histories

    data, out = tmp_path / "data", tmp_path / "run"
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)])
    catalog.save(data)
    lists = [[(user + step) % len(titles) for step in range(5)] for user in range(12)]
    Histories.from_lists([f"u{user}" for user in range(12)], lists).save(data, catalog)
    small = "--tiny-hidden 16 --tiny-inner 16 --tiny-layers 1 --max-steps 1 --device cpu"
    flags = ["--model", "tiny", "--data", str(data), "--out", str(out), *small.split()]
    assert main(["train", "sft", *flags]) == 0
    manifest = json.loads((out / "manifest.json").read_text())
    config = manifest["config"]
    assert (config["preset"], config["tune"], config["tiny_heads"]) == ("tiny", "full", 2)
    assert (config["tiny_hidden"], config["max_steps"]) == (16, 1)
