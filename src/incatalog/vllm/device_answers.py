"""Many answers a token further, as operations on tensors: `AnswerGrammar` on a model's device."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from incatalog.vllm.device_tree import DeviceTree

FREE, GIVEN, INSIDE, ENDED, LOST = range(5)
"""What an answer stands in: free text, text that is given, a span; behind its end; or off."""
# Stands for no position, behind all that there are.
NOWHERE = 2**40

_Rows = Int64[Tensor, " rows"]
_Which = Bool[Tensor, " rows"]


class Forms(NamedTuple):
    """What stands around the items, by the number of the form; see `AnswerForm`.

    The given text of a list is one row: what stands before the first item with its opening token,
    before the second, …, and last the token that ends the answer.
    """

    given: Int64[Tensor, "forms tokens"]
    starts: Int64[Tensor, "forms lists"]  # by items named; the end stands behind the last
    ends: Int64[Tensor, "forms lists"]
    limit: Int64[Tensor, " forms"]  # items at most, -1 for no limit
    listed: Bool[Tensor, " forms"]  # whether it is a list


@dataclass
class DeviceAnswers:
    """Where answers stand, a row each; `blocked` ascends in each."""

    mode: _Rows
    form: _Rows
    at: _Rows  # place in the given text, or in the tail of the trie
    end: _Rows  # where that ends
    node: _Rows  # what is behind the tail, -1 where the item ends
    lo: _Rows
    hi: _Rows
    left: _Rows  # items that may still be named
    named: _Rows
    rule: _Rows  # number of the rule
    blocked: Int64[Tensor, "rows width"]

    def rows(self, index: _Rows) -> DeviceAnswers:
        """A copy of some of them."""
        return DeviceAnswers(*(getattr(self, one.name)[index] for one in fields(self)))

    def put(self, index: _Rows, others: DeviceAnswers, which: _Which) -> None:
        """Puts others in the place of some, where they are wanted; their numbers differ."""
        for one in fields(self):
            own, new = getattr(self, one.name), getattr(others, one.name)
            keep = which if new.dim() == 1 else which[:, None]
            own[index] = torch.where(keep, new, own[index])


@dataclass(frozen=True)
class DeviceRules:
    """All that holds for every answer of one catalog on one device."""

    tree: DeviceTree
    forms: Forms
    # Excluded positions before each position, a row a rule; the first rule excludes nothing.
    before: Int64[Tensor, "rules positions+1"]
    soi: int
    stop: Int64[Tensor, " stop"]
    only: Int64[Tensor, " only"]  # tokens that stand in spans alone
    vocabulary: int

    def allowed(self, answers: DeviceAnswers) -> Bool[Tensor, "rows vocab"]:
        """Which tokens may come next in each; all where an answer has ended, or is off."""
        tree, count = self.tree, len(answers.mode)
        device = answers.mode.device
        free = (answers.mode == FREE)[:, None]
        over = ((answers.mode == ENDED) | (answers.mode == LOST))[:, None]
        # A column more, for what is not asked for.
        mask = (free | over).repeat(1, self.vocabulary + 1)
        mask[:, tree.eoi] &= over[:, 0]
        mask[:, self.only] &= over
        mask[:, self.soi] &= over[:, 0] | self._may_begin(answers)
        one = self._one(answers)
        nothing = torch.full((count,), self.vocabulary, device=device)
        mask.scatter_(1, torch.where(one >= 0, one, nothing)[:, None], True)
        edges, tokens, open_ = self._choices(answers)
        tokens = torch.where(open_, tokens, self.vocabulary)
        mask.scatter_(1, tokens, True)
        del edges
        return mask[:, : self.vocabulary]

    def begun(self, answers: DeviceAnswers) -> DeviceAnswers:
        """Answers that begin, with what has to come."""
        return self._settled(answers, torch.ones_like(answers.mode, dtype=torch.bool))

    def accept(self, answers: DeviceAnswers, tokens: _Rows) -> DeviceAnswers:
        """Each answer a token further; one that may not take it is off from then on."""
        tree, mode = self.tree, answers.mode
        one = self._one(answers)
        edges, choices, open_ = self._choices(answers)
        fits = open_ & (choices == tokens[:, None])
        chosen = edges.gather(1, fits.to(torch.int64).argmax(1)[:, None])[:, 0]
        decides = self._decides(answers)
        free, given, inside = mode == FREE, mode == GIVEN, mode == INSIDE
        stops, opens = torch.isin(tokens, self.stop), tokens == self.soi
        barred = (tokens == tree.eoi) | torch.isin(tokens, self.only)
        may = self._may_begin(answers)
        good = torch.where(decides, fits.any(1), one == tokens)
        good = torch.where(free, stops | ~(barred | (opens & ~may)), good)
        good &= mode != ENDED
        # Moved within what is given or forced; behind it a span opens, or the answer ends.
        at = answers.at + (one >= 0)
        behind = given & (at == answers.end)
        opens = (free & opens & ~stops) | (behind & opens)
        ends = (free & stops) | (behind & ~opens)
        closes = inside & (tokens == tree.eoi)
        node = torch.where(decides, answers.node, 0)
        place = torch.where(decides, chosen, 0)
        bound = place + node
        moved = DeviceAnswers(
            torch.where(opens, INSIDE, torch.where(ends, ENDED, mode)),
            answers.form,
            torch.where(decides, tree.tail_start[place], at),
            torch.where(decides, tree.tail_start[place + 1], answers.end),
            torch.where(decides, tree.edge_node[place], answers.node),
            torch.where(decides, tree.bounds[bound], answers.lo),
            torch.where(decides, tree.bounds[bound + 1], answers.hi),
            answers.left,
            answers.named,
            answers.rule,
            answers.blocked,
        )
        for name, value in zip(("lo", "hi", "at", "end", "node"), tree.root, strict=True):
            setattr(moved, name, torch.where(opens, value, getattr(moved, name)))
        moved = self._named(moved, closes & good)
        moved.mode = torch.where(good, moved.mode, LOST)
        return moved

    def _decides(self, answers: DeviceAnswers) -> _Which:
        tail = answers.at < answers.end
        return (answers.mode == INSIDE) & ~tail & (answers.node >= 0)

    def _one(self, answers: DeviceAnswers) -> _Rows:
        """The token that has to come next, -1 where there are choices."""
        tree, tail = self.tree, answers.at < answers.end
        inside, given = answers.mode == INSIDE, answers.mode == GIVEN
        forced = torch.where(tail, tree.tail[torch.where(inside & tail, answers.at, 0)], tree.eoi)
        forced = torch.where(self._decides(answers), -1, forced)
        text = self.forms.given[answers.form, torch.where(given, answers.at, 0)]
        return torch.where(inside, forced, torch.where(given, text, -1))

    def _may_begin(self, answers: DeviceAnswers) -> _Which:
        limit = self.forms.limit[answers.form]
        return ((limit < 0) | (answers.named < limit)) & (answers.left > 0)

    def _choices(
        self, answers: DeviceAnswers
    ) -> tuple[
        Int64[Tensor, "rows choices"], Int64[Tensor, "rows choices"], Bool[Tensor, "rows choices"]
    ]:
        """The edges of each answer's node, their tokens, and which of them may be taken."""
        tree, decides = self.tree, self._decides(answers)
        node = torch.where(decides, answers.node, 0)[:, None]
        edges = tree.node_edges[node] + torch.arange(tree.most_choices, device=node.device)
        real = decides[:, None] & (edges < tree.node_edges[node + 1])
        edges = torch.where(real, edges, 0)
        low, high = tree.bounds[edges + node], tree.bounds[edges + node + 1]
        low, high = torch.where(real, low, 0), torch.where(real, high, 0)
        rule = answers.rule[:, None]
        gone = self.before[rule, high] - self.before[rule, low]
        gone += torch.searchsorted(answers.blocked, high) - torch.searchsorted(answers.blocked, low)
        return edges, tree.edge_token[edges], real & (high - low > gone)

    def _named(self, answers: DeviceAnswers, closes: _Which) -> DeviceAnswers:
        """With what is blocked once an item was named, and what has to come then."""
        tree = self.tree
        lo = torch.where(closes, answers.lo, 0)
        places = tree.gone_start[lo][:, None] + torch.arange(tree.most_gone, device=lo.device)
        real = closes[:, None] & (places < tree.gone_start[lo + 1][:, None])
        gone = torch.where(real, tree.gone[torch.where(real, places, 0)], 0)
        rule = answers.rule[:, None]
        ruled = self.before[rule, gone + 1] > self.before[rule, gone]
        place = torch.searchsorted(answers.blocked, gone)
        inner = place.clamp(max=answers.blocked.shape[1] - 1)
        known = answers.blocked.gather(1, inner) == gone
        spent = real & ~ruled & ~known
        # Other spellings go with an item, and are no items of their own.
        items = spent & (gone >= answers.lo[:, None]) & (gone < answers.hi[:, None])
        # In place of entries that stand for nothing, of which there are enough.
        width = answers.blocked.shape[1]
        added = torch.cat([answers.blocked, torch.where(spent, gone, NOWHERE)], 1)
        answers.blocked = added.sort(1).values[:, :width]
        answers.left = answers.left - items.sum(1)
        answers.named = answers.named + closes
        return self._settled(answers, closes)

    def _settled(self, answers: DeviceAnswers, which: _Which) -> DeviceAnswers:
        """With what has to come next outside of spans, where a list goes on or an answer ends."""
        forms, form, named = self.forms, answers.form, answers.named
        limit, last = forms.limit[form], forms.starts.shape[1] - 1
        full = (limit >= 0) & (named >= limit) & (named > 0)
        full |= (limit != -1) & (limit != 0) & (answers.left <= 0)
        listed = forms.listed[form]
        line = torch.where(full, last, named.clamp(max=last))
        given = full | listed
        mode = torch.where(given, GIVEN, FREE)
        answers.mode = torch.where(which, mode, answers.mode)
        outside = which & given
        answers.at = torch.where(outside, forms.starts[form, line], answers.at)
        answers.end = torch.where(outside, forms.ends[form, line], answers.end)
        return answers
