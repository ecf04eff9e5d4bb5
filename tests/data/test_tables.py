from __future__ import annotations

import csv
import dataclasses
import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.data.settings import TableSettings
from incatalog.data.tables import prepare_table
from incatalog.data.where import Where
from incatalog.errors import ConfigError, DataError

ITEMS = "item_id,title\na,Apple\nb,Beet\nc,Cherry\n"
CLICKS = "user_id,item_id,timestamp\nu,b,2\nu,a,1\nu,c,3\nv,a,1\nv,b,2\n"


def config(folder: Path, clicks: str = CLICKS, items: str = ITEMS, **flags: Any) -> TableSettings:
    (folder / "clicks.csv").write_text(clicks, encoding="utf-8")
    (folder / "items.csv").write_text(items, encoding="utf-8")
    return TableSettings(folder / "clicks.csv", folder / "items.csv", folder / "out", **flags)


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
        settings = TableSettings(tmp_path / interactions, tmp_path / catalog, tmp_path / "out")
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
    settings = TableSettings(
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
            "title,note\nFirst,x\nSecond,y\n",
            r"columns that cannot be told: --item-column for the product in clicks\.csv.*; "
            r"--item-id-column for the product id in items\.csv.* clicks\.csv has user_id, ",
        ),
        ("user,item_id\n", ITEMS, r"clicks\.csv: holds a header but no rows"),
        (CLICKS + "u,a\n", ITEMS, r"clicks\.csv:7: 2 cells; expected 3"),
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
        prepare_table(TableSettings(tmp_path / "bad.parquet", settings.items, settings.out))
    assert "\n" not in str(caught.value)
    (tmp_path / "x.jsonl").write_text('{"user_id": "u", "item_id": "a"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl: no column 'timestamp' \(--time-column\)"):
        prepare_table(
            TableSettings(
                tmp_path / "x.jsonl", settings.items, settings.out, time_column="timestamp"
            )
        )
    (tmp_path / "x.jsonl").write_text(json.dumps({"user_id": 1.5, "item_id": "a", "timestamp": 1}))
    with pytest.raises(DataError, match=r"x\.jsonl:1: user_id is 1\.5; expected an id"):
        prepare_table(TableSettings(tmp_path / "x.jsonl", settings.items, settings.out))
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"]}).write_parquet(tmp_path / "c.parquet")
    with pytest.raises(DataError, match=r"c\.parquet: no column 'when' \(--time-column\)"):
        prepare_table(
            TableSettings(tmp_path / "c.parquet", settings.items, settings.out, time_column="when")
        )
    (tmp_path / "x.xlsx").write_text("x")
    with pytest.raises(ConfigError, match=r"x\.xlsx: unknown ending '\.xlsx'.*save the sheet as"):
        prepare_table(TableSettings(tmp_path / "x.xlsx", settings.items, settings.out))
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        prepare_table(TableSettings(tmp_path / "none.csv", settings.items, settings.out))
    with pytest.raises(ConfigError, match="--min-interactions 1"):
        prepare_table(config(tmp_path, min_interactions=1))
    with pytest.raises(ConfigError, match="--k-core -1"):
        prepare_table(config(tmp_path, k_core=-1))


def table(folder: Path, name: str, content: str | bytes, **flags: Any) -> TableSettings:
    """Settings with the items in a file of another name."""
    settings = config(folder, **flags)
    raw = content.encode() if isinstance(content, str) else content
    (folder / name).write_bytes(raw)
    return dataclasses.replace(settings, items=folder / name)


def lines(*records: dict[str, Any]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def apple(**fields: Any) -> dict[str, Any]:
    return {"item_id": "a", "title": "Apple", "text": "red", "kind": "fruit"} | fields


OTHERS = ({**apple(), "item_id": "b", "title": "nan"}, {**apple(), "item_id": "c", "title": 1917})
COLUMNS = {"description_column": "text", "category_column": "kind"}


@pytest.mark.parametrize("missing", [None, float("nan"), "", " "])
def test_missing_values_are_missing_and_their_names_are_words(tmp_path, missing) -> None:
    records = lines(apple(text=missing, kind=missing), *OTHERS)
    catalog = Catalog.load(prepare_table(table(tmp_path, "i.jsonl", records, **COLUMNS)))
    assert catalog.titles == ("Apple", "nan", "1917")
    assert [item.description for item in catalog.items] == ["", "red", "red"]
    assert [item.categories for item in catalog.items] == [(), ("fruit",), ("fruit",)]
    with pytest.raises(DataError, match=r"i\.jsonl:1: item 'a' has an empty title"):
        prepare_table(table(tmp_path, "i.jsonl", lines(apple(title=missing)), **COLUMNS))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"title": True}, "title is True; expected text"),
        ({"title": {"en": "Apple"}}, "title is an object; expected text"),
        ({"title": ["Apple"]}, "title is a list; expected text"),
        ({"title": 2.5}, "title is 2.5; expected text"),
        ({"title": "\ud83d"}, "title holds half a surrogate pair"),
        ({"title": "\u200b"}, "item 'a' has an empty title"),
        ({"text": False}, "text is False; expected text"),
        ({"text": ["x", {}]}, "an entry of text is an object; expected text"),
        ({"kind": {}}, "kind is an object; expected text"),
        ({"kind": ["x", True]}, "an entry of kind is True; expected text"),
        ({"item_id": True}, "item_id is True; expected an id"),
        ({"item_id": 1.0}, "item_id is 1.0; expected an id"),
        ({"item_id": "a\r"}, "item_id is 'a\\r'; expected an id without line breaks"),
        ({"item_id": None}, "item_id is None; expected an id"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path, fields, message) -> None:
    settings = table(tmp_path, "i.jsonl", lines(*OTHERS, apple(**fields)), **COLUMNS)
    with pytest.raises(DataError) as caught:
        prepare_table(settings)
    assert str(caught.value).startswith(f"{settings.items}:3: {message}")
    assert not settings.out.exists()


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([b"Apple", b"Beet", b"Cherry"], r"b'Apple' \(bytes\)"),
        ([True, False, True], "True"),
        ([{"en": "Apple"}] * 3, "an object"),
        ([["Apple"]] * 3, "a list"),
        (
            pl.Series([1, 2, 3]).cast(pl.Datetime("ns")),
            r"datetime\.datetime\(1970, 1, 1, 0, 0\) \(datetime\)",
        ),
        ([datetime.date(2020, 1, 1)] * 3, r"datetime\.date\(2020, 1, 1\) \(date\)"),
    ],
)
def test_columns_of_parquet_that_hold_no_text_are_refused(tmp_path, values, found) -> None:
    settings = table(tmp_path, "i.parquet", b"")
    pl.DataFrame({"item_id": ["a", "b", "c"], "title": values}).write_parquet(settings.items)
    with pytest.raises(DataError, match=rf"i\.parquet:1: title is {found}; expected text"):
        prepare_table(settings)


