"""The answers of one catalog on a model's device, and what they are told from the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from incatalog.constraint.answer_grammar import AnswerForm
from incatalog.constraint.control import ControlTokens
from incatalog.constraint.excluded import ExcludedItems, free_rows
from incatalog.trie.trie import ItemTrie
from incatalog.vllm.device_answers import NOWHERE, DeviceAnswers, DeviceRules, Forms
from incatalog.vllm.device_tree import DeviceTree

_LEAST_WIDTH = 16


class DeviceItems:
    """The answers of one catalog on a device, a slot each."""

    def __init__(
        self,
        trie: ItemTrie,
        control: ControlTokens,
        only: Sequence[int],
        slots: int,
        vocabulary: int,
        device: torch.device,
    ) -> None:
        """Copies the trie; no answer has begun."""
        self._trie, self._device, self._end = trie, device, min(control.stop)
        self._forms: list[AnswerForm] = []
        self._rules: list[np.ndarray] = [np.zeros(trie.num_positions + 1, dtype=np.int64)]
        self._kept_rules: list[ExcludedItems | None] = [None]
        self._rule_of = np.zeros(slots, dtype=np.int64)
        self._soi = control.soi
        self.rules = DeviceRules(
            DeviceTree.of(trie, control.eoi, device),
            self._told(),
            self._before(),
            control.soi,
            torch.tensor(sorted(control.stop), device=device),
            torch.tensor(list(only), dtype=torch.int64, device=device),
            vocabulary,
        )
        numbers = [field.name for field in fields(DeviceAnswers) if field.name != "blocked"]
        zeros = {name: torch.zeros(slots, dtype=torch.int64, device=device) for name in numbers}
        blocked = torch.full((slots, _LEAST_WIDTH), NOWHERE, device=device)
        self.answers = DeviceAnswers(**zeros, blocked=blocked)

    def begin(
        self, slot: int, excluded: ExcludedItems | None, form: AnswerForm, tokens: int
    ) -> None:
        """Lets an answer of so many tokens at most begin in a slot, in place of what was there."""
        live, listed, rule = self._trie.num_live, np.empty(0, np.int64), 0
        if excluded is not None:
            listed = excluded.listed[excluded.listed < live].astype(np.int64)
            rule = self._rule(slot, excluded)
        self._rule_of[slot] = rule
        left = int(np.count_nonzero(free_rows(self._trie, excluded)))
        # An item takes three tokens at least, and may take all of its spellings along.
        most = form.limit if form.limit is not None else tokens // 3 + 1
        width = len(listed) + min(most * self.rules.tree.most_gone, live) + 1
        self._widen(width)
        blocked = np.full(self.answers.blocked.shape[1], NOWHERE)
        blocked[: len(listed)] = listed
        values = dict.fromkeys(("mode", "at", "end", "node", "lo", "hi", "named"), 0)
        values |= {"form": self._form(form), "left": left, "rule": rule}
        begins = DeviceAnswers(
            **{name: torch.tensor([value], device=self._device) for name, value in values.items()},
            blocked=torch.from_numpy(blocked)[None].to(self._device),
        )
        begins = self.rules.begun(begins)
        index = torch.tensor([slot], device=self._device)
        self.answers.put(index, begins, torch.ones(1, dtype=torch.bool, device=self._device))

    def _widen(self, width: int) -> None:
        """Makes room for so many blocked positions."""
        missing = width - self.answers.blocked.shape[1]
        if missing > 0:
            more = self.answers.blocked.new_full((len(self.answers.blocked), 2 * missing), NOWHERE)
            self.answers.blocked = torch.cat([self.answers.blocked, more], 1)

    def _form(self, form: AnswerForm) -> int:
        """The number of a form, told to the device where it is new."""
        if form not in self._forms:
            self._forms.append(form)
            self._replace(forms=self._told())
        return self._forms.index(form)

    def _rule(self, slot: int, excluded: ExcludedItems) -> int:
        """The number of a rule for the catalog; those that no answer goes by are forgotten."""
        if excluded.before is None:
            return 0
        for number, kept in enumerate(self._kept_rules):
            if kept is not None and kept.before is excluded.before:
                return number
        used = {0, *np.delete(self._rule_of, slot).tolist()}
        vacant = [number for number in range(len(self._rules)) if number not in used]
        number = vacant[0] if vacant else len(self._rules)
        self._rules[number : number + 1] = [excluded.before.astype(np.int64)]
        self._kept_rules[number : number + 1] = [excluded]
        self._replace(before=self._before())
        return number

    def _replace(self, **changed: Any) -> None:
        self.rules = DeviceRules(**(self.rules.__dict__ | changed))

    def _before(self) -> Int64[Tensor, "rules positions+1"]:
        return torch.from_numpy(np.stack(self._rules)).to(self._device)

    def _told(self) -> Forms:
        """The forms as the device reads them."""
        forms = self._forms or [AnswerForm()]
        lists = max(len(form.before_item or ()) for form in forms) + 1
        given: list[list[int]] = []
        starts = np.zeros((len(forms), lists), dtype=np.int64)
        ends = np.ones((len(forms), lists), dtype=np.int64)
        for number, form in enumerate(forms):
            # The end comes first, and stands for all that is not there.
            row = [self._end]
            for line, before in enumerate(form.before_item or ()):
                starts[number, line] = len(row)
                row += [*before, self._soi]
                ends[number, line] = len(row)
            given.append(row)
        longest = max(map(len, given)) + 1
        table = np.array([row + [0] * (longest - len(row)) for row in given])
        limits = np.array([-1 if form.limit is None else form.limit for form in forms])
        listed = np.array([form.before_item is not None for form in forms])
        arrays = (table, starts, ends, limits, listed)
        return Forms(*(torch.from_numpy(array).to(self._device) for array in arrays))
