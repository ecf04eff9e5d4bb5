"""Readers of JSON: every entry comes with its line."""

from __future__ import annotations

import bisect
import codecs
import contextlib
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress

from incatalog import reading
from incatalog.artifacts import atomic_path
from incatalog.data.fields import FilePlace, identifier
from incatalog.data.literals import PRINTED_DICTS, parse_literal
from incatalog.errors import DataError

_SPACE = re.compile(r"[ \t\r\n]*")
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(FilePlace):
    """One ``key: value`` of a JSON file, and where the key stands."""

    key: str
    value: Any

    def ids(self, what: str) -> list[str | None]:
        """The item ids that it lists, where ``what`` it is; None stands for one that is no id."""
        self.unicode(f"{what} {self.key!r}", self.key)
        if not isinstance(self.value, list):
            raise self.error(f"{what} {self.key!r}: expected a list of item ids")
        return [identifier(value) for value in self.value]


def read_text(path: str | Path) -> str:
    """Reads a UTF-8 file that is not empty, with or without byte order mark."""
    text = reading.read_text(path)
    if not text.strip():
        raise DataError.at(path, "the file is empty; expected JSON")
    return text


def entries(path: Path, id_fields: tuple[str, ...]) -> Iterator[Entry]:
    """Reads a JSON file that maps keys to values, in any of its usual shapes; keys may repeat.

    The shapes are one object over the whole file (pretty-printed or not), one ``{key: value}``
    object a line, and one record a line that holds its key in one of ``id_fields``.
    """
    text = read_text(path)
    breaks = [index for index, letter in enumerate(text) if letter == "\n"]
    decoder = json.JSONDecoder(object_pairs_hook=reading.once)

    def line_of(position: int) -> int:
        return bisect.bisect_left(breaks, position) + 1

    def skip(position: int) -> int:
        found = _SPACE.match(text, position)
        return found.end() if found else position

    def expect(letters: str, position: int) -> str:
        found = text[position : position + 1]
        if not found or found not in letters:
            wanted = " or ".join(map(repr, letters))
            got = repr(found) if found else "the end of the file"
            message = f"not valid JSON: expected {wanted}, found {got}"
            raise DataError.at(path, message, line=line_of(position))
        return found

    position = skip(0)
    try:
        while position < len(text):
            start = position
            expect("{", position)
            pairs: list[tuple[str, Any]] = []
            places: list[int] = []
            position = skip(position + 1)
            letter = text[position : position + 1]
            while letter != "}":
                expect('"', position)
                places.append(position)
                key, position = decoder.raw_decode(text, position)
                position = skip(position)
                expect(":", position)
                value, position = decoder.raw_decode(text, skip(position + 1))
                pairs.append((key, value))
                position = skip(position)
                letter = expect(",}", position)
                if letter == ",":
                    position = skip(position + 1)
            position = skip(position + 1)
            record = dict(pairs)
            ids = [identifier(record.get(field)) for field in id_fields]
            own = next((found for found in ids if found is not None), None)
            if own is None:
                for (key, value), at in zip(pairs, places, strict=True):
                    yield Entry(path, line_of(at), key=key, value=value)
            else:
                # An error about repeated fields names the line on which the record begins.
                end, position = position, start
                reading.once(pairs)
                position = end
                yield Entry(path, line_of(start), key=own, value=record)
    except (RecursionError, ValueError) as error:
        line = getattr(error, "lineno", line_of(position))
        raise reading.json_fault(path, error, line) from error


def unique_entries(
    path: Path, id_fields: tuple[str, ...], noun: str, hint: str = "; expected unique ids"
) -> Iterator[Entry]:
    """The entries of a file in which no key may repeat."""
    lines: dict[str, int] = {}
    for entry in entries(path, id_fields):
        if entry.key in lines:
            first = lines[entry.key]
            raise entry.error(f"{noun} {entry.key!r} is already on line {first}{hint}")
        lines[entry.key] = entry.line
        yield entry


