"""Names of a catalog in the values of a flag: ids and categories, some of which hold commas.

Imported before anything runs, so nothing heavy is imported here.
"""

from __future__ import annotations

import csv
import shlex
from collections.abc import Collection, Iterable, Sequence

from incatalog.errors import ConfigError


def names(flag: str, values: Sequence[str], known: Collection[str]) -> list[str]:
    """The names that the values of a flag give.

    Each value holds names between commas, as a line of CSV does: a name with a comma in it stands
    in double quotes. A value that is a known name as a whole is that name.
    """
    found: list[str] = []
    for value in values:
        whole = value if value in known else value.strip()
        if whole not in known:
            found += _parts(flag, value)
            continue
        parts = [part.strip() for part in whole.split(",")]
        if len(parts) > 1 and all(part in known for part in parts):
            apart = " ".join(map(shlex.quote, parts))
            how = f"write {_quoted(whole)} for the one or {apart} for the others"
            raise ConfigError(f"{flag}: {whole!r} is one name, and its parts are names too; {how}")
        found.append(whole)
    return found


def quoted_name(flag: str, name: str, known: Iterable[str]) -> str:
    """How to write a name that a comma has split, as the end of a message; empty if none was."""
    for whole in known:
        if "," in whole and name in {part.strip() for part in whole.split(",")}:
            return f"; a name that holds a comma stands in quotes: {flag} {_quoted(whole)}"
    return ""


def _parts(flag: str, value: str) -> list[str]:
    try:
        rows = list(csv.reader([value], skipinitialspace=True, strict=True))
    except csv.Error as error:
        hint = f"a name that holds a comma stands in double quotes, such as {_quoted('a, b')}"
        found = f"{value!r} is no list of names between commas ({error})"
        raise ConfigError(f"{flag}: {found}; {hint}") from error
    return [part.strip() for row in rows for part in row if part.strip()]


def _quoted(name: str) -> str:
    """A name as it is typed in a shell."""
    doubled = name.replace('"', '""')
    return shlex.quote(f'"{doubled}"')