def test_order_beyond_the_numbers_of_floats(tmp_path) -> None:
    first = 1_700_000_000_000_000_001
    clicks = pl.DataFrame(
        {"user_id": ["u"] * 5, "item_id": list("bacaa"), "timestamp": [0, 1, 2, 3, 3]}
    ).with_columns(pl.col("timestamp") + first)
    settings = table(tmp_path, "items.csv", ITEMS)
    for kind in ("whole", "moment"):
        if kind == "moment":
            clicks = clicks.with_columns(pl.col("timestamp").cast(pl.Datetime("ns", "Asia/Tokyo")))
        shuffled = clicks[[3, 1, 0, 4, 2]]
        shuffled.write_parquet(tmp_path / "c.parquet")
        shuffled.write_csv(tmp_path / "c.csv")
        shuffled.write_ndjson(tmp_path / "c.jsonl")
        # The last two rows are one.
        endings = ("parquet", "csv", "jsonl") if kind == "whole" else ("parquet",)
        for ending in endings:
            path = tmp_path / f"c.{ending}"
            found = load(prepare_table(dataclasses.replace(settings, interactions=path)))
            assert found == {"u": ["b", "a", "c", "a"]}


def test_times_of_two_kinds_are_refused(tmp_path) -> None:
    clicks = "user_id,item_id,timestamp\nu,a,1600000000\nu,b,1600000001000\nu,c,1600000002\n"
    with pytest.raises(DataError, match=r"clicks\.csv:4: timestamp is .* on line 3; expected"):
        prepare_table(config(tmp_path, clicks))
    # Without the column, nothing is read from it.
    assert load(prepare_table(config(tmp_path, clicks, time_column=""))) == {"u": ["a", "b", "c"]}


