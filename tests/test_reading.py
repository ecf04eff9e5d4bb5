from __future__ import annotations

import codecs

import pytest

from incatalog.artifacts import read_json
from incatalog.errors import DataError
from incatalog.reading import parse_json, read_text


def test_a_mark_is_passed_over_in_either_encoding(tmp_path) -> None:
    path = tmp_path / "a.txt"
    for encoding, otherwise in (("utf-8", ""), ("utf-8", "latin-1"), ("latin-1", "latin-1")):
        for mark in (b"", codecs.BOM_UTF8):
            path.write_bytes(mark + "Amélie\n".encode(encoding))
            assert read_text(path, otherwise=otherwise) == "Amélie\n"
    path.write_bytes(codecs.BOM_UTF8 + b'{"a": 1}')
    assert read_json(path) == {"a": 1}


def test_files_that_are_no_text_are_named_by_line(tmp_path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("one\ntwo\nAmélie".encode("latin-1"))
    with pytest.raises(DataError, match=r"a\.txt:3: not UTF-8 text"):
        read_text(path)
    with pytest.raises(DataError, match=r"none: no such file"):
        read_text(tmp_path / "none")
    with pytest.raises(DataError, match=r": is a folder; expected a file"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "x: not usable JSON: nested too deeply"),
        ('{"a":' * 100_000, "x: not usable JSON: nested too deeply"),
        ("[" + "7" * 5000 + "]", "x: not usable JSON: a number has too many digits"),
        ("[1,\n2,\n]", "x:3: not valid JSON: "),
    ],
)
def test_json_that_cannot_be_used_is_one_line(text, message) -> None:
    with pytest.raises(DataError) as caught:
        parse_json("x", text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"^x:7: "):
        parse_json("x", text.encode(), line=7)


def test_a_field_may_have_to_be_unique() -> None:
    text = '{"a": 1, "b": {"c": 1, "c": 2}}'
    assert parse_json("x", text) == {"a": 1, "b": {"c": 2}}
    with pytest.raises(DataError, match=r"^x:2: field 'c' occurs twice; expected it once$"):
        parse_json("x", text, line=2, unique=True)
