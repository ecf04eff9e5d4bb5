"""Runs in the environment of vLLM: its V2 class beside the compiled loops, over random batches.

`python device_rows.py EXAMPLES`. The state of requests is a stand-in, as the real one needs a GPU.
"""

from __future__ import annotations

import random
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import _load_logitsprocs_plugins
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState
from vllm.v1.worker.gpu.sample.logits_processor.loader import _load_v2_logitsprocs_plugins

from incatalog.constraint.answer_grammar import AnswerForm, AnswerGrammar
from incatalog.constraint.control import ControlTokens
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.span import SpanConstraint
from incatalog.trie.trie import ItemTrie
from incatalog.vllm import device_processor, logits_processor
from incatalog.vllm.runners import ItemProcessor

SOI, EOI, STOP, VOCAB = 1, 2, 3, 14
SLOTS, LONGEST, DRAFTS = 5, 64, 3
CONTROL = ControlTokens(SOI, EOI, frozenset({STOP}))


class Answers:
    """What `AnswerGrammars` gives the class, from parts drawn beforehand."""

    control, item_only = CONTROL, (5,)

    def __init__(self, parts: dict[int, Any]) -> None:
        self._parts = parts

    def parts(self, asked: Any) -> Any:
        return self._parts[asked.k]


class Slot:
    """A request as the runner has it: its tokens, and the loops' own state."""

    def __init__(self, draw: random.Random, trie: ItemTrie) -> None:
        lines = draw.choice([None, ((6, 7), (), (8,))])
        self.form = AnswerForm(lines, draw.choice([None, 1, 2, 3]), Answers.item_only)
        some = draw.sample(range(trie.num_items), draw.randrange(trie.num_items))
        base = None
        if draw.random() < 0.5:
            mask = np.array([draw.random() < 0.3 for _ in range(trie.num_items)])
            mask[draw.choice([row for row in range(trie.num_items) if row not in some])] = False
            base = ExcludedItems.build(trie, mask)
            some = [row for row in some if draw.random() < 0.3]
        self.excluded = ExcludedItems.build(trie, some, base)
        if not (trie.live_rows & ~self.excluded.rows).any():
            self.excluded = None
        self.trie = trie
        self.prompt = [draw.randrange(VOCAB) for _ in range(draw.randrange(1, 6))]
        self.tokens: list[int] = []
        span = SpanConstraint(trie, EOI, excluded=self.excluded)
        self.grammar = AnswerGrammar(span, CONTROL, self.form)

    def may(self, grammar: AnswerGrammar) -> list[int]:
        if grammar.ended:
            return list(range(VOCAB))
        if grammar.free:
            return sorted({*range(VOCAB)} - {*grammar.banned()})
        return grammar.allowed().tolist()


