from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.fields import FilePlace
from incatalog.data.literals import PRINTED_DICTS, parse_literal
from incatalog.errors import DataError

PLACE = FilePlace(Path("f"), 3)
WORDS = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@settings(max_examples=40)
@given(st.dictionaries(WORDS, VALUES))
def test_what_python_prints_is_read_back(record) -> None:
    assert parse_literal(PLACE, f"{record!r}\n".encode()) == record


def test_python_2_is_read_too() -> None:
    line = (
        rb"""{u'a': u"Don't", 'b': u'\u2122\ud83d\ude00', u'c': [u'\ud83d\ude00'], 'd': '\\ud8'}"""
    )
    assert line.startswith(PRINTED_DICTS)
    assert parse_literal(PLACE, line) == {"a": "Don't", "b": "™😀", "c": ["😀"], "d": r"\ud8"}
    # One half alone stays what it is, and is refused where it is used.
    assert parse_literal(PLACE, rb"{u'a': u'\ud83d'}") == {"a": "\ud83d"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{'a': ", r"not a valid Python literal: '\{' was never closed"),
        (b"{'a': 1} x", "not a valid Python literal: invalid syntax"),
        (b"{'a': nan}", "not a valid Python literal: malformed node or string"),
        (b"{'a': open('f')}", "not a valid Python literal: malformed node or string"),
        (b"{'a': 9**9**9}", "not a valid Python literal: malformed node or string"),
        (b"{'a': \x00}", "not a valid Python literal: source code string cannot contain null"),
        (b"{'a': '\xff'}", "not UTF-8 text"),
        (b"{'a': {[]: 1}}", "not a valid Python literal: unhashable type"),
        (b"{'a': " + b"[" * 5000, "not a usable Python literal|not a valid Python literal: too"),
    ],
)
def test_what_is_none_is_one_line(line, message) -> None:
    with pytest.raises(DataError, match=rf"^f:3: {message}") as caught:
        parse_literal(PLACE, line)
    assert "\n" not in str(caught.value)
