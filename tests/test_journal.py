from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.errors import ArtifactError
from incatalog.journal import Journal

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(json_values, max_size=6), st.integers(0, 2))
def test_records_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], together: int
) -> None:
    journal = Journal(tmp_path_factory.mktemp("journal") / "records.jsonl")
    assert journal.records() == []
    journal.append(*values[:together])
    for value in values[together:]:
        journal.append(value)
    assert journal.records() == values


def test_a_line_cut_short_anywhere_was_not_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    journal.append({"é": 1})
    first = journal.path.stat().st_size
    journal.append({"b": 2})
    whole = journal.path.read_bytes()
    for end in range(first, len(whole)):
        journal.path.write_bytes(whole[:end])
        assert journal.records() == [{"é": 1}]
        journal.append({"c": 3})
        assert journal.records() == [{"é": 1}, {"c": 3}]


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    journal.append({"positions": [1]}, {"positions": [2]})
    whole = journal.path.read_bytes()
    end_of_first = whole.index(b"\n")
    for place in range(len(whole) - 1):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            journal.path.write_bytes(bytes(damaged))
            line = 1 if place <= end_of_first else 2
            with pytest.raises(
                ArtifactError, match=rf"records\.jsonl:{line}: damaged line; delete"
            ):
                journal.records()


def test_a_flipped_end_of_the_file_counts_as_cut_short(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "records.jsonl")
    journal.append([1], [2])
    journal.path.write_bytes(journal.path.read_bytes()[:-1] + b"\x0b")
    assert journal.records() == [[1]]
