"""The recipes that come with the package, settings of whole trainings: ``--config recipes:NAME``.

They are the files of ``recipes/`` in the repository; ``recipes`` beside this file leads there, and
in a wheel it holds them.
"""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path
from typing import NamedTuple

from incatalog.errors import ConfigError

PREFIX = "recipes:"
FOLDER = Path(__file__).with_name("recipes")
# The command of a recipe, by the name of its file.
_COMMANDS = {
    "data": "data amazon",
    "teacher": "teacher fit",
    "vectors": "items embed",
    "vectors-ret": "items embed",
    "vectors-token": "items embed",
    "codebooks": "items quantize",
    "cgen": "train sft",
    "ret": "train sft",
    "token": "train sft",
    "grpo": "train grpo",
}


class RecipeFile(NamedTuple):
    """A recipe: its name, such as ``movielens/cgen``, and its file."""

    name: str
    path: Path

    @property
    def command(self) -> str:
        """The command that takes it."""
        return _COMMANDS[self.path.stem]

    @property
    def text(self) -> str:
        """The file as it is."""
        return self.path.read_text(encoding="utf-8")

    @property
    def summary(self) -> str:
        """The first sentence of its head."""
        head = itertools.takewhile(lambda line: line.startswith("#"), self.text.splitlines())
        words = " ".join(line.removeprefix("#").strip() for line in head)
        return words.partition(". ")[0].removesuffix(".")


def recipes() -> list[RecipeFile]:
    """All recipes, in the order of their names.

    Raises:
        ConfigError: The installation has none, as of a checkout without symbolic links.
    """
    files = sorted(FOLDER.glob("*/*.yaml")) if FOLDER.is_dir() else []
    if not files:
        raise ConfigError(
            f"{FOLDER}: no recipes; expected the files of recipes/ (a checkout needs symbolic "
            "links: git config core.symlinks true), or install a wheel"
        )
    return [RecipeFile(f"{file.parent.name}/{file.stem}", file) for file in files]


def recipe(name: str) -> RecipeFile:
    """The recipe of a name, with or without ``recipes:`` in front and ``.yaml`` behind.

    Raises:
        ConfigError: There is none of that name.
    """
    wanted, known = name.removeprefix(PREFIX).removesuffix(".yaml"), recipes()
    for one in known:
        if one.name == wanted:
            return one
    close = difflib.get_close_matches(wanted, [one.name for one in known], n=1)
    meant = f", did you mean {PREFIX}{close[0]}?" if close else ""
    raise ConfigError(f"{name}: no such recipe{meant}; see incatalog recipes")


def with_recipes(flags: list[str]) -> list[str]:
    """The flags of a command, with the file of each ``--config recipes:NAME``.

    Raises:
        ConfigError: No such recipe, or a path of ours that is not here.
    """
    found = list(flags)
    for place, flag in enumerate(flags):
        if flag == "--config" and place + 1 < len(flags):
            found[place + 1] = _file(flags[place + 1])
        elif flag.startswith("--config="):
            found[place] = f"--config={_file(flag.partition('=')[2])}"
    return found


def _file(config: str) -> str:
    """The path of a configuration; that of a recipe where it is named as one."""
    if config.startswith(PREFIX):
        try:
            return str(recipe(config).path)
        except ConfigError as error:
            raise ConfigError(f"--config {error}") from error
    path = Path(config)
    # As the docs write it, outside of a checkout.
    if path.parts[:1] == ("recipes",) and len(path.parts) == 3 and not path.exists():
        name = f"{path.parts[1]}/{path.stem}"
        if any(one.name == name for one in recipes()):
            raise ConfigError(
                f"--config {config}: no such file; the recipe of that name comes with the package: "
                f"--config {PREFIX}{name}"
            )
    return config
