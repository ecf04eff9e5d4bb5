"""What holds one answer of a service to its catalog, in a form that travels to vLLM's process."""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np

from incatalog.constraint.answer_grammar import AnswerForm, AnswerGrammar
from incatalog.constraint.control import ControlTokens
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.constraint.weights import ItemWeights
from incatalog.decoding.request import Request
from incatalog.errors import ConfigError, TrieError
from incatalog.trie.trie import ItemTrie

TERMS = "terms"
"""Where they stand in what a request asks of the items."""


@dataclass(frozen=True)
class AnswerTerms:
    """The terms of one answer.

    Attributes:
        trie: Name of the trie, as :class:`~incatalog.vllm.shared_tries.WrittenTries` gives it.
        control: Tokens that open and close spans, and those that end an answer.
        form: What stands around the items.
        given: Tokens at the end of the prompt that are of the answer already.
        barred: Which item rows may not be named, a bit each; None for none.
        weights: Model's part, share, and log-weights by sorted position; None for none.
    """

    trie: str
    control: ControlTokens
    form: AnswerForm
    given: tuple[int, ...] = ()
    barred: bytes | None = None
    weights: tuple[float, float, bytes] | None = None

    @classmethod
    def of(
        cls,
        request: Request,
        trie: str,
        control: ControlTokens,
        item_only: tuple[int, ...],
        given: tuple[int, ...],
    ) -> AnswerTerms:
        """The terms of a request of the engine."""
        lines = None if request.scaffold is None else request.scaffold.before_item
        limit, barred, weights = request.item_limit, request.barred, request.weights
        packed = None if barred is None else np.packbits(barred.rows).tobytes()
        weighed = None
        if weights is not None and not weights.plain and limit != 0:
            weighed = weights.model, weights.share, weights.log_weights.tobytes()
        # A list is of as many items as are asked for, whatever room its scaffold has.
        lines = lines if lines is None or limit is None else lines[:limit]
        form = AnswerForm(lines, limit, item_only)
        return cls(trie, control, form, given, packed, weighed)

    def to_args(self) -> dict[str, Any]:
        """What a request to vLLM asks of the items, in values of JSON."""
        form = self.form
        lines = None if form.before_item is None else [list(line) for line in form.before_item]
        return {
            TERMS: {
                "trie": self.trie,
                "control": [self.control.soi, self.control.eoi, *sorted(self.control.stop)],
                "lines": lines,
                "max_items": form.max_items,
                "item_only": list(form.item_only),
                "given": list(self.given),
                "barred": None if self.barred is None else _text(self.barred),
                "weights": None
                if self.weights is None
                else [*self.weights[:2], _text(self.weights[2])],
            }
        }

    @classmethod
    def from_args(cls, found: Any) -> AnswerTerms:
        """What stands under `TERMS`.

        Raises:
            ConfigError: It was not written by `to_args`.
        """
        try:
            lines, weights = found["lines"], found["weights"]
            soi, eoi, *stop = map(int, found["control"])
            before = None if lines is None else tuple(tuple(map(int, line)) for line in lines)
            form = AnswerForm(before, found["max_items"], tuple(map(int, found["item_only"])))
            given = tuple(map(int, found["given"]))
            weighed = None
            if weights is not None:
                weighed = float(weights[0]), float(weights[1]), b64decode(weights[2])
            barred = None if found["barred"] is None else b64decode(found["barred"])
            control = ControlTokens(soi, eoi, frozenset(stop))
            return cls(str(found["trie"]), control, form, given, barred, weighed)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"{TERMS}: not what a service of incatalog writes ({error!r}); ask the service"
            ) from error

    def grammar(self, trie: ItemTrie, among: SpanConstraint | None = None) -> AnswerGrammar:
        """The grammar of the answer, behind what is given of it.

        It shares the batch of `among` where that is given.

        Raises:
            NoItemLeftError: The answer needs items, and none may be named.
            TrieError: The terms are those of another trie, or what is given breaks them.
        """
        excluded = weights = None
        if self.barred is not None:
            bits = np.frombuffer(self.barred, dtype=np.uint8)
            if len(bits) != (trie.num_items + 7) // 8:
                raise TrieError("barred: is of another number of items than the trie")
            rows = np.unpackbits(bits, count=trie.num_items).astype(np.bool_)
            excluded = ExcludedItems.build(trie, rows)
        if self.weights is not None:
            model, share, data = self.weights
            by_position = np.frombuffer(data, dtype=np.float64)
            if len(by_position) != trie.num_positions:
                raise TrieError("weights: are of another number of items than the trie")
            barred = excluded or ExcludedItems.build(trie, [])
            weights = ItemWeights(trie, model, share, by_position, barred)
            excluded = barred
        how: Any = {"excluded": excluded, "weights": weights, "among": among}
        span = SpanConstraint(trie, self.control.eoi, **how)
        grammar = AnswerGrammar(span, self.control, self.form)
        for token in self.given:
            if why := grammar.accept(token):
                raise TrieError(f"given: {why}")
        return grammar


def _text(data: bytes) -> str:
    """Numbers as text, many times smaller and faster than as decimals."""
    return b64encode(data).decode()
