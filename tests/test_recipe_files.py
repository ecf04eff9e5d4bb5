"""Recipes that come with the package are found by name, and are the files of the repository."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import REPOSITORY
from incatalog.errors import ConfigError
from incatalog.flags import parse
from incatalog.recipe_files import FOLDER, recipe, recipes, with_recipes
from incatalog.training.settings import SftSettings

GIVEN = ["--data", "d", "--out", "o"]


def test_they_are_the_files_of_the_repository() -> None:
    files = {path.relative_to(REPOSITORY) for path in (REPOSITORY / "recipes").rglob("*.yaml")}
    assert {Path("recipes") / f"{one.name}.yaml" for one in recipes()} == files
    for one in recipes():
        assert one.path.is_relative_to(FOLDER)
        assert one.text == (REPOSITORY / "recipes" / f"{one.name}.yaml").read_text("utf-8")
        assert one.summary
        assert not one.summary.endswith(".")


def test_a_recipe_is_taken_by_name_as_by_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    expected = parse("train sft", SftSettings, ["--config", "recipes/movielens/ret.yaml", *GIVEN])
    assert expected.epochs == 26
    for flags in (
        ["--config", "recipes:movielens/ret"],
        ["--config=recipes:movielens/ret"],
        ["--config", "recipes:movielens/ret.yaml"],
    ):
        assert parse("train sft", SftSettings, [*flags, *GIVEN]) == expected
    changed = ["--config", "recipes:movielens/ret", "--epochs", "3", *GIVEN]
    assert parse("train sft", SftSettings, changed).epochs == 3


def test_only_the_value_of_config_is_a_name() -> None:
    flags = ["--data", "recipes:movielens/ret", "--out=recipes:movielens/ret", "--config"]
    assert with_recipes(flags) == flags


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            "recipes:movielens/rets",
            "--config recipes:movielens/rets: no such recipe, did you mean recipes:movielens/ret?; "
            "see incatalog recipes",
        ),
        ("recipes:", "--config recipes:: no such recipe; see incatalog recipes"),
        (
            "recipes/movielens/ret.yaml",
            "--config recipes/movielens/ret.yaml: no such file; the recipe of that name comes with "
            "the package: --config recipes:movielens/ret",
        ),
    ],
)
def test_a_name_that_there_is_not_is_refused(
    config: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for flags in (["--config", config], [f"--config={config}"]):
        with pytest.raises(ConfigError) as raised:
            parse("train sft", SftSettings, [*flags, *GIVEN])
        assert str(raised.value) == message


def test_an_error_in_a_recipe_names_it() -> None:
    with pytest.raises(ConfigError, match=r"^--config recipes:published/data: no setting 'length'"):
        parse("train sft", SftSettings, ["--config", "recipes:published/data", *GIVEN])


def test_an_installation_without_them_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("incatalog.recipe_files.FOLDER", tmp_path / "recipes")
    with pytest.raises(ConfigError, match="no recipes; expected the files of recipes/"):
        recipe("movielens/ret")
    # What a checkout without symbolic links has in its place.
    (tmp_path / "recipes").write_text("../../recipes")
    with pytest.raises(ConfigError, match="symbolic links"):
        recipes()


def test_the_command_lists_them_and_shows_one(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        run = subprocess.run(
            [sys.executable, "-m", "incatalog.cli", "recipes", *words],
            capture_output=True, text=True, check=True, cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        )  # fmt: skip
        return run.stdout

    lines = said().splitlines()
    assert [line.split()[0] for line in lines] == [f"recipes:{one.name}" for one in recipes()]
    assert [line for line in lines if line.startswith("recipes:published/codebooks ")] == [
        "recipes:published/codebooks      items quantize  The RQ-VAE of RecLM-token"
    ]
    shown = said("movielens/grpo")
    assert shown == said("recipes:movielens/grpo") == recipe("movielens/grpo").text
