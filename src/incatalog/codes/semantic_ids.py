"""Semantic IDs: each item as a few codes, one a level (TIGER, arXiv 2305.05065)."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32

from incatalog.artifacts import atomic_path
from incatalog.checksums import verify_checksums
from incatalog.data.documents import Entry, entries
from incatalog.errors import CatalogError, DataError, SemanticIdError
from incatalog.reading import read_text

if TYPE_CHECKING:
    from incatalog.data.catalog import Catalog

INDEX = ".index.json"
"""Ending of the file with the codes of each row."""
ITEM2ID = ".item2id"
"""Ending of the file with the row of each item."""

_TOKEN = re.compile(r"<([a-z])_(0|[1-9]\d{0,6})>")


@dataclass(frozen=True, eq=False)
class SemanticIds:
    """The codes of every item row.

    Attributes:
        codes: Code of each item at each level, from 0.
        sizes: Number of codes at each level, used or not.

    Raises:
        SemanticIdError: The shapes do not fit, or a code is outside its level; names the item row.
    """

    codes: Int32[np.ndarray, "items levels"]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.codes.ndim != 2 or not self.codes.size or self.codes.dtype != np.int32:
            raise SemanticIdError(
                f"codes: found {self.codes.dtype} of shape {self.codes.shape}; expected int32 of "
                "shape [items, levels], at least one of each"
            )
        levels = self.codes.shape[1]
        if len(self.sizes) != levels or levels > len(string.ascii_lowercase):
            raise SemanticIdError(
                f"sizes: found {len(self.sizes)} for {levels} levels; expected one a level, and "
                f"{len(string.ascii_lowercase)} levels at most"
            )
        outside = (self.codes < 0) | (self.codes >= np.array(self.sizes))
        if outside.any():
            row, level = (int(place) for place in np.argwhere(outside)[0])
            raise SemanticIdError(
                f"item row {row}: code {self.codes[row, level]} at level {level + 1}; expected 0 "
                f"to {self.sizes[level] - 1}"
            )
        self.codes.flags.writeable = False

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def levels(self) -> int:
        """Codes of an item."""
        return int(self.codes.shape[1])

    def tokens(self, row: int) -> tuple[str, ...]:
        """The code tokens of an item row, ``<a_137>`` first.

        Raises:
            CatalogError: There is no such row.
        """
        if not 0 <= row < len(self):
            raise CatalogError(f"item row {row}: has no codes; expected 0 to {len(self) - 1}")
        return tuple(code_token(level, code) for level, code in enumerate(self.codes[row].tolist()))

    def token_names(self) -> tuple[str, ...]:
        """All code tokens, used or not, level by level in ascending order."""
        return code_names(self.sizes)

    def collisions(self) -> int:
        """Number of items that share all their codes with an earlier one."""
        return len(self) - len(np.unique(self.codes, axis=0))

    def require_unique(
        self,
        where: str = "semantic IDs",
        repair: str = "repair them with `incatalog items assign --index FILE --repair`",
    ) -> None:
        """Refuses codes that do not tell all items apart.

        Args:
            where: Where the codes come from, the beginning of the message.
            repair: What to do about it, the end of the message.

        Raises:
            SemanticIdError: Two items share all their codes; says how many do and names two.
        """
        shared = self.collisions()
        if not shared:
            return
        _, first, of_row = np.unique(self.codes, axis=0, return_index=True, return_inverse=True)
        earlier = first[of_row.reshape(-1)]
        row = int(np.flatnonzero(earlier != np.arange(len(self)))[0])
        raise SemanticIdError(
            f"{where}: {shared} of {len(self)} items share all their codes with an earlier one "
            f"(rows {earlier[row]} and {row} are both {''.join(self.tokens(row))}), so that an "
            f"answer could not tell them apart; {repair}"
        )

    def save(self, folder: str | Path, name: str, catalog: Catalog) -> None:
        """Writes ``{name}.index.json`` and ``{name}.item2id``, each atomically.

        Args:
            folder: Where to; created if need be.
            name: Name of the data set.
            catalog: The items, in the order of the rows.

        Raises:
            SemanticIdError: The catalog has another number of items, or an item id that the format
                cannot hold.
        """
        folder = Path(folder)
        if len(catalog) != len(self):
            raise SemanticIdError(
                f"catalog {catalog.name}: {len(catalog)} items for the codes of {len(self)}; "
                "expected one for every row"
            )
        for item in catalog.items:
            if item.item_id.split() != [item.item_id]:
                raise SemanticIdError(
                    f"item {item.item_id!r}: has white space in its id, which {name}{ITEM2ID} "
                    "cannot hold; rename the item"
                )
        with (
            atomic_path(folder / f"{name}{INDEX}") as partial,
            partial.open("w", encoding="utf-8") as stream,
        ):
            stream.write("{")
            for row in range(len(self)):
                codes = ", ".join(f'"{token}"' for token in self.tokens(row))
                stream.write(f'{"," if row else ""}\n"{row}": [{codes}]')
            stream.write("\n}\n")
        with atomic_path(folder / f"{name}{ITEM2ID}") as partial:
            lines = (f"{item.item_id}\t{row}\n" for row, item in enumerate(catalog.items))
            partial.write_text("".join(lines), encoding="utf-8")

    @classmethod
    def load(cls, folder: str | Path, name: str, catalog: Catalog) -> SemanticIds:
        """Reads ``{name}.index.json`` and ``{name}.item2id``.

        The number of codes at a level is not in the files; it is taken to end with the highest one.

        Args:
            folder: Where they are.
            name: Name of the data set.
            catalog: The items the rows of the result are to follow.

        Raises:
            SemanticIdError: A file is missing, malformed, misses an item of the catalog or names
                one that is not in it; names file and line or entry.
        """
        return cls.read(Path(folder) / f"{name}{INDEX}", Path(folder) / f"{name}{ITEM2ID}", catalog)

    @classmethod
    def read(cls, index: Path, item2id: Path | None, catalog: Catalog) -> SemanticIds:
        """Reads index files of any name, collisions and all.

        Args:
            index: File with the codes of each row.
            item2id: File with the row of each item; None takes an entry for the item at that row of
                the catalog.
            catalog: The items the rows of the result are to follow.

        Raises:
            SemanticIdError: See :meth:`load`.
        """
        found = _read_codes(index)
        if item2id is None:
            return cls._in_order(index, found, catalog)
        rows = _read_rows(item2id)
        for item_id, (row, line) in rows.items():
            if row not in found:
                raise SemanticIdError(
                    f"{index}: has no entry {row}, the row of item {item_id!r} "
                    f"({item2id.name}:{line}); expected codes for every item"
                )
        for item in catalog.items:
            if item.item_id not in rows:
                raise SemanticIdError(
                    f"{item2id}: misses item {item.item_id!r} of the catalog; make the codes "
                    "for this catalog with `incatalog items assign`"
                )
        if len(rows) > len(catalog):
            known = {item.item_id for item in catalog.items}
            item_id = next(item_id for item_id in rows if item_id not in known)
            raise SemanticIdError(
                f"{item2id}:{rows[item_id][1]}: names item {item_id!r}, which is not in the catalog"
            )
        if len(found) > len(rows):
            named = {row for row, _ in rows.values()}
            row = next(row for row in found if row not in named)
            raise SemanticIdError(f"{index}: entry {row} is the row of no item in {item2id.name}")
        codes = np.array([found[rows[item.item_id][0]] for item in catalog.items], dtype=np.int32)
        return cls(codes, tuple((codes.max(axis=0) + 1).tolist()))

    @classmethod
    def _in_order(
        cls, index: Path, found: Mapping[int, list[int]], catalog: Catalog
    ) -> SemanticIds:
        """Codes whose entries are numbered like the rows of the catalog."""
        for row, item in enumerate(catalog.items):
            if row not in found:
                raise SemanticIdError(
                    f"{index}: has no entry {row}, the row of item {item.item_id!r}; expected "
                    f"codes for each of the {len(catalog)} items"
                )
        if len(found) > len(catalog):
            row = next(row for row in found if row >= len(catalog))
            raise SemanticIdError(
                f"{index}: entry {row} is the row of no item; the catalog ends with row "
                f"{len(catalog) - 1}"
            )
        codes = np.array([found[row] for row in range(len(catalog))], dtype=np.int32)
        return cls(codes, tuple((codes.max(axis=0) + 1).tolist()))


def code_token(level: int, code: int) -> str:
    """The token of a code, ``<a_0>`` at level 0."""
    return f"<{string.ascii_lowercase[level]}_{code}>"


def is_code_token(text: str) -> bool:
    """Whether a text is the token of some code."""
    return _TOKEN.fullmatch(text) is not None


def code_names(sizes: Sequence[int]) -> tuple[str, ...]:
    """All code tokens of codebooks of some sizes, level by level in ascending order."""
    return tuple(
        code_token(level, code) for level, size in enumerate(sizes) for code in range(size)
    )


def index_name(folder: str | Path) -> str | None:
    """Name of the data set whose index file lies in a folder; None if there is none.

    Raises:
        SemanticIdError: There are those of several.
    """
    names = sorted(path.name.removesuffix(INDEX) for path in Path(folder).glob(f"*{INDEX}"))
    if len(names) > 1:
        raise SemanticIdError(
            f"{folder}: holds the index files of {', '.join(names)}; expected those of one data set"
        )
    return names[0] if names else None


def missing_index(folder: str | Path) -> str:
    """What a folder lacks of index files, as the middle of a message; empty if nothing.

    Raises:
        SemanticIdError: There are those of several data sets.
    """
    name = index_name(folder)
    if name is None:
        return f"{folder} holds no index files ({{dataset}}{INDEX} and {{dataset}}{ITEM2ID})"
    if not (Path(folder) / f"{name}{ITEM2ID}").is_file():
        return f"{folder} holds {name}{INDEX}, but no {name}{ITEM2ID}"
    return ""


def index_files(folder: str | Path) -> dict[str, str | Path]:
    """The index files in a folder, as inputs of a run."""
    name = index_name(folder)
    return {f"index{ending}": Path(folder) / f"{name}{ending}" for ending in (INDEX, ITEM2ID)}


def load_semantic_ids(folder: str | Path, catalog: Catalog) -> SemanticIds:
    """Reads the index files in a folder, whatever the data set is called.

    Raises:
        ArtifactError: They are not those that were written.
        SemanticIdError: They are missing, or see :meth:`SemanticIds.load`.
    """
    missing = missing_index(folder)
    if missing:
        raise SemanticIdError(f"{missing}; make them for its catalog with `incatalog items assign`")
    name = index_name(folder) or ""
    verify_checksums(folder, (f"{name}{INDEX}", f"{name}{ITEM2ID}"))
    return SemanticIds.load(folder, name, catalog)


def _read_rows(path: Path) -> dict[str, tuple[int, int]]:
    """Row and line of each item of an item file."""
    try:
        text = read_text(path)
    except DataError as error:
        raise SemanticIdError(f"{error}; expected one item id and row a line") from error
    rows: dict[str, tuple[int, int]] = {}
    taken: dict[int, int] = {}
    for line, content in enumerate(text.splitlines(), start=1):
        fields = content.split()
        if not fields:
            continue
        if len(fields) != 2 or not (fields[1].isascii() and fields[1].isdigit()):
            raise SemanticIdError(
                f"{path}:{line}: found {content!r}; expected an item id, a tab and a row"
            )
        item_id, row = fields[0], int(fields[1])
        if item_id in rows or row in taken:
            what = f"item {item_id!r}" if item_id in rows else f"row {row}"
            first = rows[item_id][1] if item_id in rows else taken[row]
            raise SemanticIdError(f"{path}:{line}: {what} is already on line {first}")
        rows[item_id] = (row, line)
        taken[row] = line
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
    for line, row, found in _rows_of_codes(path, loaded):
        if row in codes:
            raise SemanticIdError(f"{path}:{line}: entry {row} is there twice; expected it once")
        codes[row] = found
    return codes


def _rows_of_codes(path: Path, loaded: Sequence[Entry]) -> Iterator[tuple[int, int, list[int]]]:
    """Line, row and codes of each entry of an index file."""
    levels = None
    for entry in loaded:
        key, tokens = entry.key, entry.value
        if not (key.isascii() and key.isdigit() and str(int(key)) == key):
            raise SemanticIdError(
                f"{path}:{entry.line}: entry {key!r} is not a row; expected a whole number"
            )
        if not isinstance(tokens, list) or not tokens:
            raise SemanticIdError(
                f"{path}:{entry.line}: entry {key}: expected a list of code tokens"
            )
        if levels is None:
            levels = len(tokens)
        if len(tokens) != levels:
            raise SemanticIdError(
                f"{path}:{entry.line}: entry {key} has {len(tokens)} codes; expected {levels} as "
                "in the first"
            )
        codes = []
        for level, token in enumerate(tokens):
            found = _TOKEN.fullmatch(token) if isinstance(token, str) else None
            if found is None or found[1] != string.ascii_lowercase[level]:
                raise SemanticIdError(
                    f"{path}:{entry.line}: entry {key} has {token!r} at level {level + 1}; "
                    f"expected a code token such as {code_token(level, 0)}"
                )
            codes.append(int(found[2]))
        yield entry.line, int(key), codes
