"""Other spellings of a catalog's items, each of which names one item only."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from incatalog.artifacts import atomic_path
from incatalog.checksums import verify_checksums
from incatalog.data.documents import json_lines
from incatalog.errors import DataError
from incatalog.items.titles import canonical_spellings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from incatalog.data.catalog import Catalog

ALIASES = "aliases.jsonl"
"""Name of the file beside a trained model."""
_PARAPHRASES = "paraphrases"
_AGAIN = "write them again for this catalog with `incatalog rewrite apply`"


@dataclass(frozen=True)
class Aliases:
    """Spellings of items besides their titles, in the form the model writes."""

    rows: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def of_row(self) -> dict[int, tuple[int, ...]]:
        """Numbers of the aliases of each item row that has some."""
        found: dict[int, list[int]] = {}
        for number, row in enumerate(self.rows):
            found.setdefault(row, []).append(number)
        return {row: tuple(numbers) for row, numbers in found.items()}

    def items(self, num_items: int) -> list[int]:
        """Item row of each spelling: all titles, then all aliases."""
        return [*range(num_items), *self.rows]

    def without(self, rows: Collection[int]) -> Aliases:
        """Those of all items but some."""
        gone = set(rows)
        if gone.isdisjoint(self.rows):
            return self
        kept = [place for place, row in enumerate(self.rows) if row not in gone]
        return Aliases(
            tuple(self.rows[place] for place in kept), tuple(self.texts[place] for place in kept)
        )

    def save(self, folder: str | Path, catalog: Catalog) -> None:
        """Writes :data:`ALIASES`, a line for each item that has some, atomically."""
        with (
            atomic_path(Path(folder) / ALIASES) as partial,
            partial.open("w", encoding="utf-8") as stream,
        ):
            for row, numbers in self.of_row.items():
                texts = [self.texts[number] for number in numbers]
                line = {"item_id": catalog.item(row).item_id, "aliases": texts}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, folder: str | Path, catalog: Catalog, count: int) -> Aliases:
        """Reads the aliases beside a trained model."""
        if not count:
            return cls()
        path = Path(folder) / ALIASES
        found = [
            (line.row, text) for line in _lines(path, catalog, "aliases") for text in line.texts
        ]
        found.sort(key=lambda pair: pair[0])
        texts = tuple(text for _, text in found)
        if len(texts) != count:
            raise DataError.at(
                path, f"holds {len(texts)} aliases; expected the {count} of the training"
            )
        if len(set(texts)) < count or not set(texts).isdisjoint(catalog.titles_taken):
            raise DataError.at(
                path,
                "a spelling is there twice or is the title of an item; expected it to name one",
            )
        return cls(tuple(row for row, _ in found), texts)


class Paraphrases(NamedTuple):
    """What a file of paraphrases gives."""

    aliases: Aliases
    repeated: int
    unusable: int


def load_paraphrases(
    path: str | Path, catalog: Catalog, tokenizer: PreTrainedTokenizerFast
) -> Paraphrases:
    """Reads the paraphrases of `incatalog rewrite apply` in the form a model writes.

    They are cleaned and made stable as titles are. What is then the title of some item, a
    paraphrase that came before, or nothing the tokenizer can spell, is left out and counted.
    """
    lines = sorted(_lines(Path(path), catalog, _PARAPHRASES), key=lambda line: line.row)
    rows = [line.row for line in lines for _ in line.texts]
    texts = canonical_spellings(
        [catalog.item(row) for row in rows],
        [text for line in lines for text in line.texts],
        tokenizer,
    )
    usable = [(row, text) for row, text in zip(rows, texts, strict=True) if text is not None]
    taken = set(catalog.titles_taken)
    kept: list[tuple[int, str]] = []
    for row, text in usable:
        if text not in taken:
            taken.add(text)
            kept.append((row, text))
    if not kept:
        raise DataError.at(
            Path(path), f"holds no paraphrase that differs from all titles; {_AGAIN}"
        )
    aliases = Aliases(tuple(row for row, _ in kept), tuple(text for _, text in kept))
    return Paraphrases(aliases, len(usable) - len(kept), len(rows) - len(usable))


def paraphrase_texts(path: str | Path, catalog: Catalog) -> tuple[str, ...]:
    """The paraphrases of a file as they stand in it, from which a tokenizer may learn."""
    lines = _lines(Path(path), catalog, _PARAPHRASES)
    return tuple(text for line in lines for text in line.texts)


class _Line(NamedTuple):
    """The spellings of one item."""

    row: int
    texts: Sequence[str]


def _lines(path: Path, catalog: Catalog, field: str) -> list[_Line]:
    lines: dict[str, int] = {}
    found = []
    verify_checksums(path.parent, (path.name,))
    for number, value in json_lines(path):
        item_id, texts = _checked(path, number, value, field)
        if item_id in lines:
            raise DataError.at(
                path,
                f"item {item_id!r} is already on line {lines[item_id]}; expected it once",
                line=number,
            )
        lines[item_id] = number
        if not catalog.has(item_id):
            raise DataError.at(
                path, f"item {item_id!r} is not in the catalog; {_AGAIN}", line=number
            )
        row = catalog.row(item_id)
        title = catalog.item(row).title
        if field == _PARAPHRASES and value.get("title", title) != title:
            raise DataError.at(
                path,
                f"item {item_id!r} is called {value['title']!r}; in the catalog it is {title!r}; "
                f"{_AGAIN}",
                line=number,
            )
        found.append(_Line(row, texts))
    return found


def _checked(path: Path, line: int, value: dict[str, Any], field: str) -> tuple[str, list[str]]:
    """Item id and spellings of a line."""
    item_id, texts = value.get("item_id"), value.get(field)
    if not isinstance(item_id, str):
        raise DataError.at(path, f"item_id: found {item_id!r}; expected text", line=line)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError.at(path, f"{field}: found {texts!r}; expected a list of texts", line=line)
    return item_id, texts
