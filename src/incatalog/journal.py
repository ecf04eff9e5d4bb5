"""Records that survive a kill: lines of JSON that are only ever appended, each with a checksum."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from incatalog.errors import ArtifactError
from incatalog.storage import writing


class Journal:
    """A file of records, which need not exist.

    A line is a checksum and a JSON value. If a kill has cut the last line short, it counts as not
    written; any other line that is not as it was written is an error.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> list[Any]:
        """All records, in order."""
        if not self.path.exists():
            return []
        found = []
        # The last piece is empty, or what a kill has left of a line.
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1], start=1):
            checksum, _, text = line.partition(b" ")
            try:
                if checksum != _checksum(text):
                    raise ValueError("its checksum differs")
                found.append(json.loads(text))
            except (ValueError, RecursionError) as error:
                hint = f"delete {self.path.name} to do its work again"
                raise ArtifactError(f"{self.path}:{number}: damaged line; {hint}") from error
        return found

    def append(self, *records: Any) -> None:
        """Adds records; they are on the disk when this returns."""
        texts = [json.dumps(record, ensure_ascii=False).encode() for record in records]
        with writing(self.path), self.path.open("ab+") as stream:
            stream.truncate(_end_of_last_line(stream))
            stream.writelines(_checksum(text) + b" " + text + b"\n" for text in texts)
            stream.flush()
            os.fsync(stream.fileno())


def _checksum(text: bytes) -> bytes:
    return b"%08x" % zlib.crc32(text)


def _end_of_last_line(stream: BinaryIO) -> int:
    """Where the last whole line ends, in bytes."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - (1 << 16))
        stream.seek(start)
        newline = stream.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