def test_a_column_that_is_there_twice_is_named(tmp_path) -> None:
    clicks = "user_id,item_id,timestamp,timestamp\nu,a,1,3\nu,b,2,2\nu,c,3,1\n"
    with pytest.raises(DataError, match=r"clicks\.csv:1: column 'timestamp' occurs twice"):
        prepare_table(config(tmp_path, clicks))
    with pytest.raises(DataError, match=r"items\.csv:1: column 'note' occurs twice"):
        prepare_table(config(tmp_path, items="item_id,note,title,note\na,x,Apple,y\n"))
    twice = '{"item_id": "a", "title": "Apple", "title": "Pear"}\n'
    with pytest.raises(DataError, match=r"i\.jsonl:1: field 'title' occurs twice"):
        prepare_table(table(tmp_path, "i.jsonl", twice))
    nameless = "item_id,,title,\na,,Apple,\nb,,Beet,\nc,,Cherry,\n"
    prepare_table(config(tmp_path, items=nameless))


def test_a_mark_at_the_beginning_is_passed_over(tmp_path) -> None:
    expected = load(prepare_table(config(tmp_path)))
    mark = "\ufeff".encode()
    for name in ("clicks", "items"):
        frame = pl.read_csv(tmp_path / f"{name}.csv")
        for ending, content in (("csv", frame.write_csv()), ("jsonl", frame.write_ndjson())):
            marked = mark + content.encode()
            (tmp_path / f"marked-{name}.{ending}").write_bytes(marked)
            (tmp_path / f"marked-{name}.{ending}.gz").write_bytes(gzip.compress(marked))
    for ending in ("csv", "jsonl", "csv.gz", "jsonl.gz"):
        paths = (tmp_path / f"marked-{name}.{ending}" for name in ("clicks", "items"))
        assert load(prepare_table(TableSettings(*paths, tmp_path / "out"))) == expected


QUOTES = 'item_id\ttitle\na\t"Weird Al" Yankovic\nb\t12" vinyl\nc\t"Cherry"\n'


def test_quotes_may_be_letters(tmp_path) -> None:
    settings = table(tmp_path, "i.tsv", QUOTES)
    with pytest.raises(DataError, match=r"i\.tsv:2: not valid CSV: .*pass --quote none$"):
        prepare_table(settings)
    out = prepare_table(dataclasses.replace(settings, quote="none"))
    assert Catalog.load(out).titles == ('"Weird Al" Yankovic', '12" vinyl', '"Cherry"')


def test_long_cells_are_read_and_the_limit_of_others_stays(tmp_path) -> None:
    limit = csv.field_size_limit()
    text = "x" * (limit + 10_000)
    for quote in ('"', ""):
        items = f"item_id,title,text\na,Apple,{quote}{text}{quote}\nb,Beet,\nc,Cherry,\n"
        out = prepare_table(config(tmp_path, items=items, description_column="text"))
        assert Catalog.load(out).item(0).description == text
    assert csv.field_size_limit() == limit
    with pytest.raises(DataError):
        prepare_table(config(tmp_path, items="item_id,title\na\n"))
    assert csv.field_size_limit() == limit


def test_columns_that_are_not_used_are_named_in_one_line(tmp_path, capsys) -> None:
    prepare_table(config(tmp_path))
    assert capsys.readouterr().err == ""
    clicks = "user_id,item_id,timestamp,shop\n" + "".join(
        f"u,{i},{n},x\n" for n, i in enumerate("abc")
    )
    prepare_table(config(tmp_path, clicks))
    assert capsys.readouterr().err == "notice: columns not used: shop of clicks.csv\n"
    wide = "item_id,title," + ",".join(f"c{n}" for n in range(24)) + "\n"
    wide += "".join(f"{item},T{',' * 24}\n" for item in "abc")
    prepare_table(config(tmp_path, items=wide))
    named = ", ".join(f"c{n}" for n in range(20))
    assert f"notice: columns not used: {named}, 4 more of items.csv\n" in capsys.readouterr().err


