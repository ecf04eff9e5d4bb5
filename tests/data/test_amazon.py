from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.amazon import prepare_amazon
from incatalog.data.catalog import Catalog
from incatalog.data.check import check
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.settings import AmazonSettings, CheckSettings
from incatalog.errors import ConfigError, DataError


def review(user: str, item: str, time: int) -> dict[str, Any]:
    return {"reviewerID": user, "asin": item, "unixReviewTime": time, "overall": 5.0}


def meta(item: str, **fields: Any) -> dict[str, Any]:
    return {"asin": item, "title": f"Title {item}", "category": ["Shop", "Part"]} | fields


METAS = [meta(item) for item in "abcdef"]
REVIEWS = [review("u", item, time) for time, item in enumerate("abcd")]


def config(folder: Path, reviews: Any, metas: Any, **flags: Any) -> AmazonSettings:
    paths = []
    for name, records in (("Shop_5.json.gz", reviews), ("meta_Shop.json.gz", metas)):
        content = records
        if isinstance(records, list):
            content = gzip.compress("".join(json.dumps(r) + "\n" for r in records).encode())
        (folder / name).write_bytes(content)
        paths.append(folder / name)
    return AmazonSettings(*paths, folder / "out", **{"length": 3} | flags)


def load(out: Path) -> tuple[Catalog, dict[str, list[str]]]:
    catalog = Catalog.load(out)
    histories = Histories.load(out, catalog)
    return catalog, {
        user: [catalog.item(int(row)).item_id for row in histories.history(index)]
        for index, user in enumerate(histories.user_ids)
    }


def skipped(out: Path) -> dict[str, int]:
    return dict(read_json(out / MANIFEST)["results"]["skipped"])


def test_ordered_by_time_then_file_and_cut_to_length(tmp_path) -> None:
    reviews = [
        review("u", "d", 40),
        review("u", "c", 20),
        review("u", "b", 20),
        review("u", "a", 10),
        review("v", "a", 1),
        review("v", "b", 2),
    ]
    catalog, histories = load(prepare_amazon(config(tmp_path, reviews, METAS)))
    assert histories == {"u": ["a", "c", "b"]}
    # Only items of the histories are in the catalog, in the order of the metadata.
    assert [item.item_id for item in catalog.items] == ["a", "b", "c"]
    assert skipped(tmp_path / "out") == {"users with fewer than 3 interactions": 1}


def test_the_earliest_review_of_an_item_counts(tmp_path) -> None:
    reviews = [
        review("u", "a", 30),
        review("u", "b", 20),
        review("u", "a", 10),
        review("u", "c", 25),
    ]
    out = prepare_amazon(config(tmp_path, reviews, METAS))
    assert load(out)[1] == {"u": ["a", "b", "c"]}
    assert skipped(out) == {"repeated reviews of an item by a user": 1}


def test_unusable_items_go_with_their_reviews_and_are_counted(tmp_path) -> None:
    metas = [
        *METAS,
        meta("no title", title=""),
        meta("none", title=None),
        meta("markup", title="<span></span>"),
        meta("code", title="var aPageStart = (new Date()).getTime();"),
        meta("price", title="$9.99"),
        meta("no category", category=[]),
        meta("junk category", category=["</span></span>"]),
        {"asin": "bare"},
        meta("a", title="Another a"),
    ]
    reviews = [*REVIEWS, *(review("u", m["asin"], 0) for m in metas[6:14]), review("u", "gone", 1)]
    out = prepare_amazon(config(tmp_path, reviews, metas))
    catalog, histories = load(out)
    assert histories == {"u": ["a", "b", "c"]}
    assert catalog.titles == ("Title a", "Title b", "Title c")
    assert skipped(out) == {
        "items without a title": 4,
        "items whose title is page code or a price": 2,
        "items without a category": 2,
        "repeated items in the metadata": 1,
        "reviews of items that were left out": 9,
    }


def test_titles_descriptions_and_categories_are_cleaned(tmp_path) -> None:
    metas = [
        meta(
            "a",
            title="Tom &amp; <b>Jerry</b>\n\tDeluxe",
            description=["<p>One.</p>", "", "Two<br/>lines.", "var x = 1;"],
            category=["Toys &amp; Games", "Dolls", "Cloth", "Cloth", "Made by hand."],
        ),
        meta("b", description="Text &lt;3", category=["Toys &amp; Games"]),
        meta("c", category=["Toys", "Dolls", "x" * 51, "Cloth"]),
    ]
    items = load(prepare_amazon(config(tmp_path, REVIEWS[:3], metas)))[0].items
    assert items[0].title == "Tom & Jerry Deluxe"
    assert items[0].description == "One. Two lines."
    assert set(items[0].categories) == {"Dolls", "Dolls, Cloth", "Dolls, Cloth, Cloth"}
    assert (items[1].description, items[1].categories) == ("Text <3", ("Toys & Games",))
    assert items[2].categories == ("Dolls",)


