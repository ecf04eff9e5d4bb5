from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.data.documents import entries, json_lines, text_blocks, text_lines
from incatalog.data.fields import FilePlace, identifier
from incatalog.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=5), VALUES), st.sampled_from([None, 0, 2]), st.booleans())
def test_entries_equal_the_parsed_document(tmp_path_factory, value, indent, ascii_only) -> None:
    path = tmp_path_factory.getbasetemp() / "document.json"
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = list(entries(path, ()))
    assert [(entry.key, entry.value) for entry in found] == list(value.items())
    if indent is None:
        assert {entry.line for entry in found} <= {1}


def test_entries_know_their_lines(tmp_path) -> None:
    path = tmp_path / "x.json"
    path.write_text('\n{\n"a":\n[1,\n2],\n\n"b": {"c": "\\n"}}\n{"d": 1}')
    assert [(e.key, e.line) for e in entries(path, ())] == [("a", 3), ("b", 7), ("d", 8)]


def test_records_are_keyed_by_their_id(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"id": 3, "t": "x"}\n{"id": {"t": "an item called id"}}\n')
    found = [(e.key, e.value) for e in entries(path, ("id",))]
    assert found == [("3", {"id": 3, "t": "x"}), ("id", {"t": "an item called id"})]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,}', r":1: not valid JSON"),
        ('{"a" 1}', r":1: not valid JSON: expected ':', found '1'"),
        ("{a: 1}", r":1: not valid JSON: expected '\"', found 'a'"),
        ('{"a": 1}\n\n}', r":3: not valid JSON: expected '\{', found '\}'"),
        ('{"a": 1 "b": 2}', r":1: not valid JSON: expected ',' or '\}', found '\"'"),
        ('{"a": ' + "[" * 100_000, r":1: not usable JSON: nested too deeply"),
    ],
)
def test_broken_documents_name_the_line(tmp_path, text, message) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        list(entries(path, ()))


def test_lines_of_plain_and_gzip_files(tmp_path) -> None:
    content = b'{"a": 1}\r\n\n{"a": 2}'
    (tmp_path / "plain.gz").write_bytes(content)
    (tmp_path / "packed").write_bytes(gzip.compress(content))
    for name in ("plain.gz", "packed"):
        path = tmp_path / name
        found = [(FilePlace(path, 1), {"a": 1}), (FilePlace(path, 3), {"a": 2})]
        assert list(json_lines(path)) == found


def test_text_lines_keep_line_ends_and_drop_the_byte_order_mark(tmp_path) -> None:
    (tmp_path / "x.csv").write_bytes("\ufeffä\r\nb".encode())
    assert list(text_lines(tmp_path / "x.csv")) == ["ä\r\n", "b"]
    (tmp_path / "x.csv").write_bytes(b"a\n\xff\n")
    with pytest.raises(DataError, match=r"x\.csv:2: not UTF-8"):
        list(text_lines(tmp_path / "x.csv"))


def damaged() -> bytes:
    """A gzip file whose lines look sound and whose checksum tells that they are not."""
    packed = bytearray(gzip.compress(b'{"a": 1}\n' * 9, mtime=0))
    packed[-6] ^= 0xFF
    return bytes(packed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"lines: the file is empty"),
        (b"\n \n", r"lines: the file is empty"),
        (gzip.compress(b"", mtime=0), r"lines: the file is empty"),
        (b'{"a": 1}\n{"a": \n', r"lines:2: not valid JSON"),
        (b'{"a": 1}\n[1]\n', r"lines:2: expected one JSON object a line, found a list"),
        (b'{"a": 1}\n{"a": "\xff"}', r"lines:2: not UTF-8 text"),
        (b"[" * 100_000, r"lines:1: not usable JSON: nested too deeply"),
        (gzip.compress(b'{"a": 1}\n' * 9, mtime=0)[:-9], r"lines:\d+: the gzip file ends early"),
        (gzip.compress(b'{"a": 1}\n', mtime=0)[:5], r"lines:1: the gzip file ends early"),
        (damaged(), r"lines:\d+: the gzip file is damaged"),
    ],
)
def test_broken_lines_name_file_and_line(tmp_path, content, message) -> None:
    (tmp_path / "lines").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(json_lines(tmp_path / "lines"))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders(tmp_path) -> None:
    for read in (json_lines, text_lines, lambda path: entries(path, ())):
        with pytest.raises(DataError, match="no such file"):
            list(read(tmp_path / "none"))
        with pytest.raises(DataError, match="is a folder"):
            list(read(tmp_path))


def test_identifiers() -> None:
    assert [identifier(v) for v in ("x", 7, 0)] == ["x", "7", "0"]
    assert [identifier(v) for v in ("", None, True, 1.0, ["x"])] == [None] * 5


def test_a_mark_at_the_beginning_is_passed_over(tmp_path) -> None:
    path = tmp_path / "lines"
    for before in ("", "\n", " \n\n"):
        text = f'\ufeff{before}{{"a": "\ufeffé"}}\n'
        for content in (text.encode(), gzip.compress(text.encode())):
            path.write_bytes(content)
            line = before.count("\n") + 1
            assert list(json_lines(path)) == [(FilePlace(path, line), {"a": "\ufeffé"})]
            assert "".join(text_lines(path)) == text[1:]
        path.write_bytes(text.encode())
        assert [(entry.key, entry.line) for entry in entries(path, ())] == [("a", line)]


def test_fields_that_stand_twice_are_named(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_text('{"a": 1}\n{"a": 1, "b": {"c": 1, "c": 2}}\n')
    assert [place.line for place, _ in json_lines(path)] == [1, 2]
    with pytest.raises(DataError, match=r"x:2: field 'c' occurs twice"):
        list(json_lines(path, unique=True))
    path.write_text('{"a": {"t": 1}}\n{"b":\n{"t": 1, "t": 2}}\n')
    with pytest.raises(DataError, match=r"x:2: field 't' occurs twice"):
        list(entries(path, ()))
    path.write_text('{"id": "a", "t": 1}\n\n{"id": "b",\n"t": 1, "t": 2}\n\n')
    with pytest.raises(DataError, match=r"x:3: field 't' occurs twice"):
        list(entries(path, ("id",)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_blocks_are_whole_lines_with_their_numbers(tmp_path, packed, size) -> None:
    text = "\ufeffone\r\n\ntwo\nthree is long\nfour".encode()
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(text) if packed else text)
    found = list(text_blocks(path, size=size))
    assert b"".join(block for _, block in found) == text.removeprefix("\ufeff".encode())
    assert all(block.endswith(b"\n") for _, block in found[:-1])
    lines = 1
    for first, block in found:
        assert first == lines
        lines += block.count(b"\n")
    assert size > 7 or len(found) > 2


def test_lines_may_be_printed_dicts_where_that_is_said(tmp_path) -> None:
    path = tmp_path / "x"
    path.write_text("{'a': None}\n{\"a\": null}\n{u'a': True}\n")
    found = json_lines(path, literals=True)
    assert [(place.line, record) for place, record in found] == [
        (1, {"a": None}),
        (2, {"a": None}),
        (3, {"a": True}),
    ]
    with pytest.raises(DataError, match="x:1: not valid JSON"):
        list(json_lines(path))
