"""The policy that is really sampled from: log-probabilities under the mask of the decoding.

An answer of the engine is a series of choices among what the catalog, the exclusions and the answer
itself still allow; all other tokens are forced. Its log-probability is that of its choices, each a
softmax over what was allowed then; a softmax over the whole vocabulary is another policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MethodType

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint, allowed_in
from incatalog.constraint.weights import ItemWeights
from incatalog.model.backbone import base_model, output_rows
from incatalog.model.head import RetrievalHead
from incatalog.training.movable import Movable
from incatalog.trie.trie import ItemTrie

# In the log: how far, in nats, the log-probability of an answer is from what the engine said of it.
# Anything but rounding means that the policy is not the one that was sampled from.
GAP = "policy/engine_gap"

# Logits that exist at a time.
_MOST_LOGITS = 1 << 25


@dataclass(frozen=True)
class Choices:
    """What was decided in one answer."""

    place: Int64[np.ndarray, " decisions"]  # Index in the answer; of <SOI> for a retrieved item
    offsets: Int64[np.ndarray, " decisions+1"]  # Where the options of each decision start
    option: Int64[np.ndarray, " options"]  # Allowed tokens (or item rows), ascending
    chosen: Int64[np.ndarray, " decisions"]  # Index of the choice among the decision's own options
    # Where items have weights: what the scores of options are multiplied by, and what is added then
    model: float = 1.0
    bias: Float64[np.ndarray, " options"] | None = None

    def __len__(self) -> int:
        return len(self.place)


def read_choices(
    trie: ItemTrie,
    token_ids: Sequence[int],
    items: Sequence[int],
    *,
    soi_token_id: int,
    eoi_token_id: int,
    excluded: ExcludedItems | None = None,
    weights: ItemWeights | None = None,  # With all exclusions in them
    retrieves: bool = False,  # Items were chosen whole, at the token that opens a span
) -> Choices:
    """Reads an answer again and notes what could have stood in its spans instead."""
    constraint = SpanConstraint(trie, eoi_token_id, excluded=excluded, weights=weights)
    guide = None if weights is None or weights.plain else weights
    places: list[int] = []
    options: list[np.ndarray] = []
    biases: list[np.ndarray] = []
    chosen: list[int] = []

    def note(place: int, allowed: np.ndarray, choice: int, bias: np.ndarray | None) -> None:
        if len(allowed) > 1:
            places.append(place)
            options.append(allowed)
            biases.extend([] if bias is None else [bias])
            chosen.append(int(np.searchsorted(allowed, choice)))

    forced: list[int] = []
    named = iter(items)
    for place, token in enumerate(token_ids):
        if not constraint.inside:
            if token == soi_token_id:
                row = next(named)
                if retrieves:
                    rows = np.flatnonzero(constraint.free_rows())
                    note(place, rows, row, None if guide is None else _bias_of(guide, rows))
                constraint.begin(row if retrieves else None)
                forced = constraint.forced()
            continue
        if not forced:
            _, allowed, bias = allowed_in([constraint])
            note(place, allowed, token, bias)
        constraint.accept(token)
        forced = forced[1:] or ([] if not constraint.inside else constraint.forced())
    sizes = [len(allowed) for allowed in options]
    return Choices(
        np.array(places, dtype=np.int64),
        np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64),
        np.concatenate([*options, np.zeros(0, dtype=np.int64)]).astype(np.int64),
        np.array(chosen, dtype=np.int64),
        1.0 if guide is None else guide.model,
        None if guide is None else np.concatenate([*biases, np.zeros(0)]),
    )


def _bias_of(
    weights: ItemWeights, rows: Int64[np.ndarray, " rows"]
) -> Float64[np.ndarray, " rows"]:
    """What weights add to the scores of items, the best of them zero so that no digits are lost."""
    own = weights.share * weights.by_row[rows]
    bias: np.ndarray = own - own.max()
    return bias


@dataclass(frozen=True)
class ChoiceBatch(Movable):
    """The choices of several answers, laid out for one matrix product."""

    state: Int64[Tensor, " decisions"]  # Index of each decision's state in the flattened batch
    answer: Int64[Tensor, " decisions"]  # Which answer a decision belongs to
    place: Int64[Tensor, " decisions"]  # Index in the answer of the token decided on
    column: Int64[Tensor, " columns"]  # All options, each once, ascending
    option_decision: Int64[Tensor, " options"]  # The decision of each pair with an option
    option_column: Int64[Tensor, " options"]  # And the option's index in ``column``
    chosen: Int64[Tensor, " decisions"]  # Index in ``column`` of each decision's choice
    # Where items have weights; see `Choices`
    model: Float[Tensor, "decisions 1"] | None = None
    bias: Float[Tensor, " options"] | None = None

    @classmethod
    def of(cls, choices: Sequence[Choices], starts: Sequence[int], length: int) -> ChoiceBatch:
        """Lays out choices."""
        answer = np.repeat(np.arange(len(choices)), [len(one) for one in choices])
        place = np.concatenate([one.place for one in choices])
        first = np.array(starts, dtype=np.int64)[answer]
        sizes = np.concatenate([np.diff(one.offsets) for one in choices])
        option = np.concatenate([one.option for one in choices])
        column, within = np.unique(option, return_inverse=True)
        picked = np.cumsum(sizes) - sizes + np.concatenate([one.chosen for one in choices])
        state = answer * length + first + place - 1
        owner = np.repeat(np.arange(len(place)), sizes)
        arrays = (state, answer, place, column, owner, within, within[picked])
        batch = cls(*(torch.from_numpy(array.astype(np.int64)) for array in arrays))
        if all(one.bias is None for one in choices):
            return batch
        model = np.array([one.model for one in choices], dtype=np.float32)[answer, None]
        biases = [np.zeros(len(c.option)) if c.bias is None else c.bias for c in choices]
        bias = np.concatenate(biases).astype(np.float32)
        return replace(batch, model=torch.from_numpy(model), bias=torch.from_numpy(bias))


def choice_logprobs(
    hidden: Float[Tensor, "batch length hidden"],
    choices: ChoiceBatch,
    *,
    weight: Float[Tensor, "vocab hidden"],
    bias: Float[Tensor, " vocab"] | None = None,
    head: RetrievalHead | None = None,
    temperature: float = 1.0,
) -> tuple[Float[Tensor, " decisions"], Float[Tensor, " decisions"]]:
    """Log-probability of each choice among its options, and the entropy over them, in nats."""
    states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, choices.state)
    if not len(states):
        # Still computed from the model, so that a batch without any choice has a gradient of zero.
        return states.sum(-1), states.sum(-1).detach()
    allowed = torch.zeros(len(states), len(choices.column), dtype=torch.bool, device=hidden.device)
    allowed[choices.option_decision, choices.option_column] = True
    rows = None if head is not None else weight.index_select(0, choices.column)
    biases = None if bias is None else bias.index_select(0, choices.column)
    logprobs, entropies = [], []
    size = max(1, _MOST_LOGITS // len(choices.column))
    for start in range(0, len(states), size):
        part = slice(start, start + size)
        if head is not None:
            scores = head.scores(head.query(states[part]), choices.column)
        else:
            assert rows is not None
            scores = functional.linear(states[part], rows, biases)
        scores = _guided(scores.float(), choices, start) / temperature
        scores = scores.masked_fill(~allowed[part], float("-inf"))
        softmax = scores.log_softmax(-1)
        logprobs.append(softmax.gather(1, choices.chosen[part, None]).squeeze(1))
        with torch.no_grad():
            known = softmax.masked_fill(~allowed[part], 0.0)
            entropies.append(-(softmax.exp() * known).sum(-1))
    return torch.cat(logprobs), torch.cat(entropies)


def _guided(
    scores: Float[Tensor, "some columns"], choices: ChoiceBatch, start: int
) -> Float[Tensor, "some columns"]:
    """Scores of the options of some decisions, the first of which is ``start``, under weights."""
    if choices.model is None or choices.bias is None:
        return scores
    end = start + len(scores)
    own = (choices.option_decision >= start) & (choices.option_decision < end)
    bias = torch.zeros_like(scores)
    bias[choices.option_decision[own] - start, choices.option_column[own]] = choices.bias[own]
    return choices.model[start:end] * scores + bias


def policy_forward(
    model: nn.Module, *, head: RetrievalHead | None = None, temperature: float = 1.0
) -> None:
    """Makes a language model's forward pass return `choice_logprobs`; see `scoped_forward`."""

    def forward(
        self: nn.Module, input_ids: Int64[Tensor, "batch length"], choices: ChoiceBatch
    ) -> tuple[Tensor, Tensor]:
        hidden = base_model(self)(input_ids=input_ids, use_cache=False).last_hidden_state
        weight, bias = output_rows(self)
        return choice_logprobs(
            hidden, choices, weight=weight, bias=bias, head=head, temperature=temperature
        )

    setattr(model, "forward", MethodType(forward, model))  # noqa: B010


def padded(
    rows: Sequence[Sequence[int]], pad_token_id: int, device: torch.device | str
) -> Int64[Tensor, "batch length"]:
    """Token ids padded on the right; with causal attention nothing sees what is behind it."""
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=pad_token_id).to(device)
