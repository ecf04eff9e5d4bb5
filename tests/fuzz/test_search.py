"""Search over a slot: its items are allowed ones, in the order of scoring each of them alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from incatalog.constraint.excluded import ExcludedItems
from incatalog.decoding.ranking import ItemBeam, ItemRanking
from incatalog.decoding.request import Slot
from incatalog.decoding.retriever import ItemRetriever
from incatalog.model.head import RetrievalHead
from incatalog.trie.trie import ItemTrie
from worlds import EOI, FIRST_WORD, SOI, VOCAB, exhaustive, make_model


def draw(random: np.random.Generator) -> tuple[list[list[int]], list[list[int]], list[set[int]]]:
    count = int(random.choice([1, 3, 12, 80]))
    rows = [
        random.integers(FIRST_WORD, VOCAB - random.integers(0, 4), size).tolist()
        for size in random.integers(1, 6, count).tolist()
    ]
    prompts = [
        random.integers(1, VOCAB, int(random.integers(1, 9))).tolist()
        for _ in range(int(random.integers(1, 33)))
    ]
    excluded = [
        set(random.choice(count, int(random.integers(0, count + 1)), replace=False).tolist())
        for _ in prompts
    ]
    return rows, prompts, excluded


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_found_items_are_allowed_and_in_order(fuzz: Any) -> None:
    for number, random in fuzz.cases():
        rows, prompts, excluded = draw(random)
        model = make_model(int(random.integers(4)))
        trie = ItemTrie.build(rows)
        slots = [
            Slot(prompt, ExcludedItems.build(trie, gone) if gone else None)
            for prompt, gone in zip(prompts, excluded, strict=True)
        ]
        k = None if random.random() < 0.2 else int(random.integers(1, len(rows) + 3))
        beam: Any
        if random.random() < 0.3 and len(rows) > 1:
            vectors = random.standard_normal((len(rows), 6)).astype(np.float32)
            head = RetrievalHead.create(model.config.hidden_size, vectors, seed=0).eval()
            beam, compared = ItemRanking(model, trie, ItemRetriever(head)), False
        else:
            width = int(random.integers(1, 20))
            exact = bool(random.random() < 0.8)
            beam = ItemBeam(
                model, trie, soi_token_id=SOI, eoi_token_id=EOI, width=width, exact=exact
            )
            compared = exact
        answers = beam.top_items(slots, k)
        for place, (slot, gone, found) in enumerate(zip(slots, excluded, answers, strict=True)):
            told = f"case {number} of seed {fuzz.seed}: {rows}, {slot}, {gone}, {k}, {found}"
            named = found.rows.tolist()
            assert set(named) <= set(range(len(rows))) - gone, told
            assert len(set(named)) == len(named), told
            assert (np.diff(found.logprobs) <= 1e-9).all(), told
            fuzz.counts["spans"] += len(named)
            # Scoring each item alone is slow, so it is done for one slot of a case.
            if compared and place == 0:
                scores = exhaustive(model, rows, prompts[0])
                best = sorted(set(range(len(rows))) - gone, key=lambda row: -scores[row])[:k]
                assert found.logprobs == pytest.approx(scores[best], abs=1e-3), told
