"""The engine: answers join, leave and run over catalogs that change; every span is an item."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.engine import Engine
from incatalog.decoding.events import Completion, Finished
from incatalog.decoding.request import Grounding, Request, Scaffold
from incatalog.decoding.retriever import ItemRetriever
from incatalog.errors import IncatalogError
from incatalog.model.head import RetrievalHead
from incatalog.trie.trie import ItemTrie
from worlds import EOI, FIRST_WORD, SOI, STOP, VOCAB, closed, make_model, read

TEMPERATURES = (0.0, 0.0, 5e-324, 1e-310, 1e-20, 0.5, 1.0, 3.0, 1e30, 1e308)


class Catalog:
    """The items of one version, and their trie."""

    def __init__(self, trie: ItemTrie, spelled: dict[int, list[list[int]]]) -> None:
        self.trie, self.spelled = trie, spelled

    @classmethod
    def draw(cls, random: np.random.Generator) -> Catalog:
        count = int(random.choice([1, 3, 10, 60]))
        items = [*range(count), *random.integers(0, count, int(random.integers(0, 4))).tolist()]
        rows: list[list[int]] = []
        spelled: dict[int, list[list[int]]] = {}
        kept: list[int] = []
        for item in items:
            row = draw_row(random)
            if row not in spelled.get(item, []):
                spelled.setdefault(item, []).append(row)
                rows.append(row)
                kept.append(item)
        several = len(rows) > count
        return cls(ItemTrie.build(rows, items=kept if several else None), spelled)

    def changed(self, random: np.random.Generator) -> Catalog:
        """A next version: an item less, or one more."""
        if len(self.spelled) > 1 and random.random() < 0.5:
            gone = int(random.choice(sorted(self.spelled)))
            left = {item: rows for item, rows in self.spelled.items() if item != gone}
            return Catalog(self.trie.without_items([gone]), left)
        row = draw_row(random)
        vacant = self.trie.vacant_rows
        place = int(vacant[0]) if len(vacant) else self.trie.num_items
        return Catalog(self.trie.with_items([row], rows=[place]), {**self.spelled, place: [row]})


def draw_row(random: np.random.Generator) -> list[int]:
    size = 140 if random.random() < 0.01 else int(random.integers(1, 6))
    tokens: list[int] = random.integers(FIRST_WORD, VOCAB - random.integers(0, 4), size).tolist()
    return tokens


def draw_request(random: np.random.Generator, catalog: Catalog) -> tuple[Request, set[int]]:
    live = sorted(catalog.spelled)
    excluded = set(random.choice(live, int(random.integers(0, len(live))), replace=False).tolist())
    scaffold = None
    if random.random() < 0.3:
        runs = [tuple(random.integers(FIRST_WORD, VOCAB, 2).tolist()) for _ in range(5)]
        scaffold = Scaffold(tuple(runs))
    base = ExcludedItems.build(catalog.trie, excluded) if excluded else None
    weights = None
    if random.random() < 0.3:
        log_weights = random.normal(-3, 3, catalog.trie.num_items)
        barred = random.choice(live, int(random.integers(0, 3)))
        # One item at least stays.
        barred = [row for row in barred.tolist() if set(live) - excluded - {*barred.tolist()}]
        log_weights[barred] = -np.inf
        excluded |= set(barred)
        share = float(random.choice([0.0, 0.5, 1.0]))
        weights = ItemWeights.build(catalog.trie, log_weights, share=share, base=base)
    request = Request(
        closed(random.integers(1, VOCAB, int(random.integers(1, 9))).tolist()),
        max_new_tokens=int(random.integers(1, 60)),
        max_items=[None, None, 0, 1, 4][random.integers(5)] if scaffold is None else None,
        excluded=base,
        weights=weights,
        item_decode="search" if random.random() < 0.5 else "token",
        temperature=float(random.choice(TEMPERATURES)),
        top_p=float(random.choice([1.0, 0.9, 1e-300])),
        seed=int(random.integers(1 << 30)),
        scaffold=scaffold,
        grounding=Grounding(catalog.trie),
    )
    return request, excluded


def spans_of(request: Request, excluded: set[int], catalog: Catalog, done: Completion) -> int:
    reading = read(done.token_ids)
    assert len(reading.spans) == len(done.items)
    assert EOI not in reading.text
    for span, item in zip(reading.spans, done.items, strict=True):
        assert list(span) in catalog.spelled[item]
    assert not excluded & set(done.items)
    assert len(set(done.items)) == len(done.items)
    assert request.item_limit is None or len(done.items) <= request.item_limit
    return len(done.items)


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_every_span_is_an_item_of_its_version(fuzz: Any) -> None:
    for number, random in fuzz.cases():
        model = make_model(int(random.integers(4)))
        catalog = Catalog.draw(random)
        engine = Engine(
            model, catalog.trie, soi_token_id=SOI, eoi_token_id=EOI, stop_token_ids=[STOP]
        )
        session = engine.session()
        asked: dict[int, tuple[Request, set[int], Catalog]] = {}
        waiting = int(random.integers(20, 200))
        while waiting or session:
            while waiting and (not session or random.random() < 0.7):
                waiting -= 1
                if random.random() < 0.2:
                    catalog = catalog.changed(random)
                request, excluded = draw_request(random, catalog)
                try:
                    asked[session.add(request)] = (request, excluded, catalog)
                except IncatalogError as error:
                    fuzz.refuse(error)
            if asked and random.random() < 0.05:
                gone = int(random.choice(sorted(asked)))
                session.cancel(gone)
                del asked[gone]
            for event in session.step():
                if isinstance(event, Finished):
                    done = session.completion(event.index)
                    told = f"case {number} of seed {fuzz.seed}: {asked[event.index]}, {done}"
                    try:
                        fuzz.counts["spans"] += spans_of(*asked.pop(event.index), done)
                    except AssertionError as error:
                        raise AssertionError(told) from error


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_retrieved_items_are_allowed_ones(fuzz: Any) -> None:
    fuzz.seconds /= 4
    for number, random in fuzz.cases():
        model = make_model(int(random.integers(4)))
        rows = [draw_row(random) for _ in range(int(random.integers(2, 40)))]
        catalog = Catalog(ItemTrie.build(rows), {item: [row] for item, row in enumerate(rows)})
        vectors = random.standard_normal((len(rows), 6)).astype(np.float32)
        head = RetrievalHead.create(model.config.hidden_size, vectors, seed=0)
        with torch.no_grad():
            head.projection.weight.mul_(6)
        retriever = ItemRetriever(head.eval())
        engine = Engine(
            model,
            catalog.trie,
            soi_token_id=SOI,
            eoi_token_id=EOI,
            stop_token_ids=[STOP],
            retriever=retriever,
        )
        drawn = [draw_request(random, catalog) for _ in range(40)]
        requests = [_retrieving(request, catalog, retriever) for request, _ in drawn]
        for (_, excluded), request, done in zip(
            drawn, requests, engine.complete(requests), strict=True
        ):
            told = f"case {number} of seed {fuzz.seed}: {request}, {done}"
            try:
                fuzz.counts["spans"] += spans_of(request, excluded, catalog, done)
            except AssertionError as error:
                raise AssertionError(told) from error


def _retrieving(request: Request, catalog: Catalog, retriever: ItemRetriever) -> Request:
    return replace(request, grounding=Grounding(catalog.trie, retriever))
