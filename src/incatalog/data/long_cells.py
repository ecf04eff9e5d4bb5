"""Rows of CSV whose cells may be of any length."""

from __future__ import annotations

import csv
import sys
import threading
from collections.abc import Iterator

_LOCK = threading.Lock()


def rows_of(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    """The rows of a ``csv.reader``, without a limit of a cell.

    The module's own limit of 131,072 characters is one for all readers of a process. So it is
    lifted for a row at a time: readers that are half read, or in other threads, leave it as it was.
    """
    while True:
        with _LOCK:
            limit = csv.field_size_limit(sys.maxsize)
            try:
                row = next(reader, None)
            finally:
                csv.field_size_limit(limit)
        if row is None:
            return
        yield row
