"""A tokenizer in which text cannot spell a control token."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from incatalog.errors import DataError, TokenizerError

_MARKUP = re.compile(r"[<\[{|｜].*[>\]}|｜]", re.DOTALL)


class Mark(NamedTuple):
    """A protected token of a text; where it opens an item span, with the item's row."""

    token: int
    row: int | None = None


class GuardedTokenizer:
    """A copy of a tokenizer whose protected tokens have names that nobody can guess.

    Protected are all special tokens, and every other added token that looks like markup: it stands
    in angle, square or curly brackets or in bars, as code tokens, tool and thinking markers do.

    To split special tokens when text is encoded would not be enough: that leaves added tokens alone
    that are not flagged special, and a SentencePiece vocabulary lists ``</s>`` as an ordinary
    piece. New names in vocabulary, merges and added tokens change nothing else: all other text
    keeps its tokens, and a whole conversation is encoded as one string, as its template means it.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        """Copies and renames; the tokenizer itself is not changed."""
        description = json.loads(tokenizer.backend_tokenizer.to_str())
        special = set(tokenizer.all_special_ids)
        protected = {
            token["content"]: int(token["id"])
            for token in description["added_tokens"]
            if token["special"] or token["id"] in special or _MARKUP.fullmatch(token["content"])
        }
        secret = secrets.token_hex(16)
        self._names = {content: f"<|{secret}:{number}|>" for content, number in protected.items()}
        unknown = _rename(description, self._names)
        self._backend = Tokenizer.from_str(json.dumps(description))
        for content, token_id in protected.items():
            if self._backend.token_to_id(self._names[content]) != token_id:
                found = f"token {content!r} has id {token_id} but cannot be renamed in place"
                hint = "save the tokenizer anew with save_pretrained and load that"
                raise TokenizerError(f"{found}; {hint}")
        longest_first = sorted(protected, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._name_pattern = re.compile(rf"<\|{secret}:(\d+)\|>")
        vocabulary = description["model"]["vocab"]
        in_model = len(vocabulary) if isinstance(vocabulary, list) else max(vocabulary.values()) + 1
        added = (token["id"] + 1 for token in description["added_tokens"])
        self._is_protected = np.zeros(max(in_model, *added), dtype=np.bool_)
        self._is_protected[list(protected.values())] = True
        # A model without byte fallback uses it for letters it does not know, so text may hold it.
        self._unknown = unknown
        self._is_protected[[] if unknown is None else unknown] = False

    def name(self, token: str) -> str:
        """The string that encodes to the protected token `token`."""
        return self._names[token]

    def activate(self, text: str) -> str:
        """Writes the protected tokens of trusted text, as of a chat template, by their names."""
        return self._pattern.sub(lambda match: self.name(match.group()), text)

    def marks(self, text: str) -> tuple[Mark, ...]:
        """The protected tokens in a text returned by `activate`, in order."""
        found = (int(match.group(1)) for match in self._name_pattern.finditer(text))
        return tuple(Mark(token_id) for token_id in found if token_id != self._unknown)

    def first_activated_end(self, text: str) -> int | None:
        """Where the first protected token of an activated text ends; None if it has none."""
        match = self._name_pattern.search(text)
        return match.end() if match else None

    def encode(self, text: str) -> Encoding:
        """Encodes text, without the tokens that the tokenizer would add around it."""
        try:
            return self._backend.encode(text, add_special_tokens=False)
        except (TypeError, UnicodeEncodeError) as error:
            found = "a message is not valid Unicode text (half of a surrogate pair?)"
            hint = "clean it with text.encode('utf-8', 'replace').decode()"
            raise DataError(f"{found}; {hint}") from error

    def positions(self, token_ids: np.ndarray) -> np.ndarray:
        """Positions of protected tokens in `token_ids`, ascending."""
        return np.flatnonzero(self._is_protected[token_ids])


def _rename(description: dict[str, Any], renamed: dict[str, str]) -> int | None:
    """Renames tokens in a tokenizer.json and returns the id of the model's unknown token."""
    for token in description["added_tokens"]:
        token["content"] = renamed.get(token["content"], token["content"])
    description.update(post_processor=None, truncation=None, padding=None)

    model = description["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, list):
        model["vocab"] = [[renamed.get(piece, piece), score] for piece, score in vocabulary]
        unknown: int | None = model.get("unk_id")
        return unknown
    shared = renamed.keys() & vocabulary.keys()
    model["vocab"] = {renamed.get(piece, piece): i for piece, i in vocabulary.items()}
    if shared and model.get("merges"):
        model["merges"] = [merge for merge in model["merges"] if not _merge_pieces(merge) & shared]
    token = model.get("unk_token")
    unknown = vocabulary.get(token)
    if token is not None:
        model["unk_token"] = renamed.get(token, token)
    return unknown


def _merge_pieces(merge: str | list[str]) -> set[str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return {left, right, left + right}
