"""What an answer of a language model names, read from its tokens as they are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from incatalog.codes.semantic_ids import is_code_token
from incatalog.config import ListForm
from incatalog.data.naming import TITLE
from incatalog.items.aliases import Aliases
from incatalog.items.tokens import ItemTokens, decode_rows, encode_titles, special_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from incatalog.data.catalog import Catalog
    from incatalog.recommender.items import ModelItems

_LIST_LINE = re.compile(r"\s*(?:\d+\s*[.):]|[-*•–])\s+(\S.*)")
_QUOTES = "'\"`*“”‘’«» \t"


class Named(NamedTuple):
    """One thing an answer names, in order."""

    text: str  # The title of an item that stands in a span; anything else as written.
    row: int | None  # None if no item of the catalog is called that.
    probability: float | None = None  # That it comes next, where a ranking says so.


class AnswerReader:
    """Reads answers with one tokenizer and one catalog.

    An answer names what stands in its item spans, and what a line of a list without a span says: a
    line with a number or a bullet, and, where the model writes plain lists, every line that does
    not end with a colon. A name is an item of the catalog if it equals its title, an alias or its
    codes; on lines outside spans quotes around it do not count. Items in spans are told by their
    titles, whatever the model knows them by.
    """

    def __init__(
        self,
        catalog: Catalog,
        titles: Sequence[str],
        item_tokens: ItemTokens,
        tokenizer: PreTrainedTokenizerFast,
        list_form: ListForm,
        aliases: Aliases | None = None,
    ) -> None:
        """Takes what stands in a span for each row, and its tokens."""
        aliases = aliases or Aliases()
        self._soi, self._eoi = item_tokens.soi_token_id, item_tokens.eoi_token_id
        self._tokenizer, self._list_form = tokenizer, list_form
        self._titles = told_titles(catalog, titles)
        spans = [tokens.tolist() for tokens in item_tokens.rows()]
        self._row_of_tokens = {tuple(tokens): row for row, tokens in enumerate(spans)}
        self._control = item_tokens.control(tokenizer)
        spelled = encode_titles(aliases.texts, tokenizer, self._control) if aliases else []
        for row, own in zip(aliases.rows, spelled, strict=True):
            self._row_of_tokens.setdefault(tuple(own), row)
        special = special_token_ids(tokenizer)
        # A code outside a span names something too; other special tokens are silent.
        codes = {number for token, number in special.items() if is_code_token(token)}
        self._silent = {*tokenizer.all_special_ids, *special.values()} - codes
        written = decode_rows(spans, tokenizer, self._control) if codes else []
        named = zip(aliases.rows, aliases.texts, strict=True)
        self._row_of_title: dict[str, int] = {}
        for titled in (enumerate(titles), enumerate(catalog.titles), named, enumerate(written)):
            for row, title in titled:
                self._row_of_title.setdefault(title, row)

    @classmethod
    def of(cls, items: ModelItems, list_form: ListForm) -> AnswerReader:
        """Reads the answers of the model that writes these items."""
        catalog, tokenizer = items.catalog, items.tokenizer
        return cls(catalog, catalog.titles_t, items.tokens, tokenizer, list_form, items.aliases)

    def read(self, token_ids: Sequence[int], *, truncated: bool = False) -> tuple[Named, ...]:
        """What one answer names; a span or line that is cut off names nothing yet."""
        lines: list[list[Named | str]] = [[]]
        for piece in self.pieces(token_ids, truncated):
            first, *others = [piece] if isinstance(piece, Named) else piece.split("\n")
            lines[-1].append(first)
            lines += [[text] for text in others]
        if truncated and not any(isinstance(piece, Named) for piece in lines[-1]):
            lines.pop()
        return tuple(named for line in lines for named in self._named(line))

    def pieces(self, token_ids: Sequence[int], truncated: bool) -> list[Named | str]:
        """The answer as text and what stands in its spans, in turn."""
        pieces: list[Named | str] = []
        run: list[int] = []
        inside = False

        def end_of_run() -> None:
            if inside:
                pieces.append(self._span(run))
            elif run:
                pieces.append(self._decode(run))
            run.clear()

        for token in token_ids:
            if token == self._soi or (token == self._eoi and inside):
                end_of_run()
                inside = token == self._soi
            elif token != self._eoi:
                run.append(token)
        if not (inside and truncated):
            end_of_run()
        return pieces

    def _span(self, tokens: Sequence[int]) -> Named:
        if not tokens:
            return Named("", None)
        row = self._row_of_tokens.get(tuple(tokens))
        if row is not None:
            return Named(self._titles[row], row)
        [text] = decode_rows([tokens], self._tokenizer, self._control)
        return Named(text, self._row_of_title.get(text))

    def _decode(self, tokens: Sequence[int]) -> str:
        spoken = [token for token in tokens if token not in self._silent]
        return str(self._tokenizer.decode(spoken, skip_special_tokens=False))

    def _named(self, line: Sequence[Named | str]) -> list[Named]:
        """What a line names: its spans, or else an entry of a list."""
        if spans := [piece for piece in line if isinstance(piece, Named)]:
            return spans
        text = "".join(piece for piece in line if isinstance(piece, str)).strip()
        found = _LIST_LINE.fullmatch(text)
        if found is None and (self._list_form != "plain" or not text or text.endswith(":")):
            return []
        name = found[1] if found is not None else text
        bare = name.strip(_QUOTES)
        row = self._row_of_title.get(name, self._row_of_title.get(bare))
        return [Named(bare or name, row)]


def told_titles(catalog: Catalog, written: Sequence[str]) -> Sequence[str]:
    """How items are told of: by titles as the model writes them, which are unique, or as published.

    People know the latter where the model knows items by another field.
    """
    return written if catalog.title_field == TITLE else catalog.titles


def id_of(catalog: Catalog, row: int | None) -> str | None:
    """Id of a named item; None if no item of the catalog is called that."""
    return None if row is None else catalog.item(row).item_id


def entries(named: Sequence[Named]) -> list[int]:
    """An answer as the metrics take it: rows, and a negative number for each other name."""
    others: dict[str, int] = {}
    return [
        one.row if one.row is not None else others.setdefault(one.text, -1 - len(others))
        for one in named
    ]
