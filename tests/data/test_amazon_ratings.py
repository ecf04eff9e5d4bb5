from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.amazon import prepare_amazon
from incatalog.data.amazon_ratings import find_ratings
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.data.settings import AmazonSettings
from incatalog.errors import DataError

HEADER = "user_id,parent_asin,rating,timestamp"
ASINS = [f"B00000000{digit}" for digit in range(6)]
A, B, C, D, E, F = ASINS
META_2023 = [
    {"parent_asin": asin, "title": f"T{asin}", "categories": [], "main_category": "Games"}
    for asin in ASINS
]
META_2018 = [{"asin": asin, "title": f"T{asin}", "category": ["Games"]} for asin in ASINS]
RATINGS = [
    ("AGKASBHYZPGTEPO6LWZPVJWB2BVA", B, 5.0, 1452647102000),
    ("AGCI7FAH4GL5FI65HYLKWTMFZ2CQ", A, 4.0, 1384912377000),
    ("AGKASBHYZPGTEPO6LWZPVJWB2BVA", A, 3.0, 1452647101000),
    ("AGKASBHYZPGTEPO6LWZPVJWB2BVA", "B0GONE0000", 3.0, 1452647103000),
    ("AGKASBHYZPGTEPO6LWZPVJWB2BVA", D, 1.0, 1452647103000),
]


def settings(folder: Path, lines: list[str], metas: list[dict[str, object]]) -> AmazonSettings:
    reviews, meta = folder / "X.csv.gz", folder / "meta_X.jsonl"
    reviews.write_bytes(gzip.compress("".join(f"{line}\n" for line in lines).encode()))
    meta.write_text("".join(json.dumps(record) + "\n" for record in metas))
    return AmazonSettings(reviews, meta, folder / "out", length=3)


def prepared(out: Path) -> tuple[dict[str, list[str]], dict[str, int]]:
    """Histories, and what was left out."""
    catalog = Catalog.load(out)
    histories = Histories.load(out, catalog)
    return {
        user: [catalog.item(int(row)).item_id for row in histories.history(index)]
        for index, user in enumerate(histories.user_ids)
    }, read_json(out / MANIFEST)["results"]["skipped"]


def rows(*order: int) -> list[str]:
    return [",".join(str(row[column]) for column in order) for row in RATINGS]


@pytest.mark.parametrize(
    ("lines", "metas"),
    [
        ([HEADER, *rows(0, 1, 2, 3)], META_2023),
        (["rating,parent_asin,timestamp,user_id", *rows(2, 1, 3, 0)], META_2023),
        # Without a header: the user stands first in 2014, the item in 2018.
        (rows(0, 1, 2, 3), META_2018),
        (rows(1, 0, 2, 3), META_2018),
    ],
)
def test_ratings_stand_in_for_reviews(tmp_path, lines, metas) -> None:
    histories, skipped = prepared(prepare_amazon(settings(tmp_path, lines, metas)))
    assert histories == {"AGKASBHYZPGTEPO6LWZPVJWB2BVA": [A, B, D]}
    assert skipped == {
        "reviews of items that were left out": 1,
        "users with fewer than 3 interactions": 1,
    }


def test_histories_are_taken_from_the_last_row(tmp_path) -> None:
    header = f"{HEADER},history"
    test_split = [
        f"U1,{D},5.0,1700000000000,{A} {B} B0GONE0000 {C}",
        f"U2,{A},5.0,1700000000001,{F}",
        f"U3,{E},5.0,1700000000002,{D} {D} {A}",
    ]
    # The last row by time counts; equal times: the longer history.
    train_split = [
        f"U1,{A},5.0,1600000000000,",
        f"U1,{C},5.0,1600000000002,{A} {B}",
        f"U1,{B},5.0,1600000000001,{A}",
        f"U1,{F},5.0,1500000000001,",
        f"U3,{A},5.0,1600000000002,{D} {E}",
        f"U3,{E},5.0,1600000000002,{D}",
    ]
    histories, skipped = prepared(
        prepare_amazon(settings(tmp_path, [header, *test_split], META_2023))
    )
    assert histories == {"U1": [A, B, C, D][:3], "U3": [D, A, E]}
    assert skipped == {
        "reviews of items that were left out": 1,
        "repeated reviews of an item by a user": 1,
        "users with fewer than 3 interactions": 1,
    }
    histories, skipped = prepared(
        prepare_amazon(settings(tmp_path, [header, *train_split], META_2023))
    )
    assert histories == {"U1": [A, B, C], "U3": [D, E, A]}
    assert skipped == {"ratings that the last history of their user lacks": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([HEADER], r"X\.csv\.gz: the file is empty; expected ratings"),
        (["user_id,parent_asin,rating"], r":1: no column 'timestamp'; found user_id, parent_asin"),
        ([f"{HEADER},rating"], r":1: column 'rating' occurs twice"),
        ([HEADER, f"U,{A},5.0"], r":2: 3 fields; expected 4 as in the header"),
        ([HEADER, f"U,{A},five,1"], r":2: rating is 'five'; expected a number"),
        ([HEADER, f"U,{A},5.0,soon"], r":2: timestamp is 'soon'; expected"),
        ([HEADER, f"U,{A},5.0,1700000000", f"U,{B},5.0,1700000000000"],
         r":3: timestamp is '1700000000000', but '1700000000' on line 2"),
        ([f"{HEADER},history", f"U,{A},5.0,x,"], r":2: timestamp is 'x'; expected whole millis"),
        ([f"{HEADER},history", f"U,{A},5.0,1700000000,", f"U,{B},5.0,1700000000000,"],
         r":3: timestamp is '1700000000000', but '1700000000' on line 2"),
        (["U,I,5.0,1"], r":1: no Amazon reviews: 'U,I,5.0,1'; expected JSON lines, or CSV with"),
        (["[1]"], r":1: no Amazon reviews: '\[1\]'"),
        (['"U'], r":1: not valid CSV"),
    ],
)  # fmt: skip
def test_bad_ratings_are_one_line(tmp_path, lines, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_amazon(settings(tmp_path, lines, META_2023))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_records_are_no_ratings(tmp_path) -> None:
    path = tmp_path / "x"
    for text in ('\n {"a": 1}\n', "{'a': 1}\n", ""):
        path.write_text(text)
        assert find_ratings(path) is None
