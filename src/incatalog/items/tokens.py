"""How an item becomes token ids: the one place where it does."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int32, Int64

from incatalog.codes.semantic_ids import SemanticIds, code_token
from incatalog.errors import CatalogError, TokenizerError
from incatalog.trie.trie import ItemTrie

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SOI = "<SOI>"  # Opens an item span.
EOI = "<EOI>"  # Closes an item span.


class ControlNames(NamedTuple):
    """What the two control tokens are called in a vocabulary."""

    soi: str = SOI
    eoi: str = EOI


OUR_NAMES = ControlNames()

_SURROGATE = re.compile("[\ud800-\udfff]")
_PROBES = (
    "The Clockmaker's Son (1979)",
    " two  spaces, then\na line",
    "Été à Nîmes – 東京 🎬",
    "1234567890 3.14 & <b>",
    "supercalifragilisticexpialidocious unbelievable Recommendations",
)


@dataclass(frozen=True, eq=False)
class ItemTokens:
    """The tokens of every item row, as they stand between the two control tokens.

    Attributes:
        flat: Token rows of all items, one after the other.
        offsets: Where each row starts; one more entry marks the end.
        soi_token_id: Id of the token that opens a span, ``<SOI>`` unless it has another name.
        eoi_token_id: Id of the token that closes it.
        tokenizer_fingerprint: See :func:`tokenizer_fingerprint`.
    """

    flat: Int32[np.ndarray, " tokens"]
    offsets: Int64[np.ndarray, " items+1"]
    soi_token_id: int
    eoi_token_id: int
    tokenizer_fingerprint: str

    def __post_init__(self) -> None:
        self.flat.flags.writeable = False
        self.offsets.flags.writeable = False

    @classmethod
    def from_titles(
        cls,
        titles: Sequence[str],
        tokenizer: PreTrainedTokenizerFast,
        control: ControlNames = OUR_NAMES,
    ) -> ItemTokens:
        """Tokenises titles as they stand right after ``<SOI>``.

        The text of a title is plain text: a special token written in it is spelled out, or the
        title is refused where the tokenizer cannot do that.

        Args:
            titles: One title an item row, best from `canonical_titles`.
            tokenizer: A fast tokenizer that has the control tokens.
            control: What they are called in it.

        Raises:
            CatalogError: There is no title.
            TokenizerError: A control token is missing, or a title does not decode to itself;
                names the item row.
        """
        if not len(titles):
            raise CatalogError("titles: the catalog is empty; expected at least one item")
        soi, eoi = control_token_ids(tokenizer, control)
        rows = encode_titles(titles, tokenizer, control)
        decoded = decode_rows(rows, tokenizer, control)
        for row, (title, text, tokens) in enumerate(zip(titles, decoded, rows, strict=True)):
            if not tokens:
                raise _refused(row, title, "has no token")
            if text != title:
                changed = f"comes back from the tokenizer as {text!r}"
                hint = "use canonical_titles to make titles that survive it"
                raise _refused(row, title, f"{changed}; {hint}")
        offsets = _offsets([len(tokens) for tokens in rows])
        flat = np.fromiter((token for tokens in rows for token in tokens), np.int32, offsets[-1])
        special = np.flatnonzero(np.isin(flat, [soi, eoi, *tokenizer.all_special_ids]))
        if len(special):
            row = int(np.searchsorted(offsets, special[0], side="right")) - 1
            token = tokenizer.convert_ids_to_tokens(int(flat[special[0]]))
            hint = "use canonical_titles to make titles of plain text"
            raise _refused(row, titles[row], f"holds the special token {token!r}; {hint}")
        return cls(flat, offsets, soi, eoi, tokenizer_fingerprint(tokenizer))

    @classmethod
    def from_codes(
        cls,
        semantic_ids: SemanticIds,
        tokenizer: PreTrainedTokenizerFast,
        control: ControlNames = OUR_NAMES,
    ) -> ItemTokens:
        """Takes the code tokens of each item, ``<a_137><b_180>…``.

        Args:
            semantic_ids: Codes of each item row.
            tokenizer: A fast tokenizer that has the control tokens and the code tokens.
            control: What the control tokens are called in it.

        Raises:
            SemanticIdError: Two items have the same codes.
            TokenizerError: A control token, or a code token of some item, is missing or not
                special; names the item row.
        """
        semantic_ids.require_unique()
        soi, eoi = control_token_ids(tokenizer, control)
        special = special_token_ids(tokenizer)
        rows = np.empty_like(semantic_ids.codes, dtype=np.int32)
        for level, size in enumerate(semantic_ids.sizes):
            ids = [special.get(code_token(level, code), -1) for code in range(size)]
            rows[:, level] = np.array(ids)[semantic_ids.codes[:, level]]
        if (rows < 0).any():
            row, level = np.argwhere(rows < 0)[0].tolist()
            token = code_token(level, int(semantic_ids.codes[row, level]))
            hint = "train a model with these semantic IDs, or assign those of the model"
            lacking = f"the tokenizer has no code token {token}"
            raise TokenizerError(f"item row {row}: {lacking}; {hint}")
        offsets = np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1]
        return cls(rows.reshape(-1), offsets, soi, eoi, tokenizer_fingerprint(tokenizer))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, row: int) -> Int32[np.ndarray, " tokens"]:
        """Tokens of an item row without the control tokens; no such row is a CatalogError."""
        if not 0 <= row < len(self):
            raise CatalogError(f"item row {row}: not in the catalog; expected 0 to {len(self) - 1}")
        return self.flat[self.offsets[row] : self.offsets[row + 1]]

    def rows(self) -> list[Int32[np.ndarray, " tokens"]]:
        """Tokens of every item row, without the control tokens."""
        return np.split(self.flat, self.offsets[1:-1])

    def with_rows(self, rows: Sequence[int], tokens: Sequence[Sequence[int]]) -> ItemTokens:
        """The same with other ``tokens`` at some rows; new rows come last, in order."""
        kept, end = [], 0
        for row, own in zip(rows, tokens, strict=True):
            start = self.offsets[min(row, len(self))]
            kept += [self.flat[self.offsets[end] : start], np.array(own, np.int32)]
            end = min(row + 1, len(self))
        kept.append(self.flat[self.offsets[end] :])
        lengths = np.zeros(max(len(self), max(rows) + 1), np.int64)
        lengths[: len(self)] = np.diff(self.offsets)
        lengths[list(rows)] = list(map(len, tokens))
        return replace(self, flat=np.concatenate(kept), offsets=_offsets(lengths))

    def span(self, row: int) -> list[int]:
        """Tokens of an item row with the control tokens around them."""
        return [self.soi_token_id, *self.row(row).tolist(), self.eoi_token_id]

    def joined(self, others: ItemTokens) -> ItemTokens:
        """These rows, then others that were made with the same tokenizer."""
        flat = np.concatenate([self.flat, others.flat])
        offsets = np.concatenate([self.offsets, others.offsets[1:] + self.offsets[-1]])
        return replace(self, flat=flat, offsets=offsets)

    def trie(self, items: Sequence[int] | None = None) -> ItemTrie:
        """The prefix tree of these rows; ``items`` has the item of each if one has several."""
        return ItemTrie.build((self.flat, self.offsets), items=items)

    def decode(self, row: int, tokenizer: PreTrainedTokenizerFast) -> str:
        """Text of an item row: its title, or its code tokens."""
        return decode_rows([self.row(row).tolist()], tokenizer, self.control(tokenizer))[0]

    def control(self, tokenizer: PreTrainedTokenizerFast) -> ControlNames:
        """What the control tokens are called in the tokenizer that these tokens were made with."""
        ids = [self.soi_token_id, self.eoi_token_id]
        return ControlNames(*tokenizer.convert_ids_to_tokens(ids))

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Makes sure that these tokens were made with ``tokenizer``; else a TokenizerError."""
        own = (self.soi_token_id, self.eoi_token_id)
        known = special_token_ids(tokenizer)
        if not set(own).issubset(known.values()):
            fault = f"the item tokens were made with the control tokens {own}, which it has not"
        elif tokenizer_fingerprint(tokenizer) == self.tokenizer_fingerprint:
            return
        else:
            reason = "its vocabulary or its rules differ"
            fault = f"not the one the item tokens were made with ({reason})"
        raise TokenizerError(f"tokenizer: {fault}; make them again for this tokenizer")


