"""The control tokens of a generation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from incatalog.errors import TokenizerError
from incatalog.trie.trie import ItemTrie


@dataclass(frozen=True)
class ControlTokens:
    """The token ids with a meaning of their own."""

    soi: int  # opens an item span
    eoi: int  # closes an item span
    stop: frozenset[int]  # each of these ends the answer


def check_control_tokens(
    trie: ItemTrie, soi: int, eoi: int, stop: Collection[int]
) -> ControlTokens:
    """The control tokens, if they are different and no item contains one of them."""
    control = ControlTokens(soi, eoi, frozenset(stop))
    if soi == eoi or {soi, eoi} & control.stop:
        raise TokenizerError(
            f"control tokens: found {soi} to open spans, {eoi} to close them and stop tokens "
            f"{sorted(stop)}; expected them to be different"
        )
    for name, token in (
        ("opening token", soi),
        ("closing token", eoi),
        *(("stop token", t) for t in stop),
    ):
        if trie.contains_token(token):
            raise TokenizerError(
                f"{name} {token}: found it in the tokens of an item; "
                "expected items to be tokenised as plain text"
            )
    return control


def open_span(ids: Sequence[int], soi: int, eoi: int) -> int | None:
    """Place of the token that opens the span a text ends in; None if it ends in none.

    The last control token decides: what was opened further back and not closed is ordinary text.
    """
    for place in range(len(ids) - 1, -1, -1):
        if ids[place] in (soi, eoi):
            return place if ids[place] == soi else None
    return None
