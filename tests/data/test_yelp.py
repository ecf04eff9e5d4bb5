from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.data.settings import YelpSettings
from incatalog.data.yelp import prepare_yelp
from incatalog.errors import DataError

BUSINESS = (
    '{"business_id":"%s","name":"%s","address":"%s","city":"St. Louis","state":"MO",'
    '"postal_code":"63123","latitude":38.5,"longitude":-90.3,"stars":3.0,"review_count":15,'
    '"is_open":1,"attributes":{"BusinessAcceptsCreditCards":"True"},"categories":%s,"hours":null}'
)
BUSINESSES = [
    BUSINESS % ("mpf3", "The UPS Store", "87 Grasso Plaza", '"Shipping Centers, Mailbox Centers"'),
    BUSINESS % ("tUFr", "Target", "", "null"),
    BUSINESS % ("MTSW", "The UPS  Store", "", '"Food"'),
    BUSINESS % ("none", "", "x", '"Food"'),
    BUSINESS % ("mWMc", "St Honor&eacute; Pastries &copy", "935 Race St", '"Bakeries, Food, Food"'),
]


def review(user: str, business: str, date: str) -> str:
    return json.dumps(
        {"review_id": "KU_O", "user_id": user, "business_id": business, "stars": 3.0, "useful": 0,
         "funny": 0, "cool": 0, "text": "If you decide to eat here", "date": date}
    )  # fmt: skip


REVIEWS = [
    review("mh_-", "mWMc", "2018-07-07 22:09:11"),
    review("mh_-", "mpf3", "2018-07-07 22:09:10"),
    review("mh_-", "MTSW", "2012-01-03 15:28:18"),
    review("mh_-", "none", "2012-01-03 15:28:18"),
    review("OyoG", "tUFr", "2012-01-03 15:28:18"),
]


def settings(folder: Path, reviews: list[str], businesses: list[str], **f: Any) -> YelpSettings:
    names = "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"
    for name, lines in zip(names, (reviews, businesses), strict=True):
        (folder / name).write_text("\n".join(lines), encoding="utf-8")
    paths = (folder / name for name in names)
    return YelpSettings(*paths, **{"out": folder / "out", "length": 3} | f)


def test_reviews_and_businesses(tmp_path) -> None:
    out = prepare_yelp(settings(tmp_path, REVIEWS, BUSINESSES))
    catalog = Catalog.load(out)
    # Names of several businesses have their place behind them.
    assert catalog.titles == (
        "The UPS Store (87 Grasso Plaza, St. Louis)",
        "The UPS Store (St. Louis)",
        "St Honoré Pastries &copy",
    )
    assert [set(item.categories) for item in catalog.items] == [
        {"Shipping Centers", "Mailbox Centers"},
        {"Food"},
        {"Bakeries", "Food"},
    ]
    histories = Histories.load(out, catalog)
    assert (histories.user_ids, histories.rows.tolist()) == (("mh_-",), [1, 0, 2])
    assert read_json(out / MANIFEST)["results"]["skipped"] == {
        "businesses without a name": 1,
        "reviews of items that were left out": 1,
        "users with fewer than 3 interactions": 1,
    }


@pytest.mark.parametrize(
    ("reviews", "businesses", "message"),
    [
        (REVIEWS, [BUSINESSES[0].replace("business_id", "id")],
         r"business\.json: no field 'business_id' in the first lines; found id, name"),
        (REVIEWS, [*BUSINESSES, BUSINESSES[0].replace("business_id", "id")],
         r"business\.json:6: no field 'business_id'; expected text"),
        ([*REVIEWS, '{"user_id": "u", "business_id": "b"}'], BUSINESSES,
         r"review\.json:6: no field 'date'; found user_id, business_id"),
        (BUSINESSES, REVIEWS, r"review\.json: no field 'user_id' in .*; is it the file for --meta"),
        ([review("u", "mpf3", "07/07/2018")], BUSINESSES, r":1: date is '07/07/2018'; expected"),
        ([review("", "mpf3", "2018-07-07")], BUSINESSES, r":1: '' in field 'user_id'; expected"),
        ([*REVIEWS, "{"], BUSINESSES, r"review\.json:6: not valid JSON"),
        (REVIEWS, [BUSINESS % ("x", "X", "", '["Food"]')],
         r"business\.json:1: field 'categories' is a list; expected text"),
        (REVIEWS, [], r"business\.json: the file is empty"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line_and_leave_nothing(tmp_path, reviews, businesses, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_yelp(settings(tmp_path, reviews, businesses))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
