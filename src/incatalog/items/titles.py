"""Titles that name exactly one item and survive the tokenizer."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from typing import TYPE_CHECKING

from incatalog.data.catalog import Catalog, Item
from incatalog.data.cleaning import clean_title
from incatalog.errors import DataError, TokenizerError
from incatalog.items.tokens import (
    OUR_NAMES,
    ControlNames,
    control_token_ids,
    decode_rows,
    encode_titles,
    special_token_pattern,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


_ROUNDS = 5
_PLAIN = "one two (3)"
# How many endings are tried to tell an item from others, as the tokenizer may lose them.
_MOST_TRIES = 1000


def canonical_titles(
    catalog: Catalog, tokenizer: PreTrainedTokenizerFast, control: ControlNames = OUR_NAMES
) -> tuple[str, ...]:
    """A title for every item row, fit to stand in a span.

    It is made from what a model is to know the item by (`Item.called`). Titles are cleaned (HTML
    entities, white space, unprintable characters, Unicode composition; the text of a special token
    is broken by a space), stable under tokenize→decode, and unique: of several items with one title
    the first keeps it, the others get a category that tells them apart, or else a number, after it.
    """
    speller = _Speller(tokenizer, control)
    items = catalog.items
    titles = speller.stable(items, [item.called for item in items])
    for _ in range(_ROUNDS):
        proposed = told_apart(items, titles)
        if not proposed:
            return tuple(titles)
        stable = speller.stable([items[row] for row in proposed], list(proposed.values()))
        for row, title in zip(proposed, stable, strict=True):
            titles[row] = title
    row = next(iter(told_apart(items, titles)))
    raise _same_title(items[row], titles[row])


def canonical_spellings(
    items: Sequence[Item],
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerFast,
    control: ControlNames = OUR_NAMES,
) -> list[str | None]:
    """Other names of items, cleaned and stable as :func:`canonical_titles` are, but not unique.

    None stands for one that is empty once cleaned or that the tokenizer cannot spell.
    """
    settled, refused = _Speller(tokenizer, control).settle(items, texts)
    return [None if row in refused else text for row, text in enumerate(settled)]


def new_titles(
    items: Sequence[Item],
    taken: Collection[str],
    tokenizer: PreTrainedTokenizerFast,
    control: ControlNames = OUR_NAMES,
) -> list[str]:
    """Titles of items that join a catalog, as :func:`canonical_titles`; none is in ``taken``."""
    speller = _Speller(tokenizer, control)
    found: dict[str, None] = {}
    # The next number of each title, as thousands of items may share one.
    numbers: dict[str, Iterator[int]] = defaultdict(lambda: itertools.count(2))
    titles = speller.stable(items, [item.called for item in items])
    for item, title in zip(items, titles, strict=True):
        endings = itertools.chain(item.categories, map(str, numbers[title]))
        # What it was called before, among these items or those of another process.
        known = item.title_t is not None and item.title_t.startswith(title)
        before = [str(item.title_t)] if known else []
        several = (f"{title} ({ending})" for ending in endings)
        proposed = itertools.chain(before, [title], several)
        unused = (text for text in proposed if text not in taken and text not in found)
        for text in itertools.islice(unused, _MOST_TRIES):
            [stable] = speller.stable([item], [text])
            if stable not in taken and stable not in found:
                found[stable] = None
                break
        else:
            raise _same_title(item, title)
    return list(found)


def _same_title(item: Item, title: str) -> DataError:
    shared = f"title {title!r} is that of another item too"
    lost = "the tokenizer loses what would tell them apart; give the item a title of its own"
    return DataError(f"item {item.item_id!r}: {shared}, and {lost}")


class _Speller:
    """Makes titles that a tokenizer can spell."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, control: ControlNames) -> None:
        control_token_ids(tokenizer, control)
        self._tokenizer, self._control = tokenizer, control
        # Special tokens, and the added tokens that look like markup.
        plain = [one.content for one in tokenizer.added_tokens_decoder.values() if not one.special]
        markers = {text for text in plain if len(text) > 1 and text[0] in "<["}
        longest_first = map(re.escape, sorted(markers, key=len, reverse=True))
        special = special_token_pattern(tokenizer, control).pattern
        self._markup = re.compile("|".join([special, *longest_first]))
        # Ids for text without a token of its own; most tokenizers have none.
        model = tokenizer.backend_tokenizer.model
        unknown = {tokenizer.unk_token, getattr(model, "unk_token", None)} - {None}
        self._unknown = {tokenizer.convert_tokens_to_ids(name) for name in unknown}

    def stable(self, items: Sequence[Item], titles: Sequence[str]) -> list[str]:
        """Cleaned titles that decode to themselves; refuses one that does not."""
        settled, refused = self.settle(items, titles)
        for message in refused.values():
            raise DataError(message)
        return settled

    def settle(
        self, items: Sequence[Item], titles: Sequence[str]
    ) -> tuple[list[str], dict[int, str]]:
        """Cleaned titles that decode to themselves, and by row why some do not."""
        settled = [self._clean(title) for title in titles]
        refused: dict[int, str] = {}

        def refuse(row: int, reason: str) -> None:
            refused[row] = f"item {items[row].item_id!r}: title {titles[row]!r} {reason}"

        pending = list(range(len(titles)))
        for _ in range(_ROUNDS):
            for row in pending:
                if not settled[row]:
                    way_out = "give the item a title or leave it out"
                    refuse(row, f"is empty once cleaned; expected text; {way_out}")
            pending = [row for row in pending if row not in refused]
            if not pending:
                return settled, refused
            encoded, decoded = self._both([settled[row] for row in pending])
            rows, pending = pending, []
            for row, tokens, text in zip(rows, encoded, decoded, strict=True):
                if self._unknown.intersection(tokens):
                    lacking = "holds something this tokenizer has no token for"
                    refuse(row, f"{lacking}; give the item a title it can spell")
                elif text != settled[row]:
                    pending.append(row)
                    settled[row] = self._clean(text)
        if pending:
            self._require_kept_text()
        for row in pending:
            hint = "give the item a title this tokenizer can spell"
            refuse(row, f"changes each time it is tokenised and decoded; {hint}")
        return settled, refused

    def _both(self, texts: Sequence[str]) -> tuple[list[list[int]], list[str]]:
        """The tokens of titles, and what they decode to."""
        encoded = encode_titles(texts, self._tokenizer, self._control)
        return encoded, decode_rows(encoded, self._tokenizer, self._control)

    def _clean(self, title: str) -> str:
        """One title without entities, odd white space or the text of a special token."""
        title = clean_title(title)
        while found := self._markup.search(title):
            text = found.group()
            title = title.replace(text, f"{text[0]} {text[1:]}" if len(text) > 1 else "")
        return title.strip()

    def _require_kept_text(self) -> None:
        """Refuses a tokenizer that changes even the plainest text each time."""
        text = _PLAIN
        for _ in range(_ROUNDS):
            _, [found] = self._both([text])
            if found == text:
                return
            text = " ".join(found.split())
        changed = f"{_PLAIN!r} comes back from it as {text!r}, and with more changes each time"
        hint = "no title can be written with it; choose a model whose tokenizer keeps text"
        raise TokenizerError(f"tokenizer: {changed}; {hint}")


def told_apart(items: Sequence[Item], titles: Sequence[str]) -> dict[int, str]:
    """A new title for each item row but the first of those that share one."""
    sharing: dict[str, list[int]] = defaultdict(list)
    for row, title in enumerate(titles):
        sharing[title].append(row)
    used = set(sharing)
    proposed: dict[int, str] = {}
    for title, rows in sharing.items():
        if len(rows) == 1:
            continue
        numbers = itertools.count(2)
        # How many of these items are in each category.
        sharers = Counter(name for row in rows for name in set(items[row].categories))
        for row in rows[1:]:
            telling = [name for name in items[row].categories if sharers[name] == 1]
            candidates = itertools.chain(telling[:1], map(str, numbers))
            named = (f"{title} ({ending})" for ending in candidates)
            proposed[row] = next(name for name in named if name not in used)
            used.add(proposed[row])
    return proposed