def test_users_are_sampled_once_each_and_by_seed(tmp_path) -> None:
    reviews = [review(f"u{u}", item, 1) for u in range(30) for item in "abc"]
    samples = []
    for seed in (0, 0, 1):
        out = prepare_amazon(config(tmp_path, reviews, METAS, users=10, seed=seed))
        users = list(load(out)[1])
        assert len(set(users)) == 10
        assert users == sorted(users, key=lambda user: int(user[1:]))
        assert skipped(out) == {"users not sampled": 20}
        samples.append(users)
    assert samples[0] == samples[1] != samples[2]
    assert len(load(prepare_amazon(config(tmp_path, reviews, METAS, users=0)))[1]) == 30


def test_k_core_keeps_whole_histories_of_three_at_least(tmp_path) -> None:
    reviews = [review(user, item, 1) for user in "uv" for item in "abcd"]
    reviews += [review("u", "e", 2), review("w", "a", 1), review("w", "b", 1)]
    out = prepare_amazon(config(tmp_path, reviews, METAS, k_core=2, users=1, length=17))
    assert load(out)[1] == {"u": list("abcd"), "v": list("abcd")}
    assert skipped(out) == {"users outside the 2-core": 1}


def broken(line: str) -> bytes:
    return (json.dumps(review("u", "a", 1)) + "\n" + line + "\n").encode()


@pytest.mark.parametrize(
    ("reviews", "metas", "message"),
    [
        (b"", METAS, r"Shop_5\.json\.gz: the file is empty"),
        (REVIEWS, b"", r"meta_Shop\.json\.gz: the file is empty"),
        (
            gzip.compress(broken("{}"), mtime=0)[:-12],
            METAS,
            r"Shop_5\.json\.gz:\d: the gzip file ends early",
        ),
        (broken('{"asin": '), METAS, r"Shop_5\.json\.gz:2: not valid JSON"),
        (broken('{"asin": "a"}'), METAS, r"Shop_5\.json\.gz:2: no field 'reviewerID'"),
        (broken('{"reviewerID": "u"}'), METAS, r":2: no field 'asin'; expected text"),
        (broken('{"reviewerID": "", "asin": "a"}'), METAS, r":2: '' in field 'reviewerID'"),
        (broken('{"reviewerID": "u", "asin": "b"}'), METAS, r":2: no field 'unixReviewTime'"),
        (
            broken('{"reviewerID": "u", "asin": "b", "unixReviewTime": "now"}'),
            METAS,
            r":2: 'now' in field 'unixReviewTime'; expected whole seconds",
        ),
        (REVIEWS, [*METAS, {"title": "x"}], r"meta_Shop\.json\.gz:7: no field 'asin'"),
        (REVIEWS, [meta("a", title=7)], r"meta_Shop\.json\.gz:1: field 'title' is 7"),
        (REVIEWS, [meta("a", category="x")], r"meta_Shop\.json\.gz:1: field 'category' is 'x'"),
        (REVIEWS, [*METAS[1:], meta("a", description=3)], r":6: field 'description' is 3"),
        (
            REVIEWS,
            [meta("a", title="")],
            r"meta_.*: nothing to recommend; found only items without a title \(1\)",
        ),
        (REVIEWS[:2], METAS, r"no user is left after filtering; try a smaller --length than 3"),
    ],
)
def test_bad_files_are_one_line_and_leave_nothing(tmp_path, reviews, metas, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_amazon(config(tmp_path, reviews, metas))
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "Shop_5.json.gz",
        "meta_Shop.json.gz",
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"length": 2}, "--length 2: expected at least 3"),
        ({"users": -1}, "--users -1"),
        ({"k_core": -5}, "--k-core -5"),
    ],
)
def test_numbers_out_of_range_name_the_flag(tmp_path, flags, message) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_amazon(config(tmp_path, REVIEWS, METAS, **flags))


