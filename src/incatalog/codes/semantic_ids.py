"""Semantic IDs: each item as a few codes, one a level (TIGER, arXiv 2305.05065)."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int32

from incatalog.artifacts import atomic_path
from incatalog.checksums import verify_checksums
from incatalog.data.documents import entries
from incatalog.errors import CatalogError, DataError, SemanticIdError
from incatalog.reading import read_text

if TYPE_CHECKING:
    from incatalog.data.catalog import Catalog

INDEX = ".index.json"
"""Ending of the file with the codes of each row."""
ITEM2ID = ".item2id"
"""Ending of the file with the row of each item."""

Codes = Int32[np.ndarray, "items levels"]
_TOKEN = re.compile(r"<([a-z])_(0|[1-9]\d{0,6})>")


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """The codes of every item row, from 0, and the number of codes at each level."""

    codes: Codes
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        codes, sizes = self.codes, self.sizes
        if codes.ndim != 2 or not codes.size or codes.dtype != np.int32:
            raise SemanticIdError(
                f"codes: found {codes.dtype} of shape {codes.shape}; expected int32 of "
                "shape [items, levels], at least one of each"
            )
        levels, most = codes.shape[1], len(string.ascii_lowercase)
        if len(sizes) != levels or levels > most:
            raise SemanticIdError(
                f"sizes: found {len(sizes)} for {levels} levels; expected one a level, and {most} "
                "levels at most"
            )
        outside = (codes < 0) | (codes >= np.array(sizes))
        if outside.any():
            row, level = (int(place) for place in np.argwhere(outside)[0])
            raise SemanticIdError(
                f"item row {row}: code {codes[row, level]} at level {level + 1}; expected 0 "
                f"to {sizes[level] - 1}"
            )
        codes.flags.writeable = False

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def levels(self) -> int:
        """Codes of an item."""
        return int(self.codes.shape[1])

    def tokens(self, row: int) -> tuple[str, ...]:
        """The code tokens of an item row, such as ``<a_137><b_2>``."""
        if not 0 <= row < len(self):
            raise CatalogError(f"item row {row}: has no codes; expected 0 to {len(self) - 1}")
        return tuple(code_token(level, code) for level, code in enumerate(self.codes[row].tolist()))

    def collisions(self) -> int:
        """Number of items that share all their codes with an earlier one."""
        return len(self) - len(np.unique(self.codes, axis=0))

    def require_unique(
        self,
        where: str = "semantic IDs",
        repair: str = "repair them with `incatalog items assign --index FILE --repair`",
    ) -> None:
        """Refuses codes that do not tell all items apart, saying whose they are and what to do."""
        _, first, of_row = np.unique(self.codes, axis=0, return_index=True, return_inverse=True)
        earlier = first[of_row.reshape(-1)]
        sharing = np.flatnonzero(earlier != np.arange(len(self))).tolist()
        if sharing:
            row = sharing[0]
            raise SemanticIdError(
                f"{where}: {len(sharing)} of {len(self)} items share all their codes with an "
                f"earlier one (rows {earlier[row]} and {row} are both {''.join(self.tokens(row))}),"
                f" so that an answer could not tell them apart; {repair}"
            )

    def save(self, folder: str | Path, name: str, catalog: Catalog) -> None:
        """Writes ``{name}.index.json`` and ``{name}.item2id``, each atomically."""
        folder = Path(folder)
        if len(catalog) != len(self):
            found = f"{len(catalog)} items for the codes of {len(self)}"
            raise SemanticIdError(f"catalog {catalog.name}: {found}; expected one for every row")
        for item in catalog.items:
            if item.item_id.split() != [item.item_id]:
                raise SemanticIdError(
                    f"item {item.item_id!r}: has white space in its id, which {name}{ITEM2ID} "
                    "cannot hold; rename the item"
                )
        index = ",\n".join(f'"{row}": {json.dumps(self.tokens(row))}' for row in range(len(self)))
        with atomic_path(folder / f"{name}{INDEX}") as partial:
            partial.write_text(f"{{\n{index}\n}}\n", encoding="utf-8")
        with atomic_path(folder / f"{name}{ITEM2ID}") as partial:
            lines = (f"{item.item_id}\t{row}\n" for row, item in enumerate(catalog.items))
            partial.write_text("".join(lines), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, name: str, catalog: Catalog) -> SemanticIds:
        """Reads ``{name}.index.json`` and ``{name}.item2id``."""
        return cls.read(Path(folder) / f"{name}{INDEX}", Path(folder) / f"{name}{ITEM2ID}", catalog)

    @classmethod
    def read(cls, index: Path, item2id: Path | None, catalog: Catalog) -> SemanticIds:
        """Reads index files of any name, in the order of the catalog.

        Without an item file, entry N is the item at row N of the catalog. The files do not say how
        many codes a level has: the highest one is taken for the last. Items may share codes.
        """
        found = _read_codes(index)
        rows = _rows_of_items(index, found, item2id, catalog)
        codes = np.array([found[row] for row in rows], dtype=np.int32)
        return cls(codes, tuple((codes.max(axis=0) + 1).tolist()))


def code_token(level: int, code: int) -> str:
    """The token of a code, ``<a_0>`` at level 0."""
    return f"<{string.ascii_lowercase[level]}_{code}>"


def is_code_token(text: str) -> bool:
    """Whether a text is the token of some code."""
    return _TOKEN.fullmatch(text) is not None


def code_of(text: str) -> tuple[int, int] | None:
    """Level and code of a code token; None for any other text."""
    found = _TOKEN.fullmatch(text)
    return None if found is None else (string.ascii_lowercase.index(found[1]), int(found[2]))


def code_names(sizes: Sequence[int]) -> tuple[str, ...]:
    """All code tokens of codebooks of some sizes, level by level in ascending order."""
    levels = enumerate(sizes)
    return tuple(code_token(level, code) for level, size in levels for code in range(size))


def index_name(folder: str | Path) -> str | None:
    """Name of the data set whose index file lies in a folder; None if there is none."""
    names = sorted(path.name.removesuffix(INDEX) for path in Path(folder).glob(f"*{INDEX}"))
    if len(names) > 1:
        raise SemanticIdError(
            f"{folder}: holds the index files of {', '.join(names)}; expected those of one data set"
        )
    return names[0] if names else None


def missing_index(folder: str | Path) -> str:
    """What a folder lacks of index files, as the middle of a message; empty if nothing."""
    name = index_name(folder)
    if name is None:
        return f"{folder} holds no index files ({{dataset}}{INDEX} and {{dataset}}{ITEM2ID})"
    if not (Path(folder) / f"{name}{ITEM2ID}").is_file():
        return f"{folder} holds {name}{INDEX}, but no {name}{ITEM2ID}"
    return ""


def index_files(folder: str | Path) -> dict[str, Path]:
    """The index files in a folder, as inputs of a run."""
    name = index_name(folder)
    return {f"index{ending}": Path(folder) / f"{name}{ending}" for ending in (INDEX, ITEM2ID)}


def load_semantic_ids(folder: str | Path, catalog: Catalog) -> SemanticIds:
    """Reads the index files in a folder, whatever the data set is called."""
    missing = missing_index(folder)
    if missing:
        raise SemanticIdError(f"{missing}; make them for its catalog with `incatalog items assign`")
    index, item2id = index_files(folder).values()
    verify_checksums(folder, (index.name, item2id.name))
    return SemanticIds.read(index, item2id, catalog)


def _rows_of_items(
    index: Path, found: Mapping[int, Any], item2id: Path | None, catalog: Catalog
) -> list[int]:
    """The entry of each item of the catalog, by the item file or else by its row."""
    ids = [item.item_id for item in catalog.items]
    rows = {item_id: (row, 0) for row, item_id in enumerate(ids)}
    unnamed = f"no item; the catalog ends with row {len(ids) - 1}"
    if item2id is not None:
        rows, unnamed = _read_rows(item2id), f"no item in {item2id.name}"
    for item_id, (row, line) in rows.items():
        if row not in found:
            every = f"; expected codes for each of the {len(ids)} items"
            if item2id is not None:
                every = f" ({item2id.name}:{line}); expected codes for every item"
            lacks = f"has no entry {row}, the row of item {item_id!r}"
            raise SemanticIdError(f"{index}: {lacks}{every}")
    for item_id in ids:
        if item_id not in rows:
            raise SemanticIdError(
                f"{item2id}: misses item {item_id!r} of the catalog; make the codes "
                "for this catalog with `incatalog items assign`"
            )
    known, named = set(ids), {row for row, _ in rows.values()}
    for item_id, (_, line) in rows.items():
        if item_id not in known:
            unknown = f"names item {item_id!r}, which is not in the catalog"
            raise SemanticIdError(f"{item2id}:{line}: {unknown}")
    for row in found:
        if row not in named:
            raise SemanticIdError(f"{index}: entry {row} is the row of {unnamed}")
    return [rows[item_id][0] for item_id in ids]


def _read_rows(path: Path) -> dict[str, tuple[int, int]]:
    """Row and line of each item of an item file."""
    try:
        text = read_text(path)
    except DataError as error:
        raise SemanticIdError(f"{error}; expected one item id and row a line") from error
    rows: dict[str, tuple[int, int]] = {}
    seen: dict[str, int] = {}
    for line, content in enumerate(text.splitlines(), start=1):
        fields = content.split()
        if not fields:
            continue
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
            expected = "expected an item id, a tab and a row"
            raise SemanticIdError(f"{path}:{line}: found {content!r}; {expected}")
        item_id, row = fields[0], int(fields[1])
        for what in (f"item {item_id!r}", f"row {row}"):
            if what in seen:
                raise SemanticIdError(f"{path}:{line}: {what} is already on line {seen[what]}")
            seen[what] = line
        rows[item_id] = (row, line)
    return rows


def _read_codes(path: Path) -> dict[int, list[int]]:
    """Codes of each row of an index file."""
    try:
        loaded = list(entries(path, ()))
    except DataError as error:
        raise SemanticIdError(f"{error}; expected an object of rows and code tokens") from error
    if not loaded:
        raise SemanticIdError(f"{path}: expected an object of rows and their code tokens")
    codes: dict[int, list[int]] = {}
    levels = 0
    for entry in loaded:
        key, tokens, where = entry.key, entry.value, f"{path}:{entry.line}: entry {entry.key}"
        if not (key.isascii() and key.isdigit() and str(int(key)) == key):
            wrong = f"entry {key!r} is not a row; expected a whole number"
            raise SemanticIdError(f"{path}:{entry.line}: {wrong}")
        if not isinstance(tokens, list) or not tokens:
            raise SemanticIdError(f"{where}: expected a list of code tokens")
        count = len(tokens)
        levels = levels or count
        if count != levels:
            raise SemanticIdError(f"{where} has {count} codes; expected {levels} as in the first")
        numbers = []
        for level, token in enumerate(tokens):
            found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
            if found is None or found[1] != string.ascii_lowercase[level]:
                expected = f"expected a code token such as {code_token(level, 0)}"
                raise SemanticIdError(f"{where} has {token!r} at level {level + 1}; {expected}")
            numbers.append(int(found[2]))
        if int(key) in codes:
            raise SemanticIdError(f"{where} is there twice; expected it once")
        codes[int(key)] = numbers
    return codes
