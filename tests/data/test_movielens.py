from __future__ import annotations

import sys
from pathlib import Path

import pytest

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories
from incatalog.data.movielens import prepare_movielens, recbole_movielens
from incatalog.data.settings import MovieLensSettings
from incatalog.errors import ConfigError, DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
ITEM = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
RATINGS = [("7", "1", 5, 30), ("7", "2", 3, 10), ("7", "3", 4, 20), ("8", "3", 5, 1)]
RECBOLE = {
    "ml.inter": INTER + "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS),
    "ml.item": ITEM + "1\tToy Story\t1995\tAnimation Comedy\n2\tunkonwn\tunkonwn\tunknown\n"
    "3\tSeven (Se7en)\t1995\tCrime\n",
}
FLAGS = "|".join("0" * 19)
ML_100K = {
    "u.data": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in RATINGS),
    "u.item": f"1|Toy Story (1995)|01-Jan-1995||http://x|{'0|0|0|1|0|1' + FLAGS[11:]}\n"
    f"2|unknown||||1{FLAGS[1:]}\n3|Cité (1995)|01-Jan-1995||http://x|{FLAGS}\n",
}
ML_1M = {
    "ratings.dat": "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in RATINGS),
    "movies.dat": "1::Toy Story (1995)::Animation|Comedy\n2::M: A (1931)::Crime\n"
    "3::Cité (1995)::Drama\n",
}

# As in the README of ml-latest-small: titles with commas are in quotes, genres are split by bars.
LATEST = {
    "ratings.csv": "userId,movieId,rating,timestamp\n"
    + "".join(f"{u},{i},{r / 2},{t}\n" for u, i, r, t in RATINGS),
    "movies.csv": "movieId,title,genres\n"
    "1,Toy Story (1995),Adventure|Animation|Children|Comedy|Fantasy\n"
    '2,"American President, The (1995)",Comedy|Drama|Romance\n'
    '3,"""Great"" Cité, La (Babylon 5)",(no genres listed)\n',
    "tags.csv": "userId,movieId,tag,timestamp\n7,1,funny,1445714994\n",
    "links.csv": "movieId,imdbId,tmdbId\n1,0114709,862\n",
}


def write(folder: Path, files: dict[str, str], encoding: str = "utf-8") -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_bytes(text.encode(encoding))
    return folder


@pytest.mark.parametrize(
    ("files", "encoding", "titles", "categories"),
    [
        (
            RECBOLE,
            "utf-8",
            ("Toy Story (1995)", "unkonwn", "Seven (Se7en) (1995)"),
            [("Animation", "Comedy"), (), ("Crime",)],
        ),
        (
            ML_100K,
            "latin-1",
            ("Toy Story (1995)", "unknown", "Cité (1995)"),
            [("Animation", "Comedy"), (), ()],
        ),
        (
            ML_1M,
            "latin-1",
            ("Toy Story (1995)", "M: A (1931)", "Cité (1995)"),
            [("Animation", "Comedy"), ("Crime",), ("Drama",)],
        ),
        (
            LATEST,
            "utf-8",
            ("Toy Story (1995)", "American President, The (1995)", '"Great" Cité, La (Babylon 5)'),
            [
                ("Adventure", "Animation", "Children", "Comedy", "Fantasy"),
                ("Comedy", "Drama", "Romance"),
                (),
            ],
        ),
    ],
)
def test_every_edition_is_read(tmp_path, files, encoding, titles, categories) -> None:
    source = write(tmp_path / "source", files, encoding)
    out = prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
    catalog = Catalog.load(out)
    assert catalog.titles == titles
    assert [item.categories for item in catalog.items] == categories
    histories = Histories.load(out, catalog)
    assert histories.user_ids == ("7",)
    assert histories.rows.tolist() == [1, 2, 0]


@pytest.mark.parametrize("files", [RECBOLE, ML_100K, ML_1M, LATEST])
def test_years_are_numbers(tmp_path, files) -> None:
    source = write(tmp_path / "source", files)
    items = Catalog.load(prepare_movielens(MovieLensSettings(source, tmp_path / "out"))).items
    years = {item.title: item.attributes.get("year") for item in items}
    assert years["Toy Story (1995)"] == 1995
    assert all(years[t] == int(t[-5:-1]) for t in years if t[-5:-1].isdigit())
    assert all(years[t] is None for t in years if not t[-5:-1].isdigit())


