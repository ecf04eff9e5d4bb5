from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from reclm.artifacts import MANIFEST, read_json
from reclm.config import TableConfig
from reclm.data.catalog import Catalog
from reclm.data.interactions import Histories
from reclm.data.tables import prepare_table
from reclm.errors import ConfigError, DataError

ITEMS = "item_id,title\na,Apple\nb,Beet\nc,Cherry\n"
CLICKS = "user_id,item_id,timestamp\nu,b,2\nu,a,1\nu,c,3\nv,a,1\nv,b,2\n"


def config(folder: Path, clicks: str = CLICKS, items: str = ITEMS, **flags: Any) -> TableConfig:
    (folder / "clicks.csv").write_text(clicks, encoding="utf-8")
    (folder / "items.csv").write_text(items, encoding="utf-8")
    return TableConfig(folder / "clicks.csv", folder / "items.csv", folder / "out", **flags)


def load(out: Path) -> dict[str, list[str]]:
    catalog = Catalog.load(out)
    histories = Histories.load(out, catalog)
    return {
        user: [catalog.item(int(row)).item_id for row in histories.history(index)]
        for index, user in enumerate(histories.user_ids)
    }


def test_csv_by_time_and_short_users_counted(tmp_path) -> None:
    out = prepare_table(config(tmp_path))
    assert load(out) == {"u": ["a", "b", "c"]}
    assert read_json(out / MANIFEST)["results"]["skipped"] == {
        "users with fewer than 3 interactions": 1
    }
    assert Catalog.load(out).titles == ("Apple", "Beet", "Cherry")


def test_columns_are_flags_and_cells_may_hold_line_breaks(tmp_path) -> None:
    clicks = 'when,"who",what\n2020-01-03,u,c\n2020-01-01T12:00:00,u,a\n2020-01-01T12:30Z,u,b\n'
    items = 'sku,kind,text,name\na,x|y,"Two\nlines, ""quoted""",Apple\nb,|y|,,Beet\nc,,,Cherry\n'
    settings = config(
        tmp_path,
        clicks,
        items,
        user_column="who",
        item_column="what",
        time_column="when",
        item_id_column="sku",
        title_column="name",
        description_column="text",
        category_column="kind",
        category_separator="|",
    )
    out = prepare_table(settings)
    assert load(out) == {"u": ["a", "b", "c"]}
    catalog = Catalog.load(out)
    assert catalog.item(0).description == 'Two lines, "quoted"'
    assert [item.categories for item in catalog.items] == [("x", "y"), ("y",), ()]


def test_without_time_the_order_of_the_file_stands_and_repeats_stay(tmp_path) -> None:
    clicks = "user_id,item_id\nu,b\nu,a\nu,b\n"
    assert load(prepare_table(config(tmp_path, clicks, time_column=""))) == {"u": ["b", "a", "b"]}


def test_rows_that_repeat_another_count_once(tmp_path) -> None:
    clicks = CLICKS + "u,b,2\nu,b,9\n"
    out = prepare_table(config(tmp_path, clicks))
    assert load(out) == {"u": ["a", "b", "c", "b"]}
    assert read_json(out / MANIFEST)["results"]["skipped"]["repeated interactions"] == 1


def test_k_core_narrows_the_catalog(tmp_path) -> None:
    items = ITEMS + "d,Date\n"
    clicks = "user_id,item_id,timestamp\n" + "".join(
        f"{user},{item},{time}\n" for user in "uv" for time, item in enumerate("dab")
    )
    out = prepare_table(config(tmp_path, clicks + "u,c,9\n", items, k_core=2))
    assert load(out) == {"u": ["d", "a", "b"], "v": ["d", "a", "b"]}
    assert Catalog.load(out).titles == ("Apple", "Beet", "Date")


def test_all_formats_give_the_same(tmp_path) -> None:
    expected = load(prepare_table(config(tmp_path)))
    clicks = pl.read_csv(tmp_path / "clicks.csv")
    items = pl.read_csv(tmp_path / "items.csv")
    clicks.write_parquet(tmp_path / "clicks.parquet")
    items.write_parquet(tmp_path / "items.parquet")
    clicks.write_ndjson(tmp_path / "clicks.jsonl")
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(items.write_ndjson().encode()))
    clicks.write_csv(tmp_path / "clicks.tsv", separator="\t")
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(ITEMS.encode()))
    pairs = [
        ("clicks.parquet", "items.parquet"),
        ("clicks.jsonl", "items.jsonl.gz"),
        ("clicks.tsv", "items.csv.gz"),
    ]
    for interactions, catalog in pairs:
        settings = TableConfig(tmp_path / interactions, tmp_path / catalog, tmp_path / "out")
        assert load(prepare_table(settings)) == expected