def _offsets(lengths: Sequence[int] | np.ndarray) -> Int64[np.ndarray, " items+1"]:
    return np.concatenate(([0], np.cumsum(lengths, dtype=np.int64)))


def _refused(row: int, title: str, problem: str) -> TokenizerError:
    return TokenizerError(f"item row {row}: title {title!r} {problem}")


def control_token_ids(
    tokenizer: PreTrainedTokenizerFast, control: ControlNames = OUR_NAMES
) -> tuple[int, int]:
    """Ids of the tokens that open and close item spans."""
    if not getattr(tokenizer, "is_fast", False):
        found = type(tokenizer).__name__
        raise TokenizerError(f"tokenizer: found {found}; expected a fast one of transformers")
    special = special_token_ids(tokenizer)
    for token in control:
        if token not in special:
            loader = "incatalog.model.backbone.load_backbone, which adds the control tokens"
            hint = f"load the model through {loader}"
            raise TokenizerError(f"tokenizer: has no special token {token}; {hint}")
    return special[control.soi], special[control.eoi]


def special_token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Id of each special token, by its text."""
    added = tokenizer.added_tokens_decoder.items()
    return {token.content: number for number, token in added if token.special}


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of what decides how text becomes ids: the vocabulary, and how probes are split."""
    digest = hashlib.sha256()
    for token, number in sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1]):
        digest.update(f"{number}\t{token!r}\n".encode())
    digest.update(repr(_encode(_PROBES, tokenizer)).encode())
    return digest.hexdigest()


