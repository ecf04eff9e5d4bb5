"""Other spellings of a catalog's items, each of which names one item only."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from incatalog.checksums import verify_checksums
from incatalog.data.catalog import Catalog
from incatalog.data.documents import json_lines, write_lines
from incatalog.errors import DataError
from incatalog.items.titles import canonical_spellings
from incatalog.items.tokens import OUR_NAMES, ControlNames

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


ALIASES = "aliases.jsonl"  # Stands beside a trained model.
_PARAPHRASES = "paraphrases"
_AGAIN = "write them again for this catalog with `incatalog rewrite apply`"


@dataclass(frozen=True)
class Aliases:
    """Spellings of items besides their titles, all different, in the form the model writes."""

    rows: tuple[int, ...] = ()  # Item row of each, ascending.
    texts: tuple[str, ...] = ()

    @classmethod
    def of_pairs(cls, pairs: Iterable[tuple[int, str]]) -> Aliases:
        """Aliases of item rows and spellings; those of one item keep their order."""
        pairs = sorted(pairs, key=itemgetter(0))
        return cls(tuple(row for row, _ in pairs), tuple(text for _, text in pairs))

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
        """The aliases of all items but some."""
        gone = set(rows)
        if gone.isdisjoint(self.rows):
            return self
        pairs = zip(self.rows, self.texts, strict=True)
        return Aliases.of_pairs(pair for pair in pairs if pair[0] not in gone)

    def save(self, folder: str | Path, catalog: Catalog) -> None:
        """Writes :data:`ALIASES`, a line for each item that has some, atomically."""
        lines = (
            {"item_id": catalog.item(row).item_id, "aliases": [self.texts[n] for n in numbers]}
            for row, numbers in self.of_row.items()
        )
        write_lines(Path(folder) / ALIASES, lines)

    @classmethod
    def load(cls, folder: str | Path, catalog: Catalog, count: int) -> Aliases:
        """Reads the ``count`` aliases beside a trained model; without any, no file is read."""
        if not count:
            return cls()
        path = Path(folder) / ALIASES
        found = cls.of_pairs(_pairs(path, catalog, "aliases"))
        if len(found) != count:
            message = f"holds {len(found)} aliases; expected the {count} of the training"
            raise DataError.at(path, message)
        texts = set(found.texts)
        if len(texts) < count or not texts.isdisjoint(catalog.titles_taken):
            wrong = "is there twice or is the title of an item"
            raise DataError.at(path, f"a spelling {wrong}; expected it to name one")
        return found


class Paraphrases(NamedTuple):
    """What a file of paraphrases gives: the usable ones, and how many others there are."""

    aliases: Aliases
    repeated: int  # Once cleaned, a title or an earlier paraphrase.
    unusable: int  # Empty once cleaned, or impossible for the tokenizer.


def load_paraphrases(
    path: str | Path,
    catalog: Catalog,
    tokenizer: PreTrainedTokenizerFast,
    control: ControlNames = OUR_NAMES,
) -> Paraphrases:
    """Reads the paraphrases of `incatalog rewrite apply` in the form a model writes.

    They are cleaned and made stable as titles are. One that is then the title of some item or a
    paraphrase that came before, or that the tokenizer cannot spell, is left out and counted.
    """
    pairs = sorted(_pairs(Path(path), catalog, _PARAPHRASES), key=itemgetter(0))
    items = [catalog.item(row) for row, _ in pairs]
    texts = canonical_spellings(items, [text for _, text in pairs], tokenizer, control)
    taken = set(catalog.titles_taken)
    kept: list[tuple[int, str]] = []
    repeated = 0
    for (row, _), text in zip(pairs, texts, strict=True):
        if text is not None and text not in taken:
            taken.add(text)
            kept.append((row, text))
        elif text is not None:
            repeated += 1
    if not kept:
        none = "holds no paraphrase that differs from all titles"
        raise DataError.at(path, f"{none}; {_AGAIN}")
    return Paraphrases(Aliases.of_pairs(kept), repeated, len(pairs) - len(kept) - repeated)


def paraphrase_texts(path: str | Path, catalog: Catalog) -> tuple[str, ...]:
    """The paraphrases of a file as they stand in it, from which a tokenizer may learn."""
    return tuple(text for _, text in paraphrase_pairs(path, catalog))


def paraphrase_pairs(path: str | Path, catalog: Catalog) -> list[tuple[int, str]]:
    """Item row and paraphrase of each as they stand in a file, those of an item in their order."""
    return _pairs(Path(path), catalog, _PARAPHRASES)


def _pairs(path: Path, catalog: Catalog, field: str) -> list[tuple[int, str]]:
    """Item row and spelling of each, in the order of the file."""
    first: dict[str, int] = {}
    found: list[tuple[int, str]] = []
    verify_checksums(path.parent, (path.name,))
    for place, value in json_lines(path):
        item_id, texts = value.get("item_id"), value.get(field)
        if not isinstance(item_id, str):
            raise place.error(f"item_id: found {item_id!r}; expected text")
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise place.error(f"{field}: found {texts!r}; expected a list of texts")
        item = f"item {item_id!r}"
        if item_id in first:
            raise place.error(f"{item} is already on line {first[item_id]}; expected it once")
        first[item_id] = place.line
        if not catalog.has(item_id):
            raise place.error(f"{item} is not in the catalog; {_AGAIN}")
        row = catalog.row(item_id)
        own = catalog.item(row)
        # They may be those of the title or of what a model knows the item by.
        if field == _PARAPHRASES and value.get("title", own.title) not in (own.title, own.called):
            named = f"{item} is called {value['title']!r}"
            raise place.error(f"{named}; in the catalog it is {own.called!r}; {_AGAIN}")
        found += ((row, text) for text in texts)
    return found
