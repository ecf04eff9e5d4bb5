"""Every recipe is a configuration that its command takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from reclm.cli import main

_RECIPES = sorted((Path(__file__).resolve().parents[1] / "recipes").rglob("*.yaml"))


@pytest.mark.parametrize("recipe", _RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_is_taken(recipe, capsys, tmp_path):
    needed = ["--data", str(tmp_path), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit) as ended:
        main(["train", "sft", "--config", str(recipe), *needed, "--print-config"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    for line in recipe.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            assert line in printed
