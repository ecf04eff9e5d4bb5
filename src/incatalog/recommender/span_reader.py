"""Items in text that a trained model wrote, for clients that get its tokens as text.

A server such as plain `vllm serve` writes an item as the model does: a title or codes between the
two control tokens, which it has to leave in (`skip_special_tokens: false`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from incatalog.codes.semantic_ids import load_semantic_ids
from incatalog.data.catalog import Catalog
from incatalog.data.model_catalog import model_catalog
from incatalog.errors import SpanError
from incatalog.items.aliases import Aliases
from incatalog.items.tokens import ControlNames
from incatalog.model.hub import on_disk
from incatalog.model.spec import load_spec, require_spans

_SHOWN = 60


@dataclass(frozen=True)
class WrittenItem:
    """An item in a text.

    Attributes:
        item_id: Its id.
        title: Its title as published.
        start: Where the title begins in the text.
        end: Where it ends.
    """

    item_id: str
    title: str
    start: int
    end: int


@dataclass(frozen=True)
class ReadText:
    """A text with titles in place of item spans, and the items in it, in order."""

    text: str
    items: tuple[WrittenItem, ...]


@dataclass(frozen=True, eq=False)
class SpanReader:
    """Reads the items of one catalog from what a model wrote of them.

    Attributes:
        catalog: The items.
        control: What opens and closes a span.
        rows: Item row by what stands in its span; of several that are written alike, the first.
    """

    catalog: Catalog
    control: ControlNames
    rows: Mapping[str, int]

    @classmethod
    def from_pretrained(cls, folder: str | Path, revision: str | None = None) -> SpanReader:
        """Reads the catalog beside a trained model; its weights and tokenizer are not touched.

        Args:
            folder: Folder of a trained model, or its name on the Hugging Face hub.
            revision: Branch, tag or commit of a model on the hub; its main branch if None.

        Raises:
            BackboneError: It was not trained to write spans.
            IncatalogError: The catalog, its codes or its other names are missing or damaged.
        """
        folder = on_disk(folder, revision)
        spec = load_spec(folder)
        require_spans(folder, spec)
        catalog = model_catalog(folder)
        rows: dict[str, int] = {}
        if spec.item_form == "codes":
            codes = load_semantic_ids(folder, catalog)
            for row in range(len(catalog)):
                rows.setdefault("".join(codes.tokens(row)), row)
        else:
            for row, title in enumerate(catalog.titles_t):
                rows.setdefault(title, row)
            aliases = Aliases.load(folder, catalog, spec.aliases)
            for row, alias in zip(aliases.rows, aliases.texts, strict=True):
                rows.setdefault(alias, row)
        return cls(catalog, spec.control, rows)

    def read(self, text: str) -> ReadText:
        """The text as people read it, and its items.

        A span at the end that is still open is left out: the answer was cut there.

        Raises:
            SpanError: A span holds what is no item of the catalog, or opens within another: what
                wrote it was not held to the catalog. Or something closes a span that none opens.
        """
        soi, eoi = self.control
        plain, items = list[str](), list[WrittenItem]()
        length = 0
        before, *spans = text.split(soi)
        self._check_outside(before)
        plain.append(before)
        length += len(before)
        for number, span in enumerate(spans, start=1):
            written, closes, behind = span.partition(eoi)
            if not closes:
                if number < len(spans):
                    raise self._no_item(written, "opens another span")
                break
            item = self.catalog.item(self._row(written))
            items.append(WrittenItem(item.item_id, item.title, length, length + len(item.title)))
            self._check_outside(behind)
            plain += [item.title, behind]
            length += len(item.title) + len(behind)
        return ReadText("".join(plain), tuple(items))

    def _row(self, written: str) -> int:
        """The item that stands in a span."""
        row = self.rows.get(written)
        if row is None:
            # Some servers write a space at each side of a special token.
            row = self.rows.get(written.strip(), self.rows.get("".join(written.split())))
        if row is None:
            raise self._no_item(written, f"is no item of {self.catalog.name}")
        return row

    def _check_outside(self, text: str) -> None:
        if self.control.eoi in text:
            raise self._no_item(text, f"holds {self.control.eoi}, and no span is open")

    def _no_item(self, text: str, why: str) -> SpanError:
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        hint = "ask a server that holds its answers to this catalog (docs/vllm.md)"
        return SpanError(f"text: {shown!r} {why}; {hint}")
