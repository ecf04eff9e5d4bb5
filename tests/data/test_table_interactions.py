from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Item
from incatalog.data.settings import TableSettings
from incatalog.data.table_blocks import TableBlock
from incatalog.data.table_file import TableFile
from incatalog.data.table_interactions import _RowReader, read_interactions
from incatalog.errors import DataError

ITEMS = [Item(name, name) for name in ("a", "b", "07", "C")]
NAMES = ("user_column", "item_column", "time_column")


def given_settings(**changes: str) -> TableSettings:
    columns = dict(zip(NAMES, ("user", "item", "time"), strict=True))
    paths = Path("t"), Path("i"), Path("o")
    return TableSettings(*paths, **{"id_form": "exact", **columns, **changes})  # type: ignore[arg-type]


def outcome(config: TableSettings, blocks: list[TableBlock], *, singly: bool) -> object:
    """What was found and left out, or the error."""
    table = TableFile(config, Path("t"), *NAMES)
    reader = _RowReader(table, config, ITEMS)
    try:
        for block in blocks:
            if singly or not reader.add_block(block):
                for place, cells in block.rows():
                    reader.add(place, *cells)
        reader.finish()
        frame = reader.found.frame()
    except DataError as error:
        return str(error)
    left_out = list(table.left_out.items())
    return list(reader.found.user_codes), frame.rows(), left_out


TEXTS = st.sampled_from(["u", "v", "w", " u", "", "  ", "x\x07", None])
PLAIN = st.sampled_from(["u", "v", "w"])
THINGS = st.sampled_from(["a", "b", "07", "7", "c", "q", "", "z\n", None])
KNOWN = st.sampled_from(["a", "b", "q", "r"])
TIMES = st.sampled_from(["1", "20000000", "1700000000", "2020-01-01", "soon", None])
SECONDS = st.integers(1_600_000_000, 1_700_000_000).map(str)
DAYS = st.dates().map(str)


def table_of(users, items, times):
    row = st.tuples(users, items, times)
    return st.lists(st.lists(row, min_size=1, max_size=6), min_size=1, max_size=3)


@settings(deadline=None, max_examples=200)
@given(
    st.one_of(
        table_of(PLAIN, KNOWN, SECONDS),
        table_of(PLAIN, THINGS, DAYS),
        table_of(TEXTS, THINGS, SECONDS),
        table_of(PLAIN, KNOWN, TIMES),
    ),
    st.sampled_from(["exact", "trimmed", "folded", "number"]),
    st.sampled_from(["ignore", "error"]),
)
def test_blocks_at_once_are_rows_one_by_one(parts, id_form, unknown_items) -> None:
    config = given_settings(id_form=id_form, unknown_items=unknown_items)
    blocks, line = [], 2
    for part in parts:
        columns = [pl.Series(cells, dtype=pl.String) for cells in zip(*part, strict=True)]
        blocks.append(TableBlock(Path("t"), np.arange(line, line + len(part)), columns))
        line += len(part)
    assert outcome(config, blocks, singly=False) == outcome(config, blocks, singly=True)


def test_numbers_as_ids_and_missing_cells(tmp_path) -> None:
    users, items = pl.Series([1, None, 2]), pl.Series([7, 7, None])
    block = TableBlock(Path("t"), np.arange(1, 4), [users, items, pl.Series([3, 2, 1])])
    config = given_settings(id_form="number")
    found = outcome(config, [block], singly=False)
    assert found == outcome(config, [block], singly=True)
    counts = [("rows without user", 1), ("rows without item", 1)]
    assert found == (["1"], [(0, 2, 3)], counts)


@pytest.mark.parametrize("ending", ["csv", "parquet", "jsonl"])
def test_errors_name_the_line_of_every_format(tmp_path, ending) -> None:
    path = tmp_path / f"t.{ending}"
    times = [str(1_600_000_000 + row) for row in range(500)]
    times[321] = "soon"
    frame = pl.DataFrame({"user": ["u"] * 500, "item": ["a"] * 500, "time": times})
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[ending](
        path
    )
    config = given_settings()
    line = 323 if ending == "csv" else 322
    with pytest.raises(DataError, match=rf":{line}: time is 'soon'; expected a number or an ISO"):
        read_interactions(TableFile(config, path, *NAMES), config, ITEMS)
    frame = frame.with_columns(time=pl.lit("1600000000"))
    {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[ending](
        path
    )
    table = TableFile(config, path, *NAMES)
    assert len(read_interactions(table, config, ITEMS)) == 500
    assert table.left_out == Counter()