def test_ratings_can_be_filtered(tmp_path) -> None:
    more = "".join(f"9\t{item}\t4\t5\n" for item in (3, 1, 2))
    source = write(tmp_path / "source", RECBOLE | {"ml.inter": RECBOLE["ml.inter"] + more})
    out = prepare_movielens(MovieLensSettings(source, tmp_path / "out", min_rating=4))
    catalog = Catalog.load(out)
    # Equal times keep the order of the file, and movies without ratings stay.
    assert Histories.load(out, catalog).user_ids == ("9",)
    assert Histories.load(out, catalog).rows.tolist() == [2, 0, 1]
    assert len(catalog) == 3


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"source: no MovieLens files; expected u\.data"),
        ({"ml.inter": RECBOLE["ml.inter"]}, r"ml\.item: no such file"),
        (RECBOLE | {"ml.item": ""}, r"ml\.item: the file is empty"),
        (RECBOLE | {"ml.item": ITEM}, r"ml\.item: the file is empty"),
        (RECBOLE | {"ml.inter": INTER}, r"ml\.inter: the file is empty"),
        (
            RECBOLE | {"ml.item": "id:token\tmovie_title:token\n"},
            r"ml\.item:1: no column 'item_id'",
        ),
        (RECBOLE | {"ml.inter": "user_id:token\titem_id:token\n"}, r":1: no column 'rating'"),
        (RECBOLE | {"ml.item": ITEM + "1\tToy\n"}, r"ml\.item:2: 2 fields; expected at least 4"),
        (
            RECBOLE | {"ml.item": ITEM + "1\t \t1995\tX\n"},
            r"ml\.item:2: movie '1' has an empty title",
        ),
        (RECBOLE | {"ml.item": RECBOLE["ml.item"] + "1\tX\t\t\n"}, r"ml\.item:5: movie '1' occurs"),
        (RECBOLE | {"ml.inter": INTER + "7\t99\t5\t1\n"}, r"ml\.inter:2: movie '99' is not in ml"),
        (
            RECBOLE | {"ml.inter": INTER + "7\t1\tgood\t1\n"},
            r"ml\.inter:2: rating is 'good'; expected a number",
        ),
        (RECBOLE | {"ml.inter": INTER + "7\t1\t5\t1\n"}, r"ml\.inter: no user is left"),
        (ML_100K | {"u.data": "7\t1\t5\n"}, r"u\.data:1: 3 fields; expected 4 \(user, item"),
        (ML_100K | {"u.item": "1|Toy Story|x\n"}, r"u\.item:1: 3 fields; expected 24"),
        (ML_1M | {"movies.dat": "1::Toy Story\n"}, r"movies\.dat:1: 2 fields; expected 3"),
        (ML_1M | {"ratings.dat": "7::1::5:1\n"}, r"ratings\.dat:1: 3 fields; expected 4 \(user"),
        (
            LATEST | {"ratings.csv": "user,movieId,rating,timestamp\n7,1,5,1\n"},
            r"ratings\.csv:1: no column 'userId'; found user, movieId, rating, timestamp",
        ),
        (
            LATEST | {"ratings.csv": LATEST["ratings.csv"] + "\n7,1,5\n"},
            r"ratings\.csv:7: 3 fields; expected 4 as in the header",
        ),
        (
            LATEST | {"ratings.csv": LATEST["ratings.csv"] + "7,9,5,1\n"},
            r"ratings\.csv:6: movie '9' is not in movies\.csv",
        ),
        (LATEST | {"ratings.csv": ""}, r"ratings\.csv:1: no column 'userId'"),
        (
            LATEST | {"movies.csv": 'movieId,title,genres\n1,"Toy,Comedy\n'},
            r"movies\.csv:2: not valid CSV",
        ),
        (
            LATEST | {"movies.csv": "movieId,title,genres\n1,Toy, Story,Comedy\n"},
            r"movies\.csv:2: 4 fields; expected 3 as in the header",
        ),
    ],
)
def test_bad_files_are_one_line_and_leave_nothing(tmp_path, files, message) -> None:
    source = write(tmp_path / "source", files)
    with pytest.raises(DataError, match=message) as caught:
        prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_missing_source_wrong_encoding_and_limits(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        prepare_movielens(MovieLensSettings(tmp_path / "none", tmp_path / "out"))
    with pytest.raises(ConfigError, match="--min-interactions 2"):
        prepare_movielens(MovieLensSettings(tmp_path, tmp_path / "out", min_interactions=2))
    write(tmp_path, RECBOLE | {"ml.item": ITEM + "1\tCité\t1995\tX\n"}, "latin-1")
    with pytest.raises(DataError, match=r"ml\.item:2: not UTF-8 text"):
        prepare_movielens(MovieLensSettings(tmp_path, tmp_path / "out"))


def test_real_movielens(ml100k_source, tmp_path) -> None:
    assert ml100k_source == recbole_movielens()
    assert "recbole" not in sys.modules
    out = prepare_movielens(MovieLensSettings(ml100k_source, tmp_path / "out"))
    catalog = Catalog.load(out)
    histories = Histories.load(out, catalog)
    assert (len(catalog), len(histories), len(histories.rows)) == (1682, 943, 100_000)
    assert catalog.item(0).title == "Toy Story (1995)"
    assert catalog.item(catalog.row("267")).title == "unkonwn"
    assert len(catalog.categories) == 18
    assert histories.lengths.min() == 20


def test_data_beside_the_raw_files(tmp_path) -> None:
    source = write(tmp_path, LATEST)
    assert prepare_movielens(MovieLensSettings(source, source)) == source
    assert {path.name for path in source.iterdir()} == {
        *LATEST, "metas.jsonl", "category.jsonl", "sequential.jsonl", "manifest.json"
    }  # fmt: skip
    assert (source / "ratings.csv").read_text() == LATEST["ratings.csv"]
    # Again, over data of its own.
    out = prepare_movielens(MovieLensSettings(source, source, min_rating=1.5))
    with pytest.raises(DataError, match="no user is left"):
        prepare_movielens(MovieLensSettings(source, source, min_rating=2))
    assert Histories.load(out, Catalog.load(out)).user_ids == ("7",)


def test_utf8_is_told_from_the_encoding_of_old(tmp_path) -> None:
    for files in (ML_100K, ML_1M):
        for encoding in ("latin-1", "utf-8", "utf-8-sig"):
            source = write(tmp_path / "source", files, encoding)
            out = prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
            assert Catalog.load(out).titles[2] == "Cité (1995)"
            assert Histories.load(out, Catalog.load(out)).rows.tolist() == [1, 2, 0]
        for path in source.iterdir():
            path.unlink()
    source = write(source, RECBOLE, "utf-8-sig")
    out = prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
    assert Catalog.load(out).titles[0] == "Toy Story (1995)"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("7\t1\tnan\t40", "rating is 'nan'; expected a number"),
        ("7\t1\tinf\t40", "rating is 'inf'; expected a number"),
        ("7\t1\t5\tnan", "timestamp is 'nan'; expected a number"),
        ("7\t1\t1\tnan", "timestamp is 'nan'; expected a number"),
        ("7\t1\t5\t-inf", "timestamp is '-inf'; expected a number"),
        ("7\t1\t5\t", "timestamp is ''; expected a number"),
        ("7\t1\t5\t1997-10-01", "timestamp is '1997-10-01', but '30' on line 2"),
        ("\t1\t5\t40", "user id is ''; expected an id"),
        ("7\x1f\t1\t5\t40", "user id is '7\\x1f'; expected an id without"),
    ],
)
def test_ratings_and_times_are_numbers(tmp_path, row, message) -> None:
    for files, ratings, first in ((RECBOLE, "ml.inter", 6), (ML_100K, "u.data", 5)):
        source = write(tmp_path / ratings, files | {ratings: f"{files[ratings]}{row}\n"})
        with pytest.raises(DataError) as caught:
            prepare_movielens(MovieLensSettings(source, tmp_path / "out", min_rating=2))
        expected = message if first == 6 else message.replace("line 2", "line 1")
        assert str(caught.value).startswith(f"{source / ratings}:{first}: {expected}")