def json_lines(
    path: Path, *, label: str = "", unique: bool = False, literals: bool = False
) -> Iterator[tuple[FilePlace, dict[str, Any]]]:
    """Streams a file of one JSON object a line, plain or gzip (told by content, not by name).

    With ``literals``, a line may also be a dict as Python prints it.
    """
    place = None
    for number, content in _lines(path, label):
        if not content.strip():
            continue
        place = FilePlace(path, number)
        if literals and content.startswith(PRINTED_DICTS):
            value = parse_literal(place, content)
        else:
            value = reading.parse_json(path, content, line=number, unique=unique)
        if not isinstance(value, dict):
            raise place.error(f"expected one JSON object a line, found a {type(value).__name__}")
        yield place, value
    if place is None:
        raise DataError.at(path, "the file is empty; expected one JSON object a line")


def text_lines(path: Path, *, label: str = "", encoding: str = "utf-8") -> Iterator[str]:
    """Streams the lines of a text file with their line ends, plain or gzip."""
    if encoding != "utf-8":
        yield from _foreign_lines(path, label, encoding)
        return
    for number, content in _lines(path, label):
        try:
            yield content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise reading.json_fault(path, error, number) from error


def text_blocks(path: Path, *, label: str = "", size: int = 1 << 25) -> Iterator[tuple[int, bytes]]:
    """Streams a file, plain or gzip, as blocks of lines, each with the number of its first one."""
    with _opened(path, label) as opened:
        while content := opened.stream.read(size):
            content += opened.stream.readline()
            opened.show()
            start = opened.line + 1
            opened.line += content.count(b"\n")
            yield start, content.removeprefix(codecs.BOM_UTF8) if start == 1 else content


def require_once(path: Path, columns: Sequence[str]) -> None:
    """Refuses a header that has a column twice; columns without a name do not count."""
    for column, count in Counter(columns).items():
        if column and count > 1:
            message = f"column {column!r} occurs twice in the header; expected it once"
            raise DataError.at(path, message, line=1)


def write_document(path: Path, value: Mapping[str, Any]) -> None:
    """Writes one JSON object with one entry a line, atomically."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write("{")
        for number, (key, entry) in enumerate(value.items()):
            stream.write(",\n" if number else "\n")
            stream.write(f"{json.dumps(key, ensure_ascii=False)}: ")
            stream.write(json.dumps(entry, ensure_ascii=False))
        stream.write("\n}\n" if value else "}\n")


def write_lines(path: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a line, atomically."""
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(value, ensure_ascii=False) + "\n" for value in values)


def _lines(path: Path, label: str) -> Iterator[tuple[int, bytes]]:
    """Yields numbered lines."""
    with _opened(path, label) as opened:
        for number, content in enumerate(opened.stream, 1):
            opened.line = number
            if number % 4096 == 0:
                opened.show()
            yield number, content.removeprefix(codecs.BOM_UTF8) if number == 1 else content


def _foreign_lines(path: Path, label: str, encoding: str) -> Iterator[str]:
    """Yields the lines of a file that is not UTF-8; a line may end in bytes of its own."""
    with _opened(path, label) as opened:
        try:
            for number, line in enumerate(TextIOWrapper(opened.stream, encoding, newline=""), 1):
                opened.line = number
                if number % 4096 == 0:
                    opened.show()
                yield line
        except (UnicodeError, LookupError) as error:
            what = f"not text in the encoding {encoding} ({error})"
            raise DataError.at(path, what, line=opened.line + 1) from error


@dataclass
class _Opened:
    """A file that is being read."""

    stream: IO[bytes]
    show: Callable[[], None]  # Shows the progress.
    line: int = 0  # How many lines have been read.


@contextlib.contextmanager
def _opened(path: Path, label: str) -> Iterator[_Opened]:
    """Opens a file, plain or gzip; the progress counts the bytes of the stored file."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise reading.file_fault(path, error) from error
    console = Console(stderr=True)
    hidden = not label or not console.is_terminal
    with raw, Progress(console=console, transient=True, disable=hidden) as progress:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        task = progress.add_task(label, total=path.stat().st_size)
        stream: Any = gzip.GzipFile(fileobj=raw) if packed else raw
        opened = _Opened(stream, lambda: progress.update(task, completed=raw.tell()))
        try:
            yield opened
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            cut = isinstance(error, EOFError)
            fault = "ends early (cut off?)" if cut else f"is damaged ({error})"
            message = f"the gzip file {fault}; download it again"
            raise DataError.at(path, message, line=opened.line + 1) from error