# Lines of the files as published; what is not read is cut short.
REVIEW_2023 = (
    '{"rating": 5.0, "title": "Such a lovely scent", "text": "This spray is really nice.", '
    '"images": [], "asin": "B00YQ6X8EO", "parent_asin": "%s", "user_id": "%s", '
    '"timestamp": %d, "helpful_vote": 0, "verified_purchase": true}'
)
META_2023 = [
    '{"main_category": "All Beauty", "title": "Howard LC0008 Leather Conditioner, 8-Ounce (4-Pack)"'
    ', "average_rating": 4.8, "rating_number": 10, "features": ["Conditions"], "description": '
    '["Made by", "<b>Howard</b>"], "price": 25.05, "images": [], "videos": [], "store": "Howard", '
    '"categories": [], "details": {}, "parent_asin": "B01CUPMQZE", "bought_together": null}',
    '{"main_category": null, "title": "Pad", "description": [], "price": null, "store": null, '
    '"categories": ["Video Games", "PC", "Accessories"], "parent_asin": "B07G9GWFSM"}',
    '{"main_category": "Computers", "title": "Mouse", "description": [], "price": "from 12.99", '
    '"store": "M", "categories": ["Video Games"], "parent_asin": "B0000000M1", "subtitle": "x"}',
    '{"main_category": null, "title": "Thing", "description": [], "price": "None", '
    '"categories": [], "parent_asin": "B0000000T1"}',
]
REVIEW_2014 = (
    '{"reviewerID": "%s", "asin": "%s", "reviewerName": "J", "helpful": [2, 3], '
    '"reviewText": "I", "overall": 5.0, "summary": "H", "unixReviewTime": %d, '
    '"reviewTime": "09 13, 2009"}'
)
META_2014 = [
    "{'asin': '0000031852', 'title': \"Girl's Ballet Tutu\", 'price': 3.17, 'imUrl': 'http://x', "
    "'related': {'also_bought': ['B00JHONN1S']}, 'salesRank': {'Toys & Games': 211836}, 'brand': "
    "'Coxlures', 'categories': [['Sports & Outdoors', 'Other Sports', 'Dance'], ['Sports & "
    "Outdoors', 'Fan Shop']], 'description': 'For\\tdance'}",
    "{'asin': '0000031887', 'title': 'Ball', 'categories': [['Sports & Outdoors']]}",
    "{'asin': '0000031909', 'title': 'Bat', 'categories': [[]]}",
    "{'asin': '0000031917', 'title': 'Caf\\xe9 \\U0001f600', 'categories': [['S', 'Bats']]}",
]


def raw(folder: Path, reviews: list[str], metas: list[str], **flags: Any) -> AmazonSettings:
    """The settings for a plain file of reviews and a packed one of metadata."""
    (folder / "X.jsonl").write_text("\n".join(reviews) + "\n", encoding="utf-8")
    (folder / "meta_X.jsonl.gz").write_bytes(gzip.compress("\n".join(metas).encode()))
    paths = folder / "X.jsonl", folder / "meta_X.jsonl.gz"
    return AmazonSettings(*paths, folder / "out", **{"length": 3} | flags)


def reviews_2023(*rows: tuple[str, str, int]) -> list[str]:
    return [REVIEW_2023 % (item, user, time) for user, item, time in rows]


def test_files_of_2023(tmp_path, capsys) -> None:
    reviews = reviews_2023(
        ("AG", "B0000000M1", 1_588_687_728_923),
        ("AG", "B01CUPMQZE", 1_588_687_728_924),
        ("AG", "B0000000T1", 1_588_687_728_000),
        ("AG", "B07G9GWFSM", 1_588_687_728_922),
        ("AG", "B0000000M1", 1_600_000_000_000),
        ("AH", "B07G9GWFSM", 1_588_687_728_922),
    )
    catalog, histories = load(prepare_amazon(raw(tmp_path, reviews, META_2023)))
    assert histories == {"AG": ["B07G9GWFSM", "B0000000M1", "B01CUPMQZE"]}
    assert catalog.titles == ("Howard LC0008 Leather Conditioner, 8-Ounce (4-Pack)", "Pad", "Mouse")
    assert [item.description for item in catalog.items] == ["Made by Howard", "", ""]
    assert [item.categories for item in catalog.items] == [
        ("All Beauty",),
        ("PC", "PC, Accessories"),
        ("Video Games",),
    ]
    assert skipped(tmp_path / "out") == {
        "items without a category": 1,
        "reviews of items that were left out": 1,
        "repeated reviews of an item by a user": 1,
        "users with fewer than 3 interactions": 1,
    }
    assert "user_id" not in (notice := capsys.readouterr().err)
    assert "rating, title, text" not in notice
    assert "rating_number" in notice
    assert "price" not in notice
    known = [dict(item.attributes) for item in catalog.items]
    assert [one.get("brand") for one in known] == ["Howard", None, "M"]


