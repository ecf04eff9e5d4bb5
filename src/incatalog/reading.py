"""Text and JSON from files: one way in, so that every reader takes the same and says the same."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from incatalog.errors import DataError


def read_text(path: str | Path, *, otherwise: str = "") -> str:
    """Reads a UTF-8 file, with or without byte order mark."""
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError.at(path, "no such file") from error
    except IsADirectoryError as error:
        raise DataError.at(path, "is a folder; expected a file") from error
    except OSError as error:
        raise DataError.at(path, f"cannot be read ({error.strerror})") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if otherwise:
            return content.removeprefix(codecs.BOM_UTF8).decode(otherwise)
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError.at(path, f"not UTF-8 text ({error.reason})", line=line) from error


def parse_json(
    path: str | Path, text: str | bytes, *, line: int | None = None, unique: bool = False
) -> Any:
    """Parses JSON."""
    try:
        return json.loads(text, object_pairs_hook=once if unique else None)
    except json.JSONDecodeError as error:
        where = error.lineno if line is None else line
        raise DataError.at(path, f"not valid JSON: {error.msg}", line=where) from error
    except UnicodeDecodeError as error:
        raise DataError.at(path, f"not UTF-8 text ({error.reason})", line=line) from error
    except RepeatedFieldError as error:
        raise DataError.at(path, f"field {error} occurs twice; expected it once", line=line) from (
            error
        )
    except RecursionError as error:
        raise DataError.at(path, "not usable JSON: nested too deeply", line=line) from error
    except ValueError as error:
        # Python refuses to convert integers of more than 4,300 digits.
        message = "not usable JSON: a number has too many digits"
        raise DataError.at(path, message, line=line) from error


class RepeatedFieldError(ValueError):
    """A field stands twice in an object."""


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object of some fields, as a hook of a JSON decoder."""
    record = dict(pairs)
    if len(record) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise RepeatedFieldError(repr(name))
    return record
