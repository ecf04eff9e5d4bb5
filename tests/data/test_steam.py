from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from incatalog.artifacts import MANIFEST, read_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.data.settings import SteamSettings
from incatalog.data.steam import prepare_steam
from incatalog.errors import ArtifactError, ConfigError, DataError

# Lines as in the dump, which Python 2 printed.
GAMES = [
    "{u'publisher': u'Kotoshiro', u'genres': [u'Action', u'Casual'], u'app_name': u'Lost Summoner "
    "Kitty', u'title': u'Lost Summoner Kitty', u'url': u'http://store.steampowered.com/app/761140/"
    "Lost_Summoner_Kitty/', u'release_date': u'2018-01-04', u'tags': [u'Strategy', u'Action'], "
    "u'discount_price': 4.49, u'specs': [u'Single-player'], u'price': 4.99, u'early_access': False"
    ", u'id': u'761140', u'developer': u'Kotoshiro'}",
    "{u'app_name': u'Snow Wars\\u2122 \\ud83d\\ude00', u'url': u'http://store.steampowered.com/app/"
    "774278/Snow/', u'tags': [u'Don\\'t'], u'early_access': True}",
    "{u'url': u'http://store.steampowered.com', u'price': u'Free To Play'}",
    "{u'title': u'Ironbound', u'genres': None, u'id': u'643980'}",
    "{u'title': u'', u'id': u'5'}",
    "{u'title': u'Ironbound again', u'id': u'643980'}",
]


def review(user: str, game: str, date: str) -> str:
    return (
        f"{{u'username': {user!r}, u'hours': 1.1, u'products': 2, u'product_id': u'{game}', "
        f"u'page_order': 0, u'date': u'{date}', u'text': u\"it's a \\\"{{'date': 3}}\\\"\", "
        "u'early_access': False, u'page': 1}"
    )


REVIEWS = [
    review("Chaos Syren", "643980", "2017-12-17"),
    review("Chaos Syren", "774278", "2016-03-01"),
    review("Chaos Syren", "761140", "2017-12-17"),
    review("Chaos Syren", "761140", "2018-01-01"),
    review("₮ʜᴇ", "761140", "2018-01-02"),
    review("₮ʜᴇ", "5", "2018-01-02"),
    "{u'product_id': u'5', u'date': u'2018-01-02'}",
]


def settings(folder: Path, reviews: list[str], games: list[str], **flags: object) -> SteamSettings:
    paths = folder / "steam_reviews.json.gz", folder / "steam_games.json.gz"
    for path, lines in zip(paths, (reviews, games), strict=True):
        path.write_bytes(gzip.compress("\n".join(lines).encode()))
    return SteamSettings(*paths, **{"out": folder / "out", "length": 3} | flags)


def test_reviews_and_games(tmp_path) -> None:
    out = prepare_steam(settings(tmp_path, REVIEWS, GAMES))
    catalog = Catalog.load(out)
    assert [item.item_id for item in catalog.items] == ["761140", "774278", "643980"]
    # Without a title the name of the app counts, without an id the number of the page.
    assert catalog.titles == ("Lost Summoner Kitty", "Snow Wars™ 😀", "Ironbound")
    assert [set(item.categories) for item in catalog.items] == [
        {"Action", "Casual", "Strategy"},
        {"Don't"},
        set(),
    ]
    histories = Histories.load(out, catalog)
    assert histories.user_ids == ("Chaos Syren",)
    # By day, and as in the file on one day.
    assert histories.rows.tolist() == [1, 2, 0]
    assert read_json(out / MANIFEST)["results"]["skipped"] == {
        "games without an id": 1,
        "games without a title": 1,
        "repeated items in the metadata": 1,
        "reviews of items that were left out": 1,
        "reviews without a user": 1,
        "repeated reviews of an item by a user": 1,
        "users with fewer than 3 interactions": 1,
    }


def test_beside_the_raw_files(tmp_path) -> None:
    config = settings(tmp_path, REVIEWS, GAMES, out=tmp_path)
    raw = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    prepare_steam(config)
    assert {name: (tmp_path / name).read_bytes() for name in raw} == raw
    assert len(Catalog.load(tmp_path)) == 3
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(ArtifactError, match=r"would overwrite metas\.jsonl, category\.jsonl, seq"):
        prepare_steam(config)


def test_json_lines_are_read_too(tmp_path) -> None:
    lines = [
        f'{{"username": "u", "product_id": {game}, "date": "2018-01-0{day}"}}'
        for day, game in enumerate((643980, 761140, 774278), 1)
    ]
    out = prepare_steam(settings(tmp_path, lines, GAMES))
    assert Histories.load(out, Catalog.load(out)).rows.tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("reviews", "games", "message"),
    [
        ([*REVIEWS, "{u'username': u'x', u'date': u'2018-01-01'}"], GAMES,
         r"steam_reviews\.json\.gz:8: no field 'product_id'; found username, date"),
        ([*REVIEWS, "{u'username': u'x', u'product_id': u'5'}"], GAMES,
         r":8: no field 'date'; found username, product_id"),
        ([review("x", "761140", "yesterday")], GAMES, r":1: date is 'yesterday'; expected"),
        ([review("x", "", "2018-01-01")], GAMES, r":1: field 'product_id' is ''; expected an id"),
        (["{u'username': [1], u'product_id': 1, u'date': 1}"], GAMES,
         r":1: field 'username' is a list; expected an id"),
        (["{u'username': u'x', "], GAMES, r":1: not a valid Python literal: '\{' was never closed"),
        (["{'a': open('x')}"], GAMES, r":1: not a valid Python literal: malformed node or string"),
        ([], GAMES, r"steam_reviews\.json\.gz: the file is empty"),
        (REVIEWS, ["{u'id': u'1', u'title': 3}"], r"games\.json\.gz:1: field 'title' is 3; exp"),
        (REVIEWS, ["{u'id': 1.5, u'title': 'x'}"], r"games\.json\.gz:1: field 'id' is 1\.5; exp"),
        (REVIEWS, [GAMES[0].replace("[u'Action', u'Casual']", "u'Action'")],
         r":1: field 'genres' is 'Action'; expected a list of text"),
        (REVIEWS, ["{'id': None, 'url': 'x'}"], r"nothing to recommend; found only games without"),
        (REVIEWS, [GAMES[2]],
         r"games\.json\.gz: no field 'id' in the first lines; found url, price; expected Steam's "
         r"games for --meta; is it the file for --reviews\?"),
        (GAMES, REVIEWS, r"reviews\.json\.gz: no field 'username' in the first lines; found"),
        (REVIEWS[:2], GAMES, r"no user is left after filtering; try a smaller --length than 3"),
    ],
)  # fmt: skip
def test_bad_files_are_one_line_and_leave_nothing(tmp_path, reviews, games, message) -> None:
    with pytest.raises(DataError, match=message) as caught:
        prepare_steam(settings(tmp_path, reviews, games))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_numbers_are_checked_before_anything_is_read(tmp_path) -> None:
    with pytest.raises(ConfigError, match="--length 2: expected at least 3"):
        prepare_steam(SteamSettings(Path("none"), Path("none"), tmp_path / "out", length=2))
