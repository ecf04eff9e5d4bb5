"""Shows what was guessed about two tables, and has people say the rest."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.prompt import Prompt
from rich.table import Table

from incatalog.data.guessing import ORDERS, PRODUCTS, ColumnGuess, TableGuess, guess_columns
from incatalog.data.settings import TableSettings
from incatalog.errors import ConfigError, DataError

_LONGEST_EXAMPLE = 20


def settled(settings: TableSettings, *, always_show: bool = False) -> TableSettings:
    """The settings of two tables with nothing left open.

    What a guess is sure of is taken. On a terminal the rest is asked for.

    Args:
        settings: What is given wins over every guess.
        always_show: Print what was guessed even where all columns are called as we call them.

    Raises:
        DataError: A file is missing, empty or broken, or columns are left open where nobody can be
            asked; names all of them with their flags.
        ConfigError: The ending of a file is unknown, or a column is given that the file has not.
    """
    guess = guess_columns(settings)
    _check_given(settings, guess)
    console = Console(stderr=True)
    if always_show or guess.open or not _plain(guess):
        console.print(shown_guess(guess))
    filled = guess.settings
    if guess.open:
        if not (sys.stdin.isatty() and console.is_terminal):
            raise DataError(_left_open(guess))
        try:
            answered: dict[str, Any] = {
                one.setting: _asked(one, guess, console) for one in guess.open
            }
        except EOFError as error:  # nobody is at the terminal
            raise DataError(_left_open(guess)) from error
        # The form of ids and the like follow from the columns.
        filled = guess_columns(replace(settings, **answered)).settings
    return filled


def shown_guess(guess: TableGuess) -> Table:
    """Every role with its column, two values of it, and why."""
    table = Table(title="Columns, as guessed", title_justify="left", caption_justify="left")
    for name in ("what", "column", "two values", "why"):
        table.add_column(name, overflow="fold")
    for part in (ORDERS, PRODUCTS):
        table.add_row(f"[bold]{escape(guess.sample(part).path.name)}[/bold]")
        for one in (*guess.columns, *guess.kept):
            if one.table == part:
                table.add_row(*map(escape, _row(guess, one)), style="" if one.sure else "yellow")
        table.add_section()
    table.caption = "\n".join(f"{note[:1].upper()}{note[1:]}." for note in guess.notes) or None
    return table


def _row(guess: TableGuess, one: ColumnGuess) -> tuple[str, str, str, str]:
    column = guess.sample(one.table).columns.get(one.column)
    values = ", ".join(map(_short, column.examples())) if column else ""
    what = one.what if one.setting else f"{one.what} (kept)"
    return what, one.column or "none", values, one.why


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST_EXAMPLE else f"{text[:_LONGEST_EXAMPLE]}…"


def _plain(guess: TableGuess) -> bool:
    """Whether all columns that were guessed are called as we call them, and nothing is to say."""
    names = {"user_column": "user_id", "item_column": "item_id", "item_id_column": "item_id",
             "time_column": "timestamp", "title_column": "title",
             "description_column": "description", "category_column": "category",
             "boost_column": "boost"}  # fmt: skip
    return not guess.notes and all(
        one.column == names.get(one.setting) for one in guess.columns if one.column
    )


def _check_given(settings: TableSettings, guess: TableGuess) -> None:
    """Refuses a column that is given and not there."""
    for setting in ("user_column", "item_column", "time_column"):
        _check_column(setting, getattr(settings, setting), guess, ORDERS)
    for setting in ("item_id_column", "title_column", "description_column", "category_column"):
        _check_column(setting, getattr(settings, setting), guess, PRODUCTS)


def _check_column(setting: str, name: str | None, guess: TableGuess, table: str) -> None:
    sample = guess.sample(table)
    if name and name not in sample.columns:
        found = ", ".join(sample.columns)
        flag = "--" + setting.replace("_", "-")
        raise DataError.at(sample.path, f"no column {name!r} ({flag}); found {found}")


def _left_open(guess: TableGuess) -> str:
    """One line that names everything that is missing, with its flag."""
    parts = []
    for one in guess.open:
        path = guess.sample(one.table).path
        likely = f" (perhaps {', '.join(map(repr, one.choices))})" if one.choices else ""
        parts.append(f"{one.flag} for the {one.what} in {path.name}{likely}")
    columns = "; ".join(
        f"{sample.path.name} has {', '.join(sample.columns)}"
        for sample in (guess.orders, guess.products)
    )
    return f"columns that cannot be told: {'; '.join(parts)}. Give these flags; {columns}"


def _asked(one: ColumnGuess, guess: TableGuess, console: Console) -> str:
    """What a person says about one setting."""
    sample = guess.sample(one.table)
    if one.setting == "time_format":
        text = f"How are the times of {sample.path.name} written?"
        return Prompt.ask(text, choices=list(one.choices), default=one.choices[0], console=console)
    others = [name for name in sample.columns if name not in one.choices]
    names = [*one.choices, *others]
    console.print(f"Which column of {sample.path.name} holds the {one.what}?", highlight=False)
    for number, name in enumerate(names, 1):
        values = ", ".join(map(_short, sample.columns[name].examples()))
        console.print(f"  {number}. {name}  [dim]{values}[/dim]", highlight=False)
    numbers = [str(number) for number in range(1, len(names) + 1)]
    answer = Prompt.ask("Number", choices=numbers, default="1", console=console, show_choices=False)
    if not answer:
        raise ConfigError(f"{one.flag}: no answer; give the flag")
    return names[int(answer) - 1]