def test_seconds_beside_milliseconds_are_refused_and_large_times_kept(tmp_path) -> None:
    start = 1_700_000_000_000_000_000
    times = [("1", start + 2), ("2", start + 1), ("3", start)]
    inter = INTER + "".join(f"7\t{item}\t5\t{time}\n" for item, time in times)
    source = write(tmp_path / "source", RECBOLE | {"ml.inter": inter})
    out = prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
    assert Histories.load(out, Catalog.load(out)).rows.tolist() == [2, 1, 0]
    inter += f"7\t1\t5\t{start // 1000}\n"
    source = write(tmp_path / "source", RECBOLE | {"ml.inter": inter})
    with pytest.raises(DataError, match=r"ml\.inter:5: timestamp is .* on line 4; expected times"):
        prepare_movielens(MovieLensSettings(source, tmp_path / "out"))


def test_columns_are_named_that_occur_twice_or_are_not_used(tmp_path, capsys) -> None:
    twice = RECBOLE["ml.inter"].replace("rating:float", "item_id:token", 1)
    source = write(tmp_path / "source", RECBOLE | {"ml.inter": twice})
    with pytest.raises(DataError, match=r"ml\.inter:1: column 'item_id' occurs twice"):
        prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
    more = "\n".join(line + "\tx:token" for line in RECBOLE["ml.item"].splitlines())
    source = write(tmp_path / "source", RECBOLE | {"ml.item": more})
    prepare_movielens(MovieLensSettings(source, tmp_path / "out"))
    assert capsys.readouterr().err == "notice: columns not used: x of ml.item\n"
