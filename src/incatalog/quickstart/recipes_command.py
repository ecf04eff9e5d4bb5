"""`incatalog recipes`: what comes with the package for `--config`."""

from __future__ import annotations

import sys

from incatalog.quickstart.settings import RecipesSettings
from incatalog.recipe_files import PREFIX, recipe, recipes


def show_recipes(settings: RecipesSettings) -> None:
    """Prints the names of all recipes with their commands, or the file of one.

    Raises:
        ConfigError: No such recipe.
    """
    if settings.name:
        sys.stdout.write(recipe(settings.name).text)
        return
    known = recipes()
    width = max(len(one.name) for one in known) + len(PREFIX) + 2
    commands = max(len(one.command) for one in known) + 2
    for one in known:
        name = f"{PREFIX}{one.name}"
        sys.stdout.write(f"{name:<{width}}{one.command:<{commands}}{one.summary}\n")
