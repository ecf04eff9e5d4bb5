from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reclm import ItemConstrainedLogitsProcessor, ItemTrie
from reclm.errors import (
    NoItemLeftError,
    SpanError,
    TokenizerError,
    TrieError,
)
from worlds import (
    EOI,
    FIRST_WORD,
    PAD,
    SOI,
    STOP,
    VOCAB,
    count_decisions,
    make_model,
    prompts,
    read,
    token_rows,
)

FLAT = torch.zeros(1, VOCAB)


def allowed(processor: ItemConstrainedLogitsProcessor, tokens: Sequence[int]) -> list[int]:
    scores = processor(torch.tensor([tokens]), FLAT)
    return (scores[0] > -torch.inf).nonzero()[:, 0].tolist()


def generate(model: Any, batch: Sequence[Sequence[int]], limit: int, **options: Any) -> Any:
    width = max(map(len, batch))
    ids = torch.tensor([[PAD] * (width - len(row)) + list(row) for row in batch])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch])
    return model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=limit, **options)


def test_masks_step_by_step() -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build([[4, 5], [4], [6]]), SOI, EOI)
    text = [token for token in range(VOCAB) if token != EOI]
    answer = [9, 9]
    for token, expected in (
        (None, text),
        (7, text),
        (SOI, [4, 6]),
        (4, [EOI, 5]),
        (EOI, text),
        (SOI, [4, 6]),
        (4, [5]),
        (5, [EOI]),
        (EOI, text),
        (SOI, [6]),
        (6, [EOI]),
        (EOI, [token for token in text if token != SOI]),
        (7, [token for token in text if token != SOI]),
    ):
        answer += [] if token is None else [token]
        assert allowed(processor, answer) == expected


def test_closed_spans_of_the_prompt_are_history() -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build([[4], [6]]), SOI, EOI)
    outside = [token for token in range(VOCAB) if token != EOI]
    assert allowed(processor, [SOI, 4, EOI, 7]) == outside
    assert allowed(processor, [SOI, 4, EOI, 7, SOI]) == [4, 6]
    assert allowed(processor, [SOI, 4, EOI, 7, SOI, 4]) == [EOI]
    # Another prompt that happens to be one token longer than the last call's input.
    assert allowed(processor, [5, SOI, 4, EOI, 7, 7, 4]) == outside
    # The same prompt again.
    assert allowed(processor, [SOI, 4, EOI, 7]) == outside
    assert allowed(processor, [SOI, 4, EOI, 7, SOI]) == [4, 6]
    assert allowed(processor, [SOI, 4, EOI, 7, SOI, 6]) == [EOI]
    assert allowed(processor, [SOI, 4, EOI, 7, SOI, 6, EOI]) == outside
    assert allowed(processor, [SOI, 4, EOI, 7, SOI, 6, EOI, SOI]) == [4]
    # What was generated becomes the next prompt.
    processor.reset()
    assert allowed(processor, [SOI, 4, EOI, 7, SOI, 6, EOI, SOI]) == [4, 6]
    # A further turn of the conversation needs no reset: it is more than a token longer.
    assert allowed(processor, [SOI, 4, EOI, 7, SOI, 6, EOI, SOI, 4, EOI, 3, 7, SOI]) == [4, 6]


def test_a_prompt_that_ends_in_an_open_span_goes_on_inside() -> None:
    processor = ItemConstrainedLogitsProcessor(
        ItemTrie.build([[4, 5], [4, 7], [6]]), SOI, EOI, excluded=[1]
    )
    assert allowed(processor, [9, SOI]) == [4, 6]
    assert allowed(processor, [9, SOI, 4]) == [5]
    assert allowed(processor, [9, 9, 9, SOI, 4, 5]) == [EOI]
    # An open span further back is text: the last control token decides.
    assert allowed(processor, [SOI, 9, 9, SOI, 4]) == [5]
    assert 9 in allowed(processor, [SOI, 9, SOI, 6, EOI, 8])
    # What it names counts as named.
    assert allowed(processor, [8, 8, SOI, 6]) == [EOI]
    assert SOI in allowed(processor, [8, 8, SOI, 6, EOI])
    assert allowed(processor, [8, 8, SOI, 6, EOI, SOI]) == [4]


@pytest.mark.parametrize("prompt", [[SOI, 9], [SOI, 4, 7], [SOI, 6, 6], [7, SOI, 4, 5, 5]])
def test_a_prompt_whose_open_span_leads_to_no_item_is_refused(prompt: list[int]) -> None:
    trie = ItemTrie.build([[4, 5], [4, 7], [6]])
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=[1])
    with pytest.raises(SpanError, match="leads to no item"):
        allowed(processor, prompt)
    # The processor is as good as new.
    assert allowed(processor, [9, SOI]) == [4, 6]


def test_calls_may_skip_repeat_and_go_back() -> None:
    """As assisted generation does."""
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build([[4, 5], [6, 7]]), SOI, EOI)
    allowed(processor, [9])
    for token, expected in ((SOI, [4, 6]), (4, [5]), (5, [EOI])):
        assert allowed(processor, [9, SOI, 4, 5][: [SOI, 4, 5].index(token) + 2]) == expected
    assert allowed(processor, [9, SOI, 6]) == [7]
    assert allowed(processor, [9, SOI]) == [4, 6]
    assert allowed(processor, [9, SOI, 4]) == [5]
    assert allowed(processor, [9, SOI, 4, 5, EOI, SOI]) == [4, 6]  # five tokens at once: a prompt
    assert allowed(processor, [9, SOI, 4, 5, EOI, SOI, 4, 5]) == [EOI]
    rows = torch.tensor([[9, SOI, 4], [9, SOI, 6], [9, 7, SOI]])
    turned = processor(rows.flip(0), FLAT.expand(3, -1)).flip(0)
    assert torch.equal(turned, processor(rows, FLAT.expand(3, -1)))


