"""Random tiny models and catalogs for the tests of decoding, and slow, obvious references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM

PAD, SOI, EOI, STOP = 0, 1, 2, 3
FIRST_WORD = 4
VOCAB = 12


@cache
def make_model(seed: int) -> Any:
    """A Llama with strong opinions that opens an item span about every other time it may."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.6,
        pad_token_id=PAD,
        bos_token_id=None,
        eos_token_id=STOP,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[SOI] *= 2
        model.lm_head.weight[EOI] *= 2
    return model


words = st.integers(FIRST_WORD, VOCAB - 1)
# Few tokens and short rows: shared prefixes, prefixes of other rows and duplicates are frequent.
token_rows = st.lists(
    st.lists(st.integers(FIRST_WORD, FIRST_WORD + 2) | words, min_size=1, max_size=5),
    min_size=1,
    max_size=12,
)


def spelled_rows() -> st.SearchStrategy[tuple[list[list[int]], list[int]]]:
    """Token rows and the item each spells, most items in several ways."""

    def numbered(pairs: list[tuple[list[int], int]]) -> tuple[list[list[int]], list[int]]:
        known: dict[int, int] = {}
        items = [known.setdefault(of, len(known)) for _, of in pairs]
        return [row for row, _ in pairs], items

    row = token_rows.map(lambda rows: rows[0])
    pairs = st.lists(
        st.tuples(row, st.integers(0, 5)),
        min_size=1,
        max_size=14,
        unique_by=lambda pair: (tuple(pair[0]), pair[1]),
    )
    return pairs.map(numbered)


# Any token at all, so that prompts hold control tokens and open spans.
open_prompts = st.lists(
    st.lists(st.integers(1, VOCAB - 1), min_size=1, max_size=9), min_size=1, max_size=4
)


def closed(prompt: Sequence[int]) -> list[int]:
    """A prompt that does not end inside of a span."""
    return [*prompt] if opened(prompt) is None else [*prompt, EOI]


prompts = open_prompts.map(lambda batch: [closed(prompt) for prompt in batch])


@dataclass(frozen=True)
class Reading:
    """What a sequence of tokens says.

    Attributes:
        spans: Tokens of each closed span.
        open_span: Tokens of a span that is not closed, or None.
        text: Tokens outside spans.
    """

    spans: list[tuple[int, ...]]
    open_span: tuple[int, ...] | None
    text: list[int]


def read(tokens: Sequence[int]) -> Reading:
    spans: list[tuple[int, ...]] = []
    text: list[int] = []
    span: list[int] | None = None
    for token in tokens:
        if span is None:
            if token == SOI:
                span = []
            else:
                text.append(token)
        elif token == EOI:
            spans.append(tuple(span))
            span = None
        else:
            span.append(token)
    return Reading(spans, None if span is None else tuple(span), text)


def opened(prompt: Sequence[int]) -> list[int] | None:
    """Tokens behind a ``<SOI>`` that no control token follows; None where there is none."""
    control = [place for place, token in enumerate(prompt) if token in (SOI, EOI)]
    if not control or prompt[control[-1]] == EOI:
        return None
    return list(prompt[control[-1] + 1 :])


def choices(rows: Sequence[Sequence[int]], prefix: Sequence[int], spent: set[int]) -> set[int]:
    """Tokens that lead from ``prefix`` to an item that is not spent."""
    found = set()
    for number, row in enumerate(rows):
        if number not in spent and tuple(row[: len(prefix)]) == tuple(prefix):
            found.add(row[len(prefix)] if len(row) > len(prefix) else EOI)
    return found


def count_decisions(
    rows: Sequence[Sequence[int]], tokens: Sequence[int], excluded: set[int], unique: bool
) -> int:
    """Tokens of an answer that something else could have stood in place of."""
    spent = set(excluded)
    prefix: list[int] | None = None
    decisions = 0
    for token in tokens:
        if prefix is None:
            decisions += 1
            prefix = [] if token == SOI else None
            continue
        allowed = choices(rows, prefix, spent)
        assert token in allowed, (token, prefix, spent)
        decisions += len(allowed) > 1
        if token == EOI:
            if unique:
                spent |= {n for n, row in enumerate(rows) if tuple(row) == tuple(prefix)}
            prefix = None
        else:
            prefix.append(token)
    return decisions


@torch.no_grad()
def exhaustive(model: Any, rows: Sequence[Sequence[int]], prompt: Sequence[int]) -> np.ndarray:
    """Log-probability of every row: all of its tokens scored among what the catalog allows."""
    found = []
    for row in rows:
        logits = model(torch.tensor([[*prompt, SOI, *row]])).logits[0, len(prompt) :].double()
        total = 0.0
        for depth, token in enumerate([*row, EOI]):
            allowed = sorted(choices(rows, row[:depth], set()))
            total += float(logits[depth, allowed].log_softmax(-1)[allowed.index(token)])
        found.append(total)
    return np.array(found)