def test_files_of_2014(tmp_path) -> None:
    times = {"0000031917": 1_252_800_000, "0000031852": 1_252_886_400, "0000031887": 1_252_972_800}
    reviews = [REVIEW_2014 % ("A2SUAM1J3GNN3B", item, time) for item, time in times.items()]
    reviews.append(REVIEW_2014 % ("A2SUAM1J3GNN3B", "0000031909", 1))
    catalog, histories = load(prepare_amazon(raw(tmp_path, reviews, META_2014)))
    tutu = next(item for item in catalog.items if "Tutu" in item.title)
    assert dict(tutu.attributes) == {"price": 3.17, "brand": "Coxlures"}
    assert catalog.shown(tutu)[0]["shown"] == "$3.17"
    assert histories == {"A2SUAM1J3GNN3B": list(times)}
    assert catalog.titles == ("Girl's Ballet Tutu", "Ball", "Café 😀")
    assert [set(item.categories) for item in catalog.items] == [
        {"Other Sports", "Other Sports, Dance", "Fan Shop"},
        {"Sports & Outdoors"},
        {"Bats"},
    ]
    assert catalog.items[0].description == "For dance"


def test_files_of_different_years_are_told_apart(tmp_path) -> None:
    new = reviews_2023(("AG", "B07G9GWFSM", 1_588_687_728_922))
    old = [REVIEW_2014 % ("A2SUAM1J3GNN3B", "0000031852", 1_252_800_000)]
    for reviews, metas, first, second in (
        (new, META_2014, "2023", "2014 or 2018"),
        (old, META_2023, "2014 or 2018", "2023"),
        (["user_id,parent_asin,rating,timestamp", "AG,B07G9GWFSM,5.0,1588687728922"],
         META_2014, "2023", "2014 or 2018"),
        (["A2SUAM1J3GNN3B,0000031852,5.0,1252800000"], META_2023, "2014 or 2018", "2023"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            prepare_amazon(raw(tmp_path, reviews, metas))
        assert str(caught.value) == (
            f"{tmp_path / 'X.jsonl'}: holds reviews of {first}, but "
            f"{tmp_path / 'meta_X.jsonl.gz'} metadata of {second}; expected Amazon files of one "
            f"collection: get the metadata of {first} or the reviews of {second}"
        )
    with pytest.raises(
        DataError,
        match=r"X\.jsonl: no field 'reviewerID' \(2014, 2018\) or 'user_id"
        r".*; found main_category, .*; expected .* --reviews; is it .* --meta\?",
    ):
        prepare_amazon(raw(tmp_path, META_2023, new))
    with pytest.raises(DataError, match=r"meta_X\.jsonl\.gz: no field 'asin' .* or 'parent_asin'"):
        prepare_amazon(raw(tmp_path, new, ['{"name": "x"}']))


@pytest.mark.parametrize(
    ("reviews", "message"),
    [
        (['{"user_id": "AG"}'], r":2: no field 'parent_asin'; expected text"),
        (['{"reviewerID": "A", "asin": "B"}'], r":2: no field 'user_id'; expected text"),
        (['{"user_id": "AG", "parent_asin": "B07G9GWFSM", "timestamp": "2020-05-05 14:08:48.923"}'],
         r":2: '2020-05-05 14:08:48.923' in field 'timestamp'; expected whole milliseconds"),
        (reviews_2023(("AG", "B01CUPMQZE", 1_588_687_728)),
         r":2: timestamp is 1588687728, but 1588687728922 on line 1; expected times of one kind"),
        (["{'user_id': 'AG'"], r":2: not a valid Python literal: "),
        (["{'user_id': __import__('os').system('x')}"], r":2: not a valid Python literal: m"),
    ],
)  # fmt: skip
def test_bad_lines_of_2023(tmp_path, reviews, message) -> None:
    first = reviews_2023(("AG", "B07G9GWFSM", 1_588_687_728_922))
    with pytest.raises(DataError, match=rf"X\.jsonl{message}") as caught:
        prepare_amazon(raw(tmp_path, first + reviews, META_2023))
    assert "\n" not in str(caught.value)


def test_real_gift_cards(shared_data, tmp_path) -> None:
    raw = shared_data / "raw"
    settings = AmazonSettings(
        raw / "Gift_Cards_5.json.gz", raw / "meta_Gift_Cards.json.gz", tmp_path / "out", k_core=5
    )
    catalog, histories = load(prepare_amazon(settings))
    assert (len(catalog), catalog.categories) == (145, ("Gift Cards",))
    # The same by brute force on the raw lines.
    usable = set()
    with gzip.open(settings.meta, "rt") as stream:
        for record in map(json.loads, stream):
            if record["title"] and record["category"]:
                usable.add(record["asin"])
    first: dict[tuple[str, str], int] = {}
    with gzip.open(settings.reviews, "rt") as stream:
        for record in map(json.loads, stream):
            key = (record["reviewerID"], record["asin"])
            if key[1] in usable:
                first[key] = min(record["unixReviewTime"], first.get(key, 1 << 60))
    while True:
        users, items = Counter(k[0] for k in first), Counter(k[1] for k in first)
        left = {k: v for k, v in first.items() if users[k[0]] >= 5 and items[k[1]] >= 5}
        if len(left) == len(first):
            break
        first = left
    assert {(user, item) for user, ids in histories.items() for item in ids} == set(first)
    for user, ids in histories.items():
        assert [first[user, item] for item in ids] == sorted(first[user, item] for item in ids)
    assert len(leave_one_out(Histories.load(tmp_path / "out", catalog))) == 442
    assert check(CheckSettings(tmp_path / "out")).trainable


def test_missing_values_are_missing_and_other_types_are_refused(tmp_path) -> None:
    nan = float("nan")
    metas = [
        meta("a", description=nan),
        meta("b", title=nan),
        meta("c", title=None),
        meta("d", category=nan),
        meta("e", category=["Shop", None, "Part"], description=["x", None, "y"]),
        meta("f", title="NaN"),
    ]
    reviews = [review("u", item, time) for time, item in enumerate("abcdefaef")]
    out = prepare_amazon(config(tmp_path, reviews, metas))
    catalog = Catalog.load(out)
    assert catalog.titles == ("Title a", "Title e", "NaN")
    assert [item.description for item in catalog.items] == ["", "x y", ""]
    assert catalog.item(1).categories == ("Part",)
    for field, value in (
        ("title", False),
        ("title", {"en": "x"}),
        ("title", ["x"]),
        ("category", False),
        ("category", {}),
        ("category", ["x", True]),
        ("description", False),
        ("description", {}),
        ("description", ["x", {}]),
    ):
        wrong = [*metas[:5], meta("f", **{field: value})]
        with pytest.raises(DataError, match=rf"meta_Shop\.json\.gz:6: field '{field}' (is|holds) "):
            prepare_amazon(config(tmp_path, reviews, wrong))


def test_words_keep_their_ampersands(tmp_path) -> None:
    metas = [meta("a", title="Rock &reggae"), meta("b", title="AT&amp;T &copy"), *METAS[2:]]
    titles = Catalog.load(prepare_amazon(config(tmp_path, REVIEWS, metas))).titles
    assert titles == ("Rock &reggae", "AT&T &copy", "Title c")


def test_ids_and_times_that_cannot_stand_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match=r"meta_.*:1: field 'asin' is 'a\\nb'; expected an id with"):
        prepare_amazon(config(tmp_path, REVIEWS, [meta("a\nb")]))
    with pytest.raises(DataError, match=r"Shop_5.*:1: field 'reviewerID' holds half a surrogate"):
        prepare_amazon(config(tmp_path, [review("\ud800", "a", 1)], METAS))
    mixed = [review("u", item, time) for item, time in (("a", 1_400_000_000), ("b", 1.4e12))]
    mixed[1]["unixReviewTime"] = 1_400_000_000_000
    with pytest.raises(DataError, match=r"Shop_5\.json\.gz:2: unixReviewTime is .* on line 1; exp"):
        prepare_amazon(config(tmp_path, mixed, METAS))


def test_fields_that_are_not_used_are_named(tmp_path, capsys) -> None:
    prepare_amazon(config(tmp_path, REVIEWS, [*METAS[:5], meta("f", rank=1)]))
    notice = "notice: columns not used: overall of Shop_5.json.gz; rank of meta_Shop.json.gz\n"
    assert capsys.readouterr().err == notice


def test_prices_and_brands_where_there_are_usable_ones(tmp_path) -> None:
    given: list[dict[str, Any]] = [
        {"price": "$1,299.50", "brand": " A &amp; B "},
        {"price": ".a-box-inner{background-color:#fff}", "brand": ""},
        {"price": 3, "store": "S"},
        {"price": None, "brand": "x" * 101},
        {"price": -1.0, "brand": ["A"]},
    ]
    metas = [meta(name, **fields) for name, fields in zip("abcde", given, strict=True)]
    reviews = [review("u", name, time) for time, name in enumerate("abcde", 1)]
    catalog = Catalog.load(prepare_amazon(config(tmp_path, reviews, metas, length=5)))
    assert [dict(item.attributes) for item in catalog.items] == [
        {"price": 1299.5, "brand": "A & B"},
        {},
        {"price": 3.0, "brand": "S"},
        {},
        {},
    ]
    assert catalog.formats == (("price", "USD"),)