def test_scores_are_left_alone() -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build([[4], [6]]), SOI, EOI)
    scores = torch.randn(2, VOCAB)
    before = scores.clone()
    processor(torch.tensor([[7], [8]]), scores)
    masked = processor(torch.tensor([[7, SOI], [8, 5]]), scores)
    assert torch.equal(scores, before)
    assert torch.equal(masked[0, [4, 6]], before[0, [4, 6]])
    keep = [token for token in range(VOCAB) if token != EOI]
    assert torch.equal(masked[1, keep], before[1, keep])


def test_limit_domain_and_exclusions() -> None:
    trie = ItemTrie.build([[4], [5], [6], [7]], domains=["film", "film", "book", "film"])
    processor = ItemConstrainedLogitsProcessor(
        trie, SOI, EOI, domain="film", excluded=[1], max_items=1, unique=False
    )
    assert SOI in allowed(processor, [9])
    assert allowed(processor, [9, SOI]) == [4, 7]
    assert allowed(processor, [9, SOI, 4]) == [EOI]
    assert SOI not in allowed(processor, [9, SOI, 4, EOI])
    with pytest.raises(NoItemLeftError, match="exclude fewer"):
        ItemConstrainedLogitsProcessor(trie, SOI, EOI, domain="book", excluded=[2])
    with pytest.raises(TrieError):
        ItemConstrainedLogitsProcessor(trie, SOI, EOI)
    with pytest.raises(TrieError):
        ItemConstrainedLogitsProcessor(trie, SOI, EOI, domain="film", excluded=[4])
    with pytest.raises(TokenizerError):
        ItemConstrainedLogitsProcessor(ItemTrie.build([[4, SOI]]), SOI, EOI)


def check_answer(rows: list[list[int]], answer: list[int], excluded: set[int]) -> None:
    answer = answer[: answer.index(STOP)] if STOP in answer else answer
    reading = read(answer)
    assert len(set(reading.spans)) == len(reading.spans)
    assert EOI not in reading.text
    count_decisions(rows, answer, excluded, True)  # every token of every span was allowed


@settings(max_examples=40, deadline=None, derandomize=True)
@given(token_rows, prompts, st.integers(0, 3), st.data())
def test_samples_name_items_only(
    rows: list[list[int]], batch: list[list[int]], seed: int, data: st.DataObject
) -> None:
    excluded = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(rows), SOI, EOI, excluded=excluded)
    torch.manual_seed(seed)
    width = max(map(len, batch))
    output = generate(
        make_model(seed), batch, 20, do_sample=True, temperature=2.0, logits_processor=[processor]
    )
    for row in output[:, width:].tolist():
        check_answer(rows, row, excluded)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(token_rows, prompts, st.integers(0, 3), st.integers(2, 4), st.booleans())
def test_beams_name_items_only(
    rows: list[list[int]], batch: list[list[int]], seed: int, beams: int, sample: bool
) -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(rows), SOI, EOI)
    torch.manual_seed(seed)
    width = max(map(len, batch))
    output = generate(
        make_model(seed),
        batch,
        12,
        num_beams=beams,
        do_sample=sample,
        num_return_sequences=beams,
        return_dict_in_generate=True,
        output_scores=True,
        logits_processor=[processor],
    )
    answers = output.sequences[:, width:].tolist()
    assert not output.sequences_scores.isnan().any()
    for answer, score in zip(answers, output.sequences_scores.tolist(), strict=True):
        if score > -torch.inf:
            check_answer(rows, answer, set())


def test_beam_search_finds_the_most_probable_items() -> None:
    """With as many beams as items, the ranking of the items is exact."""
    rows = [[4, 5], [4, 6, 7], [8], [9, 9], [9, 10], [4]]
    model = make_model(1)
    prompt = [5, 7, SOI, 11]

    class OnlyItems(ItemConstrainedLogitsProcessor):
        """Opens a span at once and stops behind it."""

        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            masked = super().__call__(input_ids, scores)
            for number, row in enumerate(input_ids[:, len(prompt) :].tolist()):
                forced = SOI if not row else STOP if row[-1] in (EOI, STOP) else None
                if forced is not None:
                    masked[number] = -torch.inf
                    masked[number, forced] = 0
            return masked

    output = generate(
        model,
        [prompt],
        8,
        num_beams=len(rows),
        num_return_sequences=len(rows),
        length_penalty=0.0,
        do_sample=False,
        return_dict_in_generate=True,
        output_scores=True,
        logits_processor=[OnlyItems(ItemTrie.build(rows), SOI, EOI)],
    )
    found = [read(row).spans[0] for row in output.sequences[:, len(prompt) :].tolist()]

    @torch.no_grad()
    def logprob(row: list[int]) -> float:
        span = [*row, EOI]
        logits = model(input_ids=torch.tensor([[*prompt, SOI, *span]])).logits[0]
        steps = logits.log_softmax(-1)[len(prompt) : len(prompt) + len(span)]
        return float(sum(steps[position, token] for position, token in enumerate(span)))

    assert found == [tuple(row) for row in sorted(rows, key=logprob, reverse=True)]


def test_more_items_than_exist_ends_with_all_of_them() -> None:
    rows = [[word] for word in range(FIRST_WORD, FIRST_WORD + 3)]
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(rows), SOI, EOI)
    model = make_model(0)
    output = generate(model, [[5, 6], [7]], 200, do_sample=False, logits_processor=[processor])
    for answer in output[:, 2:].tolist():
        check_answer(rows, answer, set())
        assert len(read(answer).spans) <= len(rows)
