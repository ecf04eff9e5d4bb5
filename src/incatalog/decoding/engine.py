"""The decoding engine: a batch of requests in, a stream of events out; token ids only.

Inside an item span the model decides only where the catalog leaves a choice; with a retriever it
decides nothing there, as the state that opens the span already says which item stands in it. What a
decision forces (the rest of a title, its closing token, the scaffold up to the next title) is fed
together with it in one forward pass, rows of a batch with runs of different lengths.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from incatalog.constraint.control import check_control_tokens, open_span
from incatalog.constraint.spans import SpanBatch
from incatalog.decoding.choices import decide, decide_outside, rows_of
from incatalog.decoding.events import Completion, Event, Finished, ItemDone
from incatalog.decoding.growing import Answers, GrowingAnswer
from incatalog.decoding.lookahead import Path
from incatalog.decoding.prefixes import Prefixes
from incatalog.decoding.request import Grounding, Request
from incatalog.decoding.retriever import ItemRetriever, check_items, each_found
from incatalog.decoding.whole_items import begin_items, go_on
from incatalog.errors import ConfigError, IncatalogError, SpanError
from incatalog.packed.branches import Branches, Guess
from incatalog.packed.model import PackedModel, Readout
from incatalog.trie.trie import ItemTrie

# Tokens of guesses in a pass. On a CPU each takes its time; on an accelerator a pass of a hundred
# should take as long as one of one (not measured).
_AHEAD = 32
_AHEAD_ELSEWHERE = 128
# Tokens that searches feed in a pass.
_SEARCHED = 32
_SEARCHED_ELSEWHERE = 512
# More of them seldom come true.
_AHEAD_PER_ROW = 8


@dataclass
class Statistics:
    """What an engine has done since it was made."""

    forward_passes: int = 0  # calls of the model, prefill included
    tokens_fed: int = 0  # tokens the model has seen, those of the prompts included
    decisions: int = 0  # tokens the model decided on and items that were retrieved, over all rows
    searched: int = 0  # those of `tokens_fed` that were fed to search for whole items
    guessed: int = 0  # tokens fed beyond `tokens_fed`, as guesses at the next decisions
    guessed_right: int = 0  # those of them that came true


class Engine:
    """Generates answers whose item spans are items of the trie.

    Without a retriever the model writes the items token by token. Tokens of ``item_only_token_ids``
    (such as the codes of semantic IDs) stand in no grounded answer but inside of item spans.
    ``lookahead`` are the tokens of guesses at the next decisions that a pass may feed, eight a row
    at most and so many over all rows: 0 for none, None for as many as pay on the model's device.
    Answers do not depend on it.
    """

    def __init__(
        self,
        model: Any,
        trie: ItemTrie,
        *,
        soi_token_id: int,
        eoi_token_id: int,
        stop_token_ids: Collection[int],
        item_only_token_ids: Collection[int] = (),
        retriever: ItemRetriever | None = None,
        lookahead: int | None = None,
    ) -> None:
        if retriever is not None:
            check_items(trie, retriever)
        self._grounding = Grounding(trie, retriever)
        self._item_only = torch.tensor(sorted(item_only_token_ids), dtype=torch.int64)
        self._control = check_control_tokens(trie, soi_token_id, eoi_token_id, stop_token_ids)
        self.model = model if isinstance(model, PackedModel) else PackedModel(model)
        if lookahead is None:
            lookahead = _AHEAD if self.model.device.type == "cpu" else _AHEAD_ELSEWHERE
        self._lookahead = lookahead
        self._searched = _SEARCHED if self.model.device.type == "cpu" else _SEARCHED_ELSEWHERE
        self.statistics = Statistics()

    def session(self) -> Session:
        """Answers that will grow side by side, joining and leaving between steps; to be closed."""
        return Session(self)

    def generate(self, requests: Sequence[Request]) -> Generator[Event, None, None]:
        """Generates one answer a request, all side by side, and tells what happens as it does.

        Events of one request come in order; those of different requests are interleaved. Between
        two of them others may use the engine, in this thread or another.
        """
        with self.session() as session:
            for request in requests:
                session.add(request)
            while session:
                for event in session.step():
                    if isinstance(event, Finished):
                        session.completion(event.index)
                    yield event
            # Ctrl-C may come at the very end of the `with`.
            session.close()

    def complete(self, requests: Sequence[Request]) -> list[Completion]:
        """Generates one answer a request and returns them whole, in the order of the requests."""
        with self.session() as session:
            indices = [session.add(request) for request in requests]
            while session:
                session.step()
            done = [session.completion(index) for index in indices]
            session.close()
            return done

    def _items_of(self, request: Request) -> Grounding:
        """The items of a request, if this engine can name them."""
        grounding, control = request.grounding or self._grounding, self._control
        if grounding is self._grounding:
            return grounding
        if (grounding.retriever is None) != (self._grounding.retriever is None):
            raise ConfigError(
                "grounding: the items of one model are either all retrieved or all written"
            )
        if grounding.retriever is not None:
            check_items(grounding.trie, grounding.retriever)
        check_control_tokens(grounding.trie, control.soi, control.eoi, control.stop)
        return grounding

    def _check_prompt(self, request: Request) -> None:
        place = open_span(request.prompt_ids, self._control.soi, self._control.eoi)
        if request.grounded and place is not None:
            raise SpanError(
                f"prompt_ids: token {place} opens an item span that nothing closes; expected a "
                "prompt outside of spans; close it, or leave it out"
            )
        # Within a pass such a token would end the answers of all others too.
        known = range(self.model.vocabulary_size)
        for token in (min(request.prompt_ids, default=0), max(request.prompt_ids, default=0)):
            if int(token) not in known:
                raise ConfigError(
                    f"prompt_ids: found token {token}; expected 0 to {known[-1]}, the tokens of "
                    "the model"
                )

    def _advance(self, active: Answers) -> list[Event]:
        """Feeds all answers what they have not seen yet, and lets each take its next decision."""
        trees = [answer.branches() for answer in active]
        rows = [
            (answer.cache, answer.unfed() if tree is None else tree.token_ids)
            for answer, tree in zip(active, trees, strict=True)
        ]
        guesses = self._guess(active)
        told = [tree or guess for tree, guess in zip(trees, guesses, strict=True)]
        readout = self.model.forward(rows, told)
        ends = len(active) + np.cumsum(
            [0, *(len(one.read) - 1 if isinstance(one, Branches) else len(one) for one in told)]
        )
        self.statistics.forward_passes += 1
        self.statistics.tokens_fed += sum(len(new) for _, new in rows)
        self.statistics.searched += sum(len(tree.token_ids) for tree in trees if tree is not None)
        inside = rows_of(active, "token")
        outside = [row for row, answer in enumerate(active) if answer.wants == "text"]
        self.statistics.decisions += len(outside)
        events = decide_outside(readout, active, outside, self._item_only)
        events += self._decide_inside(readout, active, inside, guesses, ends)
        events += self._retrieve(readout, active)
        events += self._search(readout, active, ends)
        return events + begin_items(active)

    def _search(
        self, readout: Readout, active: Answers, ends: Int64[np.ndarray, " rows+1"]
    ) -> list[Event]:
        """Goes on with the searches for whole items."""
        events = go_on(readout, active, ends, self._control.eoi, self._searched)
        self.statistics.decisions += sum(isinstance(event, ItemDone) for event in events)
        return events

    def _guess(self, active: Answers) -> list[list[Guess]]:
        """What may come behind the next decision of each answer, as guesses."""
        inside = [answer.wants == "token" for answer in active]
        budget = min(_AHEAD_PER_ROW, self._lookahead // max(1, sum(inside)))
        return [
            answer.lookahead.guesses(answer.spans.node(answer.slot), budget) if decides else []
            for answer, decides in zip(active, inside, strict=True)
        ]

    def _decide_inside(
        self,
        readout: Readout,
        active: Answers,
        inside: Mapping[SpanBatch, Sequence[int]],
        guesses: Sequence[Sequence[Guess]],
        first: Int64[np.ndarray, " rows+1"],
    ) -> list[Event]:
        """Takes the decisions in item spans, and those behind them as long as guesses come true."""
        events: list[Event] = []
        paths = {row: Path(guesses[row]) for rows in inside.values() for row in rows}
        at = list(range(len(active)))
        while inside:
            right: dict[SpanBatch, list[int]] = {}
            for spans, rows in inside.items():
                self.statistics.decisions += len(rows)
                decided = decide(readout, active, rows, at, spans)
                for row, (run, found) in zip(rows, decided, strict=True):
                    events += found
                    answer = active[row]
                    goes_on = answer.wants == "token" and answer.finish_reason is None
                    if goes_on and paths[row].follow(run.tokens):
                        at[row] = int(first[row]) + paths[row].last
                        right.setdefault(spans, []).append(row)
            inside = right
        for row, path in paths.items():
            self.statistics.guessed += sum(len(guess.tokens) for guess in guesses[row])
            self.statistics.guessed_right += len(path.offsets)
            if path.offsets:
                active[row].adopt(path.offsets)
        return events

    def _retrieve(self, readout: Readout, answers: Answers) -> list[Event]:
        """Writes the items of the answers in which a span opens now."""
        waiting: dict[ItemRetriever, list[int]] = {}
        for row, answer in enumerate(answers):
            if answer.wants == "item" and not answer.searches:
                retriever = (answer.request.grounding or self._grounding).retriever
                assert retriever is not None
                waiting.setdefault(retriever, []).append(row)
        events: list[Event] = []
        for retriever, rows in waiting.items():
            pick = partial(_pick, readout, answers, retriever)
            for row, chosen in zip(rows, each_found(pick, rows), strict=True):
                answer = answers[row]
                if isinstance(chosen, IncatalogError):
                    events += answer.fail(chosen)
                    continue
                self.statistics.decisions += 1
                item_row, logprob = chosen
                events += answer.take_item(answer.spans.write(answer.slot, item_row), logprob)
        return events


class Session:
    """Answers that grow side by side; requests may join and leave between two steps.

    What one answer says depends on the others only by the rounding of floating-point sums.
    One at which the model fails ends as failed, and the others go on.

    A session belongs to one thread at a time; those of several threads take turns with the model,
    step by step. Closing it gives back what it holds of the model's memory.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._joined = 0
        self._begun: list[Event] = []
        self._spans: dict[Grounding, SpanBatch] = {}
        self._prefixes = Prefixes()
        self._active: dict[int, GrowingAnswer] = {}
        self._finished: dict[int, GrowingAnswer] = {}

    def __len__(self) -> int:
        """Number of answers that have not ended."""
        return len(self._active)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.close()
        except BaseException:
            # Ctrl-C has come here.
            self.close()
            raise

    def close(self) -> None:
        """Lets all answers go; afterwards none of them can be asked for."""
        self._prefixes.close()
        for answer in self._active.values():
            answer.cache.release()
        for kept in (self._active, self._finished, self._spans):
            kept.clear()
        self._begun = []

    def add(self, request: Request) -> int:
        """Lets a request join at the next step; returns its index, by which events are known."""
        index = self._joined
        self._engine._check_prompt(request)
        control, retriever = self._engine._control, self._engine._items_of(request).retriever
        if retriever is not None and retriever.indexed:
            # An index knows of no weights, and without it a huge catalog is slow.
            request = replace(request, first_share=0.0)
        spans, retrieves = self._span_batch(request), retriever is not None
        answer = GrowingAnswer(index, request, spans, control, retrieves=retrieves)
        begun = answer.start()
        self._joined += 1
        self._active[index] = answer
        self._begun += begun
        return index

    def cancel(self, index: int) -> None:
        """Lets a request leave; no event of it follows, and it has no completion.

        Nothing happens if it has left or finished already.
        """
        answer = self._active.pop(index, None)
        if answer is not None:
            answer.leave()
            answer.cache.release()
        self._begun = [event for event in self._begun if event.index != index]

    def step(self) -> list[Event]:
        """One forward pass for all answers; what happened in it, those of one answer in order."""
        try:
            with self._engine.model.lock:
                return self._step()
        except BaseException:
            # Rows that were fed only in part cannot go on.
            self.close()
            raise

    def _step(self) -> list[Event]:
        events, self._begun = self._begun, []
        events += begin_items(list(self._active.values()))
        growing = [answer for answer in self._active.values() if answer.finish_reason is None]
        if growing:
            self._prefixes.share(growing)
            events += self._engine._advance(growing)
        for event in events:
            if isinstance(event, Finished):
                answer = self._finished[event.index] = self._active[event.index]
                if answer.cache.length and answer.error is None:
                    self._prefixes.keep(answer)
                else:
                    answer.cache.release()
                del self._active[event.index]
        return events

    def _span_batch(self, request: Request) -> SpanBatch:
        """The spans of all answers with the same items."""
        grounding = self._engine._items_of(request)
        # Versions of a catalog that no answer names items of any longer are let go.
        self._spans = {g: spans for g, spans in self._spans.items() if len(spans)}
        if grounding not in self._spans:
            self._spans[grounding] = SpanBatch(grounding.trie, self._engine._control.eoi)
        return self._spans[grounding]

    def completion(self, index: int) -> Completion:
        """The finished answer of a request, or what it failed with; forgotten afterwards."""
        return self._finished.pop(index).completion()


def _pick(
    readout: Readout, answers: Answers, retriever: ItemRetriever, rows: Sequence[int]
) -> list[tuple[int, float]]:
    """The item of each answer and its log-probability."""
    free = [answers[row].spans.free_rows(answers[row].slot) for row in rows]
    sampling = [answers[row].sampling for row in rows]
    weights = [answers[row].first.weights for row in rows]
    states = readout.states(rows)
    chosen = retriever.pick(states, free, sampling, weights)
    for place, row in enumerate(rows):
        first, state, among = answers[row].first, states[place : place + 1], [free[place]]
        if first.wanted > 1:
            [found] = retriever.best(state, among, first.wanted, weights=[weights[place]])
            first.remember(found)
        elif first.leans and answers[row].request.weights is None:
            # What is told is how likely the item is at this place alone.
            item = chosen[place][0]
            [found] = retriever.best(state, [np.arange(len(free[place])) == item], 1, among)
            chosen[place] = item, float(found.logprobs[0])
    return chosen