def compare(seed: int) -> int:
    draw = random.Random(seed)
    tries = []
    for _ in range(2):
        count = draw.randrange(1, 10)
        rows = [
            [draw.choice((4, 6, 7, 9)) for _ in range(draw.randrange(1, 5))] for _ in range(count)
        ]
        tries.append(ItemTrie.build(rows))
    parts: dict[int, Any] = {}
    plan = SimpleNamespace(grammars=Answers(parts), through="processor")
    device_processor.plan_of = lambda config: plan
    numbers = {name: np.zeros(SLOTS, np.int32) for name in ("prompt_len", "prefill_len")}
    backed = {
        name: SimpleNamespace(np=array, gpu=torch.from_numpy(array))
        for name, array in numbers.items()
    }
    every = torch.zeros(SLOTS, LONGEST, dtype=torch.int32)
    state = LogitsProcRequestState(
        device=torch.device("cpu"), max_num_reqs=SLOTS, vocab_size=VOCAB,
        all_token_ids=SimpleNamespace(gpu=every), total_len=None, **backed,
    )  # fmt: skip
    drafts = draw.choice([0, DRAFTS])
    config = SimpleNamespace(
        num_speculative_tokens=drafts, model_config=SimpleNamespace(max_model_len=LONGEST)
    )
    processor = ItemProcessor(config, state)
    assert type(processor) is device_processor.DeviceItemProcessor
    slots: dict[int, Slot] = {}
    checked = 0

    def put(number: int, slot: Slot) -> None:
        """A request enters the batch, for the first time or after it was put aside."""
        whole = slot.prompt + slot.tokens
        numbers["prompt_len"][number], numbers["prefill_len"][number] = (
            len(slot.prompt),
            len(whole),
        )
        every[number] = 0
        every[number, : len(whole)] = torch.tensor(whole)
        parts[number + 1] = slot.trie, slot.excluded, slot.form
        params = SimpleNamespace(extra_args={"incatalog": {"k": number + 1}}, max_tokens=LONGEST)
        assert processor.add_request(number, params)
        processor.apply_staged_writes()

    for _ in range(16):
        for number in range(SLOTS):
            if number not in slots or slots[number].grammar.ended or draw.random() < 0.05:
                slots[number] = Slot(draw, draw.choice(tries))
                put(number, slots[number])
            elif draw.random() < 0.1:
                put(number, slots[number])
        batch = draw.sample(sorted(slots), draw.randrange(1, SLOTS + 1))
        rows: list[tuple[int, int, int, int]] = []  # slot, place among its own, token, position
        wanted: list[list[int]] = []
        for number in batch:
            slot = slots[number]
            whole = slot.prompt + slot.tokens
            grammar = slot.grammar.fork()
            place = len(whole) - 1
            # A prompt that was not read to its end yet, whose row nobody looks at.
            if not slot.tokens and draw.random() < 0.2:
                rows.append((number, 0, whole[0], 0))
                wanted.append([] if place else slot.may(grammar))
                continue
            rows.append((number, 0, whole[place], place))
            wanted.append(slot.may(grammar))
            for draft in range(1, draw.randrange(drafts + 1) + 1):
                if grammar.ended:
                    break
                token = draw.choice(slot.may(grammar))
                grammar.accept(token)
                rows.append((number, draft, token, place + draft))
                wanted.append(slot.may(grammar))
        mapping, local, ids, pos = (
            torch.tensor(column, dtype=torch.int32) for column in zip(*rows, strict=True)
        )
        lengths = [len(slots[n].prompt) + len(slots[n].tokens) + drafts for n in batch]
        context = LogitsContext(
            expanded_idx_mapping=mapping, idx_mapping=torch.tensor(batch, dtype=torch.int32),
            idx_mapping_np=np.array(batch), expanded_local_pos=local, input_ids=ids, pos=pos,
            seq_lens_upper_bound_np=np.array(lengths),
        )  # fmt: skip
        logits = processor.apply(torch.zeros(len(rows), VOCAB), context)
        for row, (may, found) in enumerate(zip(wanted, logits, strict=True)):
            told = torch.nonzero(found > -torch.inf)[:, 0].tolist()
            assert not may or told == may, (seed, rows[row], told, may)
            checked += 1
        # What was sampled: some of the drafts, and one more.
        for number in batch:
            slot = slots[number]
            own = [row for row in rows if row[0] == number]
            if own[0][3] < len(slot.prompt) - 1:
                continue
            for _, _, token, _ in own[1 : draw.randrange(len(own)) + 1]:
                assert not slot.grammar.accept(token)
                slot.tokens.append(token)
            if not slot.grammar.ended:
                token = draw.choice(slot.may(slot.grammar))
                assert not slot.grammar.accept(token)
                slot.tokens.append(token)
            whole = slot.prompt + slot.tokens
            every[number, : len(whole)] = torch.tensor(whole)
    return checked


def find_each_its_own() -> None:
    """Both runners look through one group of entry points, and V2 refuses what it does not know."""
    assert _load_logitsprocs_plugins() == [ItemProcessor]
    assert _load_v2_logitsprocs_plugins() == [ItemProcessor]
    logits_processor.plan_of = lambda config: None
    [found] = [one(None, torch.device("cpu"), False) for one in _load_logitsprocs_plugins()]
    assert type(found) is logits_processor.ItemLogitsProcessor


if __name__ == "__main__":
    find_each_its_own()
    print(sum(compare(seed) for seed in range(int(sys.argv[1]))))  # noqa: T201
