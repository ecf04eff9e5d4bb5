from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from incatalog.data import csv_blocks as module
from incatalog.data import table_blocks
from incatalog.data.csv_blocks import csv_blocks
from incatalog.data.table_sample import CsvFormat, csv_rows
from incatalog.errors import DataError

PLAIN = CsvFormat(",", "utf-8", letters=False)

Found = list[tuple[int, list[str]] | str]


def row_by_row(path: Path, form: CsvFormat) -> Found:
    """Lines and cells as the reader of single rows finds them, then its error."""
    found: Found = []
    rows = csv_rows(path, form)
    next(rows)
    try:
        for place, cells in rows:
            found.append((place.line, cells))
    except DataError as error:
        found.append(str(error))
    return found


def in_blocks(path: Path, form: CsvFormat) -> Found:
    found: Found = []
    _, header = next(csv_rows(path, form))
    try:
        for block in csv_blocks(path, form, header, range(len(header))):
            found += [(place.line, list(cells)) for place, cells in block.rows()]
    except DataError as error:
        found.append(str(error))
    return found


CELL = st.text('ab," \\\r\né\x00', max_size=4) | st.sampled_from(['"a,b"', '"x"', '""', '"a""b"'])
LINE = st.lists(CELL, min_size=1, max_size=3).map(",".join) | st.just("u,v")
ENDS = st.sampled_from(["\n", "\r\n"])


@settings(deadline=None)
@given(
    st.sampled_from(["a,b", '"a","b"', '"a\nc",b', "a", "a,b,c"]),
    st.lists(st.tuples(LINE, ENDS), max_size=6),
    st.integers(1, 40),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
@example("a,b", [('"u', "\n"), ('v",w', "\n"), ("x,y", "")], 1, 1, False, False)
@example("a,b", [("x,y", "\n"), ('x,"y', "\n")], 100, 2, False, False)
@example("a,b", [("x,y\rz,w", "\n")], 100, 2, False, False)
def test_blocks_hold_what_single_rows_do(
    tmp_path_factory, header, lines, block, records, letters, cut
) -> None:
    path = tmp_path_factory.mktemp("d") / "t.csv"
    text = "\n".join([header, "".join(line + end for line, end in lines)])
    path.write_bytes(text.removesuffix("\n").encode() if cut else text.encode())
    form = CsvFormat(",", "utf-8", letters=letters)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        patch.setattr(table_blocks, "_RECORDS", records)
        assert in_blocks(path, form) == row_by_row(path, form)


def test_plain_blocks_are_split_at_once(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a,b\n1,"x"\n2,""\n,y\n')
    [block] = csv_blocks(path, PLAIN, ["a", "b"], [1, 0])
    assert [column.to_list() for column in block.columns] == [["x", "", "y"], ["1", "2", ""]]
    assert block.lines.tolist() == [2, 3, 4]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("a;b\nü;1\n", "cp1252"),
        ("a;b\nü;1\n", "utf-16"),
        ("\ufeffa;b\nü;1\n", "utf-8"),
    ],
)
def test_encodings_and_separators(tmp_path, content, encoding) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(gzip.compress(content.encode(encoding)))
    form = CsvFormat(";", encoding, letters=False)
    assert in_blocks(path, form) == [(2, ["ü", "1"])] == row_by_row(path, form)


def test_rows_before_a_broken_one_come_before_its_error(tmp_path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"a,b\n1,2\n3\n\xff,5\n")
    assert in_blocks(path, PLAIN) == [
        (2, ["1", "2"]),
        f"{path}:3: 1 cells; expected 2 as in the header",
    ]
    path.write_bytes(b"a,b\n1,2\n\xff,5\n")
    assert in_blocks(path, PLAIN) == row_by_row(path, PLAIN)
    assert ":3: not UTF-8 text" in str(in_blocks(path, PLAIN)[-1])
    path.write_bytes(b"a,b\n")
    assert in_blocks(path, PLAIN) == [f"{path}: holds a header but no rows"]