def test_rows_that_say_nothing_are_left_out_and_counted(tmp_path) -> None:
    clicks = CLICKS + "u,zz,4\nu,yy,5\nu,zz,6\n,a,4\nu,,4\n , ,4\n"
    out = prepare_table(config(tmp_path, clicks))
    assert load(out) == {"u": ["a", "b", "c"]}
    assert read_json(out / MANIFEST)["results"]["skipped"] == {
        "rows of 2 items that are not in the catalog (zz, yy)": 3,
        "rows without user": 1,
        "rows without item": 1,
        "rows without user and item": 1,
        "users with fewer than 3 interactions": 1,
    }
    with pytest.raises(DataError, match=r"clicks\.csv:7: item 'zz' is not in .*items\.csv"):
        prepare_table(config(tmp_path, clicks, unknown_items="error"))


def test_a_german_export_is_read_as_it_comes(tmp_path, capsys) -> None:
    orders = "Beleg;KundenNr;ArtikelNr;Bestellt am\n" + "".join(
        f"{number};K{number % 5};{number * 7 % 20:04d};{28 - number % 27:02d}.03.2023 10:{number}\n"
        for number in range(10, 60)
    )
    products = "Nr;Größe;Bezeichnung;Warengruppe\n" + "".join(
        f" {number} ;XL;Käse {number};{'Bad|Küche' if number % 2 else 'Küche'}\n"
        for number in range(20)
    )
    paths = tmp_path / "orders.csv", tmp_path / "products.csv"
    for path, text in zip(paths, (orders, products), strict=True):
        path.write_bytes(text.encode("cp1252"))
    out = prepare_table(TableSettings(*paths, tmp_path / "out"))
    catalog = Catalog.load(out)
    assert catalog.item(3).item_id == "3"
    assert (catalog.item(3).title, catalog.item(3).categories) == ("Käse 3", ("Bad", "Küche"))
    rows = [line.split(";") for line in orders.splitlines()[1:]]
    own = sorted((row for row in rows if row[1] == "K2"), key=lambda row: row[3])
    assert load(out)["K2"] == [str(int(row[2])) for row in own]
    said = " ".join(capsys.readouterr().err.split())
    assert "Times are read as %d.%m.%Y %H:%M." in said
    assert "zeros in front" in said
    manifest = read_json(out / MANIFEST)["config"]
    assert (manifest["user_column"], manifest["id_form"]) == ("KundenNr", "number")


def test_a_column_of_boosts(tmp_path) -> None:
    items = "item_id,title,weight\na,Apple,2.5\nb,Beet,\nc,Cherry,1\n"
    out = prepare_table(config(tmp_path, items=items, boost_column="weight"))
    assert [item.boost for item in Catalog.load(out).items] == [2.5, 1.0, 1.0]
    for cell in ("0", "much", "-1"):
        wrong = items.replace("2.5", cell)
        with pytest.raises(
            DataError, match=rf"items\.csv:2: weight is '{cell}'; expected a number"
        ):
            prepare_table(config(tmp_path, items=wrong, boost_column="weight"))


