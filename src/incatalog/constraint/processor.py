"""Item spans held to the catalog in plain ``model.generate``."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor
from transformers import LogitsProcessor

from incatalog.constraint.control import check_control_tokens, open_span
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint, accept_all, allowed_in, begin_all
from incatalog.constraint.surroundings import Mode, Surroundings
from incatalog.constraint.weights import ItemWeights
from incatalog.errors import (
    NOT_NUMBERS,
    BackboneError,
    BlockedError,
    NoItemLeftError,
    SpanError,
    TrieError,
)
from incatalog.trie.trie import ItemTrie

_Scores = Float[Tensor, "batch vocab"]
_Best = Float[np.ndarray, " batch"]

# No mode goes back further than this to try other tokens.
_REMEMBERED = 512


@dataclass(eq=False, slots=True)
class _Text:
    """Where one sequence stands; shared, so neither it nor its span is ever changed."""

    span: SpanConstraint
    fault: str = ""  # what is wrong with it; empty where nothing is


class ItemConstrainedLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Masks every token that would not lead to an item, in every mode of ``generate``.

    A prompt that ends in an open span is continued inside of it. Closed spans of the prompt are
    history: they are neither checked nor counted. Of several open ones the last counts.

    One processor may serve any number of generations, one after the other: a text that is more
    than a token longer than all it has seen is a new prompt. The exception is a prompt that is the
    previous one with exactly the tokens generated then: call :meth:`reset` before it.

    With beams, transformers fills up on tokens of probability zero when fewer continuations exist
    than it wants to keep. Such sequences carry a score of -1e9 or less and are no answers.

    Example::

        trie = ItemTrie.build(token_rows)
        processor = ItemConstrainedLogitsProcessor(trie, soi_token_id=…, eoi_token_id=…)
        model.generate(**inputs, logits_processor=[processor])

    Args:
        trie: Prefix tree of the items' token rows.
        soi_token_id: Token that opens an item span.
        eoi_token_id: Token that closes an item span.
        unique: Never recommend an item twice in an answer.
        excluded: Item rows that must not be recommended.
        max_items: Items of an answer at most; the text goes on without items after that.
        weights: Log-weights of the items; all that is excluded has to be so in them. In a span, the
            score of a token is then ``model`` times the logarithm of its probability among those
            allowed, and ``share`` times that of the part of the weight that is below it. Their sum
            over a title is the score of the item, by which beams rank.

    Raises:
        TokenizerError: A control token occurs inside an item.
        TrieError: An excluded row does not exist, or is not excluded in the weights.
        NoItemLeftError: The exclusions leave no item to recommend.
    """

    holds_to_items = True

    def __init__(
        self,
        trie: ItemTrie,
        soi_token_id: int,
        eoi_token_id: int,
        unique: bool = True,
        excluded: ExcludedItems | Collection[int] | None = None,
        max_items: int | None = None,
        weights: ItemWeights | None = None,
    ) -> None:
        check_control_tokens(trie, soi_token_id, eoi_token_id, ())
        if excluded is not None and not isinstance(excluded, ExcludedItems):
            excluded = ExcludedItems.build(trie, excluded)
        self._soi, self._eoi = soi_token_id, eoi_token_id
        self._max_items = max_items
        self._begin = SpanConstraint(
            trie, eoi_token_id, excluded=excluded, unique=unique, weights=weights
        )
        self._weights = None if weights is None or weights.plain else weights
        if not self._begin.can_begin():
            raise NoItemLeftError(
                f"excluded: leaves none of the {trie.num_items} items; exclude fewer"
            )
        self._width = 1 + max(trie.largest_token, soi_token_id, eoi_token_id)
        self.reset()

    def reset(self) -> None:
        """Forgets the running generation: the next call is taken as the first of a new one."""
        self._prompts: frozenset[bytes] = frozenset()
        # By length, then by the whole text.
        self._known: dict[int, dict[bytes, _Text]] = {}
        # The last call: the rows of each text, and what was allowed to them.
        self._rows: dict[bytes, list[int]] = {}
        self._allowed: _Scores | None = None
        self._follows = False

    def __call__(
        self, input_ids: Int[Tensor, "batch length"], scores: Float[Tensor, "batch vocab"]
    ) -> Float[Tensor, "batch vocab"]:
        """Returns the scores with ``-inf`` for every token that may not come next.

        Raises:
            SpanError: A prompt ends inside a span that leads to no item, something else wrote such
                a text, or the items have tokens that the model does not have.
            BlockedError: Everything an item could go on with is banned by something else.
            BackboneError: Scores of the model are not numbers.
            ConfigError: Something around the constraint could undo it.
        """
        if scores.shape[1] < self._width:
            raise SpanError(
                f"scores: {scores.shape[1]} tokens; the items and their control tokens need "
                f"{self._width}; build the trie with the tokenizer of the model that generates"
            )
        texts = self._read(input_ids.cpu().numpy().astype(np.int32))
        masked, best = self._masked(texts, scores)
        if not np.isfinite(best).all():
            self._judge(texts, best, masked, input_ids)
        self._allowed = masked
        return masked

    def check(self, sequences: Int[Tensor, "batch length"], prompt_length: int = 0) -> None:
        """Makes sure that every closed span is an item, whatever wrote it.

        For what leaves logits processors out without a word, such as transformers' continuous
        batching (`generate_batch`, `cache_implementation="paged"`).

        Args:
            sequences: What was generated, with its prompt.
            prompt_length: Tokens of the prompt; closed spans in it are history.

        Raises:
            SpanError: A span is no item, or one that is excluded or was named before.
        """
        for number, row in enumerate(sequences.tolist()):
            text = self._prompt(row[:prompt_length], number)
            for place in range(prompt_length, len(row)):
                [text] = self._next([text], [row[place]])
                if text.fault and self._eoi in row[place:]:
                    raise SpanError(f"sequence {number}, token {place}: {text.fault}")

    def _masked(self, texts: Sequence[_Text], scores: _Scores) -> tuple[_Scores, _Best]:
        """The scores of allowed tokens, and the best of each sequence.

        Nothing is allowed to a sequence that has left the catalog.
        """
        inside, outside = list[int](), list[int]()
        for row, text in enumerate(texts):
            if not text.fault:
                (inside if text.span.inside else outside).append(row)
        closed = [row for row in outside if not self._may_begin(texts[row].span)]
        best = np.full(len(texts), -np.inf)
        lowest = torch.finfo(scores.dtype).min
        if len(outside) == len(texts):
            masked = scores.clone()
        else:
            masked = torch.full_like(scores, -torch.inf)
            masked[outside] = scores[outside]
        if inside:
            sizes, tokens, bias = allowed_in([texts[row].span for row in inside])
            rows = torch.as_tensor(np.repeat(inside, sizes)).to(scores.device)
            columns = torch.as_tensor(tokens, dtype=torch.long).to(scores.device)
            values = scores[rows, columns]
            # What `remove_invalid_values` makes of a ban.
            values = values.masked_fill(values <= lowest, -torch.inf)
            starts = sizes.cumsum() - sizes
            best[inside] = np.maximum.reduceat(values.double().cpu().numpy(), starts)
            if self._weights is not None:
                values = _guided(values, sizes, self._weights.model, bias)
            masked[rows, columns] = values
        if outside:
            masked[outside, self._eoi] = -torch.inf
            masked[closed, self._soi] = -torch.inf
            some = masked if len(outside) == len(texts) else masked[outside]
            found = some.amax(dim=1)
            best[outside] = found.masked_fill(found <= lowest, -torch.inf).double().cpu().numpy()
        return masked, best

    def _may_begin(self, span: SpanConstraint) -> bool:
        left = self._max_items is None or len(span.emitted) < self._max_items
        return left and span.can_begin()

    def _read(self, ids: Int[np.ndarray, "batch length"]) -> list[_Text]:
        """Where every sequence stands: known, a token further than a known one, or a prompt."""
        length = ids.shape[1]
        here, before = self._known.get(length, {}), self._known.get(length - 1, {})
        parents, keys = zip(*map(_keys, ids), strict=True)
        seen = (key in here or parent in before for key, parent in zip(keys, parents, strict=True))
        if not all(seen) or self._prompts.issuperset(keys):
            Surroundings.look().check(self._eoi)
            self.reset()
            self._prompts = frozenset(keys)
            here = before = {}
        texts = dict(here)
        last = ids[:, -1].tolist()
        # Each new text once, as two rows may be the same.
        grown: dict[bytes, int] = {}
        for row, (key, parent) in enumerate(zip(keys, parents, strict=True)):
            if parent in before and key not in here:
                grown[key] = row
            elif key not in texts:
                texts[key] = self._prompt(ids[row].tolist(), row)
        rows = list(grown.values())
        found = self._next([before[parents[row]] for row in rows], [last[row] for row in rows])
        texts.update(zip(grown, found, strict=True))
        possible = self._possible(parents, ids[:, -1])
        for key, row in grown.items() if not possible.all() else ():
            if not (texts[key].fault or possible[row]):
                texts[key] = replace(texts[key], fault=f"token {last[row]} was banned")
        oldest = length - _REMEMBERED
        self._known = {size: known for size, known in self._known.items() if size > oldest}
        self._known[length] = texts
        # Proposals are looked at one after the other, each a token longer.
        self._follows = parents[0] in self._rows
        self._rows = {}
        for number, key in enumerate(keys):
            self._rows.setdefault(key, []).append(number)
        return [texts[key] for key in keys]

    def _possible(
        self, parents: Sequence[bytes], tokens: Int[np.ndarray, " batch"]
    ) -> Bool[np.ndarray, " batch"]:
        """Whether each token could follow in the last call: another processor may have banned it.

        What was not part of that call is taken to be possible.
        """
        rows = [self._rows.get(parent, []) for parent in parents]
        sizes = [len(of_parent) for of_parent in rows]
        possible: np.ndarray = np.array(sizes) == 0
        if self._allowed is None or possible.all():
            return np.ones(len(parents), dtype=np.bool_)
        flat = torch.tensor([row for of_parent in rows for row in of_parent])
        chosen = torch.from_numpy(np.repeat(tokens, sizes).astype(np.int64))
        device = self._allowed.device
        left = self._allowed[flat.to(device), chosen.to(device)] > -torch.inf
        np.logical_or.at(possible, np.repeat(np.arange(len(rows)), sizes), left.cpu().numpy())
        return possible

    def _prompt(self, row: Sequence[int], number: int) -> _Text:
        """Where a prompt stands; the last control token decides whether it is in a span."""
        opened = open_span(row, self._soi, self._eoi)
        if opened is None:
            return _Text(self._begin)
        if not self._may_begin(self._begin):
            raise SpanError(
                f"prompt {number}: token {opened} opens an item span, and max_items is "
                f"{self._max_items}; leave it out"
            )
        span = self._begin.fork()
        span.begin()
        for place, token in enumerate(row[opened + 1 :], start=opened + 1):
            try:
                span.accept(token)
            except TrieError as error:
                raise SpanError(
                    f"prompt {number}: the span that token {opened} opens leads to no "
                    f"item from token {place} on ({error}); write a title as the items spell it, "
                    "close the span or leave it out"
                ) from error
        return _Text(span)

    def _next(self, texts: Sequence[_Text], tokens: Sequence[int]) -> list[_Text]:
        """Each text a token further. What has left the catalog stays outside of it."""
        found = list(texts)
        inside, opening = [], []
        for number, (text, token) in enumerate(zip(texts, tokens, strict=True)):
            if text.fault:
                continue
            if text.span.inside:
                inside.append(number)
            elif token == self._eoi:
                found[number] = replace(text, fault=f"token {token} closes no span")
            elif token == self._soi and self._may_begin(text.span):
                opening.append(number)
            elif token == self._soi:
                fault = f"token {token} opens a span where no item may follow"
                found[number] = replace(text, fault=fault)
        for number in (*inside, *opening):
            found[number] = _Text(texts[number].span.fork())
        if opening:
            begin_all([found[number].span for number in opening])
        spans = [found[number].span for number in inside]
        refusals = accept_all(spans, [tokens[number] for number in inside])
        for number, why in zip(inside, refusals, strict=True):
            if why:
                fault = f"an item span left the catalog ({why})"
                found[number] = replace(texts[number], fault=fault)
        return found

    def _judge(
        self, texts: Sequence[_Text], best: _Best, masked: _Scores, ids: Int[Tensor, "batch length"]
    ) -> None:
        """Tells what is wrong with scores none of which can be taken, where that is an error.

        Beams of probability zero, proposals that will not be accepted, and what stands behind the
        end of a sequence are none. As something has to be chosen there too, it is the token that
        cannot stand in a span.
        """
        strange = np.flatnonzero(np.isnan(best) | (best == np.inf))
        if len(strange):
            raise BackboneError(f"sequence {strange[0]}: {NOT_NUMBERS}")
        none = np.flatnonzero(best == -np.inf).tolist()
        lost = [row for row in none if texts[row].fault]
        blocked = [row for row in none if not texts[row].fault]
        around = Surroundings.look()
        if around.mode is Mode.BEAMS:
            for start in range(0, len(texts), max(1, around.beams)):
                group = range(len(texts))[start : start + max(1, around.beams)]
                stuck = [row for row in group if row in blocked]
                over = all(row in none for row in group)
                if (stuck and (around.needs_scores or over)) or (over and around.samples):
                    row = [*stuck, group[0]][0]
                    raise _blocked(row, texts[row].span, ids, masked)
            if around.needs_scores:
                masked[lost, self._soi] = 0
            return
        if blocked and around.mode is not Mode.DRAFT:
            raise _blocked(blocked[0], texts[blocked[0]].span, ids, masked)
        wrong = lost
        if around.mode is Mode.DRAFT or (around.mode is Mode.VERIFY and self._follows):
            wrong = []
        elif around.mode is Mode.SAMPLE and len(lost) < len(texts):
            # A sequence that has ended is padded, in the middle of a span too, while others go on;
            # one that goes on takes the token it is left below.
            wrong = [row for row in lost if ids[row, -1] == self._soi]
        if wrong:
            raise SpanError(
                f"sequence {wrong[0]}, token {ids.shape[1] - 1}: {texts[wrong[0]].fault}; "
                "something beside the constraint chose that token; let no other code do so"
            )
        masked[none, self._soi] = 0