def special_token_pattern(
    tokenizer: PreTrainedTokenizerFast, control: ControlNames = OUR_NAMES
) -> re.Pattern[str]:
    """Matches every special token of the tokenizer where its text is spelled out."""
    texts = special_token_ids(tokenizer).keys() | {*control}
    return re.compile("|".join(map(re.escape, sorted(texts - {""}, key=len, reverse=True))))


def encode_titles(
    titles: Sequence[str], tokenizer: PreTrainedTokenizerFast, control: ControlNames = OUR_NAMES
) -> list[list[int]]:
    """Tokens of each title as it stands right after ``<SOI>``, special tokens spelled out."""
    soi, _ = control_token_ids(tokenizer, control)
    special = special_token_pattern(tokenizer, control)
    spelled = {}
    for row, title in enumerate(titles):
        if _SURROGATE.search(title):
            raise _refused(row, title, "is not Unicode text; use canonical_titles")
        if special.search(title):
            spelled[row] = title
    plain = ("a" if row in spelled else title for row, title in enumerate(titles))
    first, *rows = _encode([control.soi + text for text in ("a", *plain)], tokenizer)
    rows = [row[1:] for row in rows]
    if spelled:
        # Tokenizers of the SentencePiece family mark the first word of a text, some of them only
        # at its very start. Such a tokenizer splits a title after <SOI> in another way than alone.
        # A copy spells special tokens out, as other threads use the tokenizer itself.
        backend = copy.deepcopy(tokenizer.backend_tokenizer)
        backend.encode_special_tokens = True
        alone, *own = backend.encode_batch(["a", *spelled.values()], add_special_tokens=False)
        if first != [soi, *alone.ids]:
            row = next(iter(spelled))
            lacking = f"this tokenizer cannot spell out after {control.soi}"
            held = f"holds the text of a special token, which {lacking}"
            raise _refused(row, titles[row], f"{held}; use canonical_titles")
        for row, encoding in zip(spelled, own, strict=True):
            rows[row] = encoding.ids
    return rows


def decode_rows(
    rows: Sequence[Sequence[int]],
    tokenizer: PreTrainedTokenizerFast,
    control: ControlNames = OUR_NAMES,
) -> list[str]:
    """Text of each row of token ids as it stands right after ``<SOI>``, special tokens included.

    A space that the tokenizer itself puts before the first word is not part of the text.
    """
    [probe] = _encode([f"{control.soi}a"], tokenizer)
    first, *decoded = tokenizer.backend_tokenizer.decode_batch(
        [probe[1:], *map(list, rows)], skip_special_tokens=False
    )
    return [text.removeprefix(" ") for text in decoded] if first == " a" else decoded


def token_rows(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, **how: bool
) -> list[list[int]]:
    """Tokens of each text, without a mask or a warning about its length."""
    quiet = {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
    rows: list[list[int]] = tokenizer(list(texts), **quiet, **how)["input_ids"]
    return rows


def _encode(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> list[list[int]]:
    return token_rows(texts, tokenizer, add_special_tokens=False, split_special_tokens=False)
