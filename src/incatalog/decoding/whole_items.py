"""Whole items in growing answers: where a span opens, the best item of all is searched for.

Greedy tokens prefer the token with most titles below it, and so a list that is written token by
token is far from the ranking of its places. A search goes on in the passes that feed the other
answers too, in the keys and values of its own answer; what it has fed of the item that it finds is
not fed again.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from incatalog.decoding.choices import open_spans
from incatalog.decoding.events import Event
from incatalog.decoding.growing import Answers
from incatalog.decoding.search import score_prefixes
from incatalog.packed.model import Readout
from incatalog.trie.trie import ItemTrie


def begin_items(answers: Answers) -> list[Event]:
    """Opens spans and begins searches until none is to be begun."""
    events = open_spans(answers)
    while waiting := [
        answer
        for answer in answers
        if answer.wants == "item" and answer.searches and not answer.search
        if answer.finish_reason is None
    ]:
        for answer in waiting:
            if not answer.begin_search():
                events += answer.take_search()
    return events


def go_on(
    readout: Readout, answers: Answers, ends: Int64[np.ndarray, " rows+1"], eoi: int, tokens: int
) -> list[Event]:
    """Takes what the model said into the searches, and writes the items that were found.

    What was read of a row stands at its own place of the readout, and its other ends at those from
    ``ends[row]`` on. In the next pass all searches feed about so many ``tokens``.
    """
    searching = ((row, answer.search) for row, answer in enumerate(answers))
    searches = {row: search for row, search in searching if search is not None}
    by_trie: dict[ItemTrie, list[int]] = {}
    for row in searches:
        by_trie.setdefault(answers[row].spans.trie, []).append(row)
    for trie, own in by_trie.items():
        places = [place for row in own for place in (row, *range(ends[row], ends[row + 1]))]
        score_prefixes(readout, places, [searches[row] for row in own], trie, eoi)
    events: list[Event] = []
    most = max(1, tokens // max(1, len(searches)))
    for row, search in searches.items():
        if search.over or not search.advance(tokens, exact=True, tokens=most):
            events += answers[row].take_search()
    return events