def test_other_columns_of_the_items_become_attributes_of_their_kind(tmp_path, capsys) -> None:
    items = (
        "item_id,title,price,weight,in_stock,brand,since,sku,note\n"
        "a,Apple,€2.50,1.5,yes,Orchard,2024-05-01,007,\n"
        "b,Beet,€20,,no,,2023-01-01,12,\n"
        "c,Cherry,,3,yes,Field,,13,\n"
    )
    out = prepare_table(config(tmp_path, items=items))
    catalog = Catalog.load(out)
    assert [dict(item.attributes) for item in catalog.items] == [
        {
            "price": 2.5,
            "weight": 1.5,
            "in_stock": True,
            "brand": "Orchard",
            "since": "2024-05-01",
            "sku": "007",
        },
        {"price": 20.0, "in_stock": False, "since": "2023-01-01", "sku": "12"},
        {"weight": 3.0, "in_stock": True, "brand": "Field", "sku": "13"},
    ]
    assert catalog.formats == (("price", "EUR"),)
    cheap = Where.from_flags(["price<=20", "in_stock"])
    assert cheap.rows(catalog).tolist() == [True, False, False]
    said = capsys.readouterr()
    assert said.err.endswith("notice: columns not used: note of items.csv\n")
    assert (
        "columns used: user_id, item_id, timestamp of clicks.csv; item_id, title of items.csv; "
        "kept as attributes: price (prices in EUR), weight (numbers), in_stock (yes or no), "
        "brand (texts), since (dates), sku (texts)\n"
    ) in said.out
    # A narrower catalog keeps what its items know, and no note stays of what is not there.
    plain = prepare_table(config(tmp_path))
    assert not (plain / "catalog.json").exists()


def test_all_formats_keep_the_same_attributes(tmp_path) -> None:
    rows = [
        {"item_id": "a", "title": "Apple", "price": 2.5, "sizes": ["x", "y"], "day": "2024-05-01"},
        {"item_id": "b", "title": "Beet", "price": None, "sizes": [], "day": None, "more": 1},
        {"item_id": "c", "title": "Cherry", "price": 3, "sizes": None},
    ]
    expected = [
        {"price": 2.5, "sizes": ("x", "y"), "day": "2024-05-01"},
        {"more": 1},
        {"price": 3.0},
    ]
    config(tmp_path)
    (tmp_path / "i.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    frame = pl.DataFrame(rows).with_columns(pl.col("day").str.to_date())
    frame.write_parquet(tmp_path / "i.parquet")
    for name in ("i.jsonl", "i.parquet"):
        settings = TableSettings(tmp_path / "clicks.csv", tmp_path / name, tmp_path / "out")
        items = Catalog.load(prepare_table(settings)).items
        assert [dict(item.attributes) for item in items] == expected


def test_currencies_are_those_of_the_flag(tmp_path) -> None:
    items = "item_id,title,list_price,deposit,brand\na,Apple,2.5,1,x\nb,Beet,3,1,y\nc,C,4,1,z\n"
    out = prepare_table(config(tmp_path, items=items, currency=("CHF", "deposit=EUR")))
    catalog = Catalog.load(out)
    assert dict(catalog.formats) == {"list_price": "CHF", "deposit": "EUR"}
    assert [one["shown"] for one in catalog.shown(catalog.item(0))] == ["2.50 CHF", "€1.00", "x"]
    for wrong, message in (
        ("euro", "--currency euro: expected three letters"),
        ("color=EUR", "no such column of prices; columns of numbers are list_price, deposit"),
    ):
        with pytest.raises(ConfigError, match=message):
            prepare_table(config(tmp_path, items=items, currency=(wrong,)))
    bare = "item_id,title,brand\na,A,x\nb,B,x\nc,C,x\n"
    with pytest.raises(ConfigError, match="columns of numbers are none"):
        prepare_table(config(tmp_path, items=bare, currency=("EUR",)))


def test_boosts_may_end(tmp_path) -> None:
    items = "item_id,title,weight,end\na,Apple,2.5,2026-02-01\nb,Beet,,\nc,Cherry,1,\n"
    columns = {"boost_column": "weight", "boost_until_column": "end"}
    out = prepare_table(config(tmp_path, items=items, **columns))
    assert [item.boost_until for item in Catalog.load(out).items] == ["2026-02-01", None, None]
    with pytest.raises(DataError, match=r"items\.csv:2: end is 'soon'; expected a day such as"):
        prepare_table(config(tmp_path, items=items.replace("2026-02-01", "soon"), **columns))


def test_tables_without_a_common_item_are_refused(tmp_path) -> None:
    foreign = "user_id,item_id,timestamp\n" + "".join(f"u,{n},{n}\n" for n in range(9))
    with pytest.raises(DataError, match=r"none of its items is in .*items\.csv; found '0', '1'"):
        prepare_table(config(tmp_path, foreign, item_column="item_id", item_id_column="item_id"))
