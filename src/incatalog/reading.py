"""Text and JSON from files: every reader takes the same forms and makes the same errors."""

from __future__ import annotations

import codecs
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from incatalog.errors import DataError

# Endings of what people give in place of a folder of prepared data.
_TABLES = {".csv", ".tsv", ".parquet", ".jsonl", ".json"}


def read_text(path: str | Path, *, otherwise: str = "") -> str:
    """Reads a UTF-8 file, with or without byte order mark.

    ``otherwise`` is the encoding of a file that is not UTF-8; an empty one refuses it.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise file_fault(path, error) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if otherwise:
            return content.removeprefix(codecs.BOM_UTF8).decode(otherwise)
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError.at(path, f"not UTF-8 text ({error.reason})", line=line) from error


def file_fault(path: str | Path, error: OSError) -> DataError:
    """What an error says about a file that cannot be read."""
    if isinstance(error, FileNotFoundError):
        return DataError.at(path, "no such file")
    if isinstance(error, IsADirectoryError):
        return DataError.at(path, "is a folder; expected a file")
    if isinstance(error, NotADirectoryError):
        folder = Path(path).parent
        table = folder.suffix in _TABLES
        hint = "; `incatalog data table` makes one of tables" if table else ""
        return DataError.at(folder, f"is a file; expected a folder{hint}")
    return DataError.at(path, f"cannot be read ({error.strerror})")


def parse_json(
    path: str | Path, text: str | bytes, *, line: int | None = None, unique: bool = False
) -> Any:
    """Parses JSON; with ``unique`` an object may name a field only once.

    ``line`` is the line of the file the text stands on; None for a whole file.
    """
    try:
        return json.loads(text, object_pairs_hook=once if unique else None)
    except (RecursionError, ValueError) as error:
        where = getattr(error, "lineno", None) if line is None else line
        raise json_fault(path, error, where) from error


def json_fault(path: str | Path, error: Exception, line: int | None) -> DataError:
    """What an error of a JSON decoder says about the file."""
    match error:
        case json.JSONDecodeError():
            message = f"not valid JSON: {error.msg}"
        case UnicodeDecodeError():
            message = f"not UTF-8 text ({error.reason})"
        case RepeatedFieldError():
            message = f"field {error} occurs twice; expected it once"
        case RecursionError():
            message = "not usable JSON: nested too deeply"
        case _:
            # Python refuses to convert integers of more than 4,300 digits.
            message = "not usable JSON: a number has too many digits"
    return DataError.at(path, message, line=line)


class RepeatedFieldError(ValueError):
    """A field occurs twice in an object; the text is its name."""


def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The object that some fields make, as a hook of a JSON decoder; refuses repeated ones."""
    record = dict(pairs)
    if len(record) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise RepeatedFieldError(repr(name))
    return record