def test_parquet_types(tmp_path) -> None:
    day = datetime.datetime(2020, 1, 1)
    clicks = {
        "user_id": [1, 1, 1],
        "item_id": [10, 20, 30],
        "timestamp": [day.replace(day=d) for d in (3, 1, 2)],
    }
    items = {"item_id": [10, 20, 30], "title": ["A", "B", "C"], "tags": [["x", "y"], [], None]}
    pl.DataFrame(clicks).write_parquet(tmp_path / "c.parquet")
    pl.DataFrame(items).write_parquet(tmp_path / "i.parquet")
    settings = TableConfig(
        tmp_path / "c.parquet", tmp_path / "i.parquet", tmp_path / "out", category_column="tags"
    )
    out = prepare_table(settings)
    assert load(out) == {"1": ["20", "30", "10"]}
    assert [item.categories for item in Catalog.load(out).items] == [("x", "y"), (), ()]


@pytest.mark.parametrize(
    ("clicks", "items", "message"),
    [
        ("", ITEMS, r"clicks\.csv: the file is empty"),
        (CLICKS, "", r"items\.csv: the file is empty"),
        ("user_id,item_id,timestamp\n", ITEMS, r"clicks\.csv: holds a header but no rows"),
        (
            CLICKS,
            "id,title\na,A\n",
            r"items\.csv:1: no column 'item_id' \(--item-id-column\); found id",
        ),
        ("user,item_id\n", ITEMS, r"clicks\.csv:1: no column 'user_id' \(--user-column\)"),
        (CLICKS + "u,zz,4\n", ITEMS, r"clicks\.csv:7: item 'zz' is not in .*items\.csv"),
        (CLICKS + "u,a\n", ITEMS, r"clicks\.csv:7: 2 cells; expected 3"),
        (CLICKS + ",a,4\n", ITEMS, r"clicks\.csv:7: user_id is ''; expected an id"),
        (CLICKS + "u,,4\n", ITEMS, r"clicks\.csv:7: item_id is ''; expected an id"),
        (CLICKS + "u,a,soon\n", ITEMS, r"clicks\.csv:7: timestamp is 'soon'; expected a number"),
        (CLICKS + "u,a,nan\n", ITEMS, r"clicks\.csv:7: timestamp is 'nan'"),
        (CLICKS + 'u,"a', ITEMS, r"clicks\.csv:7: not valid CSV"),
        (CLICKS, ITEMS + "a,Again\n", r"items\.csv:5: item 'a' occurs twice"),
        (CLICKS, ITEMS + "d, \n", r"items\.csv:5: item 'd' has an empty title"),
        (
            CLICKS,
            ITEMS + '"d\n",Date\n',
            r"items\.csv:5: item_id is 'd\\n'; expected an id without",
        ),
        (CLICKS, ITEMS + ",Date\n", r"items\.csv:5: item_id is ''; expected an id"),
        ("user_id,item_id,timestamp\nv,a,1\nv,b,2\n", ITEMS, r"clicks\.csv: no user is left"),
    ],
)
def test_bad_tables_are_one_line_and_leave_nothing(tmp_path, clicks, items, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_table(config(tmp_path, clicks, items))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clicks.csv", "items.csv"]


def test_bad_formats(tmp_path) -> None:
    settings = config(tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"bad\.parquet: not a readable Parquet file") as caught:
        prepare_table(TableConfig(tmp_path / "bad.parquet", settings.items, settings.out))
    assert "\n" not in str(caught.value)
    (tmp_path / "x.jsonl").write_text('{"user_id": "u", "item_id": "a"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl:1: no column 'timestamp' \(--time-column\)"):
        prepare_table(TableConfig(tmp_path / "x.jsonl", settings.items, settings.out))
    (tmp_path / "x.jsonl").write_text(json.dumps({"user_id": 1.5, "item_id": "a", "timestamp": 1}))
    with pytest.raises(DataError, match=r"x\.jsonl:1: user_id is 1\.5; expected an id"):
        prepare_table(TableConfig(tmp_path / "x.jsonl", settings.items, settings.out))
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"]}).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet: no column 'timestamp'"):
        prepare_table(TableConfig(tmp_path / "c.parquet", settings.items, settings.out))
    (tmp_path / "x.xlsx").write_text("x")
    with pytest.raises(ConfigError, match=r"x\.xlsx: unknown ending '\.xlsx'"):
        prepare_table(TableConfig(tmp_path / "x.xlsx", settings.items, settings.out))
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        prepare_table(TableConfig(tmp_path / "none.csv", settings.items, settings.out))
    with pytest.raises(ConfigError, match="--min-interactions 1"):
        prepare_table(config(tmp_path, min_interactions=1))
    with pytest.raises(ConfigError, match="--k-core -1"):
        prepare_table(config(tmp_path, k_core=-1))