def _guided(
    scores: Float[Tensor, " allowed"],
    sizes: Int64[np.ndarray, " spans"],
    model: float,
    bias: Float64[np.ndarray, " allowed"] | None,
) -> Float[Tensor, " allowed"]:
    """Scores of the tokens that may follow in some spans, one span after the other, as guided."""
    place = torch.from_numpy(np.arange(sizes.max()) < sizes[:, None]).to(scores.device)
    kind = torch.promote_types(scores.dtype, torch.float32)
    own = torch.full(place.shape, -torch.inf, dtype=kind, device=scores.device)
    own[place] = scores.to(kind)
    # A finite logarithm, as zero times an infinite one is not a number.
    guided = model * own.log_softmax(-1)[place].clamp(min=torch.finfo(kind).min)
    if bias is not None:
        guided += torch.from_numpy(bias).to(scores.device, kind)
    # What is allowed stays so, however unlikely; what was banned stays banned.
    guided = guided.clamp(min=torch.finfo(scores.dtype).min / 2).to(scores.dtype)
    return guided.masked_fill(scores == -torch.inf, -torch.inf)


def _blocked(
    row: int, span: SpanConstraint, ids: Int[Tensor, "batch length"], masked: _Scores
) -> BlockedError:
    """The error of a sequence that nothing is left to."""
    width, around = masked.shape[1], Surroundings.look()
    tokens = span.allowed().tolist() if span.inside else list(range(width))
    found = around.culprits(ids[row : row + 1], tokens, width)
    who = ", ".join(dict.fromkeys(found)) or "the model's own scores or another processor"
    where = "in an item span" if span.inside else "outside of item spans"
    return BlockedError(
        f"sequence {row}, token {ids.shape[1]}, {where}: every token that may follow is "
        f"banned by {who}; items need their tokens, so leave that out"
    )


def _keys(row: Int[np.ndarray, " length"]) -> tuple[bytes, bytes]:
    """What a text without its last token is known by, and the whole of it."""
    digest = hashlib.blake2b(np.ascontiguousarray(row[:-1]).data, digest_size=16)
    parent = digest.digest()
    digest.update(np.ascontiguousarray(row[-1:]).data)
    return parent, digest.digest()
