from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LogitsProcessor, StoppingCriteria

from incatalog import ItemConstrainedLogitsProcessor, ItemTrie
from incatalog.constraint.excluded import ExcludedItems
from incatalog.constraint.weights import ItemWeights
from incatalog.errors import (
    BackboneError,
    BlockedError,
    ConfigError,
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
    choices,
    count_decisions,
    make_model,
    open_prompts,
    opened,
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


def test_limit_and_exclusions() -> None:
    trie = ItemTrie.build([[4], [5], [6], [7]])
    processor = ItemConstrainedLogitsProcessor(
        trie, SOI, EOI, excluded=[1, 2], max_items=1, unique=False
    )
    assert SOI in allowed(processor, [9])
    assert allowed(processor, [9, SOI]) == [4, 7]
    assert allowed(processor, [9, SOI, 4]) == [EOI]
    assert SOI not in allowed(processor, [9, SOI, 4, EOI])
    with pytest.raises(NoItemLeftError, match="exclude fewer"):
        ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=range(4))
    with pytest.raises(TrieError):
        ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=[4])
    with pytest.raises(TokenizerError):
        ItemConstrainedLogitsProcessor(ItemTrie.build([[4, SOI]]), SOI, EOI)


def check_answer(
    rows: list[list[int]], prompt: list[int], answer: list[int], excluded: set[int]
) -> None:
    answer = answer[: answer.index(STOP)] if STOP in answer else answer
    begun = opened(prompt)
    answer = answer if begun is None else [SOI, *begun, *answer]
    reading = read(answer)
    assert len(set(reading.spans)) == len(reading.spans)
    assert EOI not in reading.text
    count_decisions(rows, answer, excluded, True)  # every token of every span was allowed


def leads_to_items(rows: list[list[int]], prompt: list[int], excluded: set[int]) -> bool:
    begun = opened(prompt)
    return begun is None or bool(choices(rows, begun, excluded))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(token_rows, open_prompts, st.integers(0, 3), st.data())
def test_samples_name_items_only(
    rows: list[list[int]], batch: list[list[int]], seed: int, data: st.DataObject
) -> None:
    excluded = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(rows), SOI, EOI, excluded=excluded)
    torch.manual_seed(seed)
    width = max(map(len, batch))
    options = {"do_sample": True, "temperature": 2.0, "logits_processor": [processor]}
    if not all(leads_to_items(rows, prompt, excluded) for prompt in batch):
        with pytest.raises(SpanError, match="leads to no item"):
            generate(make_model(seed), batch, 20, **options)
        return
    output = generate(make_model(seed), batch, 20, **options)
    for prompt, row in zip(batch, output[:, width:].tolist(), strict=True):
        check_answer(rows, prompt, row, excluded)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(token_rows, open_prompts, st.integers(0, 3), st.integers(2, 4), st.booleans())
def test_beams_name_items_only(
    rows: list[list[int]], batch: list[list[int]], seed: int, beams: int, sample: bool
) -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(rows), SOI, EOI)
    batch = [prompt for prompt in batch if leads_to_items(rows, prompt, set())] or [[9]]
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
    for place, (answer, score) in enumerate(
        zip(answers, output.sequences_scores.tolist(), strict=True)
    ):
        if score > -1e8:
            check_answer(rows, batch[place // beams], answer, set())


class Only(LogitsProcessor):
    """Somebody else's processor: lets nothing but some tokens follow, from a length on."""

    def __init__(self, length: int, *tokens: int, score: float = 0.0) -> None:
        self.length, self.tokens, self.score = length, list(tokens), score

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] < self.length:
            return scores
        left = torch.full_like(scores, -torch.inf)
        left[:, self.tokens] = self.score
        return left


ITEMS = [[4, 5, 6], [4, 7], [8, 9]]


def ask(prompt: list[int], *others: LogitsProcessor, limit: int = 6, **options: Any) -> list[int]:
    """What a model answers whose processors are `others` and then the constraint."""
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(ITEMS), SOI, EOI)
    output = generate(
        make_model(0), [prompt], limit, logits_processor=[*others, processor], **options
    )
    answer: list[int] = output[0, len(prompt) :].tolist()
    return answer


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"no_repeat_ngram_size": 1}, "no_repeat_ngram_size"),
        ({"bad_words_ids": [[5], [7]]}, "bad_words_ids"),
        ({"suppress_tokens": [5, 7]}, "suppress_tokens"),
        ({"suppress_tokens": [5, 7], "remove_invalid_values": True}, "suppress_tokens"),
        ({"bad_words_ids": [[5], [7]], "remove_invalid_values": True}, "bad_words_ids"),
        ({"forced_eos_token_id": STOP, "limit": 1}, "forced_eos_token_id"),
        ({"sequence_bias": [[[5], -torch.inf], [[7], -torch.inf]]}, "sequence_bias"),
    ],
)
@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("lookup", [False, True])
def test_an_option_that_bans_what_items_need_is_named(
    options: dict[str, Any], named: str, sample: bool, lookup: bool
) -> None:
    prompt = [5, 7, 6, 9, SOI, 4] if "no_repeat" in named else [9, SOI, 4]
    if lookup:
        options = {**options, "prompt_lookup_num_tokens": 2}
    with pytest.raises(BlockedError, match=f"in an item span.*{named}"):
        ask(prompt, do_sample=sample, **options)


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        (
            {"suppress_tokens": [EOI]},
            ConfigError,
            f"suppress_tokens: bans token {EOI}, which closes",
        ),
        ({"min_new_tokens": 5, "eos_token_id": EOI}, BlockedError, "min_new_tokens"),
        ({"do_sample": True, "temperature": 1e-40}, ConfigError, "temperature: found 1e-40"),
        ({"do_sample": True, "temperature": torch.inf}, ConfigError, "temperature: found inf"),
    ],
)
def test_an_option_that_cannot_work_is_named(
    options: dict[str, Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        ask([9, SOI, 4], pad_token_id=PAD, **options)


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("at", [5, 4])
def test_another_processor_that_bans_everything_is_named(sample: bool, at: int) -> None:
    with pytest.raises(BlockedError, match=r"token 4, .*Only"):
        ask([9, 9, SOI], Only(4, 9), do_sample=sample)
    # Outside of a span too.
    with pytest.raises(BlockedError, match=f"token {at}, outside of item spans"):
        ask([9, 9, 9], Only(at), do_sample=sample)


@pytest.mark.parametrize("score", [torch.nan, torch.inf])
def test_scores_that_are_no_numbers_are_an_error(score: float) -> None:
    for prompt in ([9, SOI], [9, 9]):
        with pytest.raises(BackboneError, match="not numbers"):
            ask(prompt, Only(2, 4, 8, 9, score=score))


def test_a_processor_behind_the_constraint_is_refused() -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(ITEMS), SOI, EOI)
    with pytest.raises(ConfigError, match="Only stands behind the item constraint"):
        generate(make_model(0), [[9, SOI]], 4, logits_processor=[processor, Only(0, 9)])
    # Two constraints are the intersection of both.
    other = ItemConstrainedLogitsProcessor(ItemTrie.build([[4, 7], [9]]), SOI, EOI)
    output = generate(make_model(0), [[9, SOI]], 3, logits_processor=[processor, other])
    assert output[0, 2:].tolist() == [4, 7, EOI]


def test_a_text_that_left_the_items_stays_out_and_is_told() -> None:
    """A loop of one's own that does not take what is allowed."""
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(ITEMS), SOI, EOI)
    allowed(processor, [9, SOI])
    with pytest.raises(SpanError, match=r"token 2: an item span left the catalog"):
        allowed(processor, [9, SOI, 9])
    with pytest.raises(SpanError):
        allowed(processor, [9, SOI, 9, EOI])
    processor.reset()
    allowed(processor, [9, 9])
    with pytest.raises(SpanError, match=r"closes no span"):
        allowed(processor, [9, 9, EOI])


def test_beams_go_on_while_one_of_them_may() -> None:
    """A ban of 5 leaves the beams of one item only; a ban of 4 and 9 leaves none."""
    options = {"num_beams": 3, "num_return_sequences": 1, "eos_token_id": EOI, "pad_token_id": PAD}
    assert ask([9, SOI], bad_words_ids=[[5], [9]], **options)[:3] == [4, 7, EOI]
    with pytest.raises(BlockedError, match="bad_words_ids"):
        ask([9, SOI], bad_words_ids=[[4], [9]], **options)


def test_padding_in_the_middle_of_a_span_is_no_error() -> None:
    """One sequence ends by a stopping criterion, the other goes on."""

    class Stop(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.tensor([input_ids.shape[1] > 2, input_ids.shape[1] > 5])

    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(ITEMS), SOI, EOI)
    output = generate(
        make_model(0),
        [[9, SOI], [8, SOI]],
        9,
        logits_processor=[Only(2, *range(4, VOCAB), EOI), processor],
        stopping_criteria=[Stop()],
    )
    assert output[0, 3:].tolist() == [PAD] * 3
    assert output[1, 2:5].tolist() == [4, 5, 6]


@pytest.mark.parametrize("sample", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_assisted_generation_is_held_to_the_items(seed: int, sample: bool) -> None:
    rows = [[4, 5, 6], [4, 7], [8, 9], [5], [6, 6, 6]]
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(rows), SOI, EOI)
    prompt = [4, 7, 6, SOI, 4, 5, 6, EOI, 8, SOI]
    torch.manual_seed(seed)
    for mode in ({"prompt_lookup_num_tokens": 3}, {"assistant_model": make_model(seed + 20)}):
        output = generate(
            make_model(seed), [prompt], 40, logits_processor=[processor], do_sample=sample, **mode
        )
        check_answer(rows, prompt, output[0, len(prompt) :].tolist(), set())
        if not sample:
            alone = generate(make_model(seed), [prompt], 40, logits_processor=[processor])
            assert output.tolist() == alone.tolist()


def test_what_was_generated_without_the_constraint_can_be_checked() -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build(ITEMS), SOI, EOI)
    processor.check(torch.tensor([[9, SOI, 4, 7, EOI, 9], [SOI, 8, 9, EOI, 9, 9]]))
    # Closed spans of the prompt are history, one that is cut off names nothing.
    processor.check(torch.tensor([[SOI, 9, EOI, SOI, 8, 9, EOI, SOI, 4]]), prompt_length=4)
    for wrong in ([9, SOI, 4, EOI, 9, 9], [9, EOI, 9, 9, 9, 9], [SOI, 8, 9, EOI, SOI, 8, 9, EOI]):
        with pytest.raises(SpanError, match="sequence 0, token"):
            processor.check(torch.tensor([wrong]))


def test_items_of_another_vocabulary_are_refused() -> None:
    processor = ItemConstrainedLogitsProcessor(ItemTrie.build([[4, VOCAB + 3]]), SOI, EOI)
    with pytest.raises(SpanError, match="need 16; build the trie with the tokenizer"):
        allowed(processor, [9])


def test_beam_search_finds_the_most_probable_items() -> None:
    """With as many beams as items, the ranking of the items is exact."""
    rows = [[4, 5], [4, 6, 7], [8], [9, 9], [9, 10], [4]]
    model = make_model(1)
    prompt = [5, 7, 11]

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
        check_answer(rows, [7], answer, set())
        assert len(read(answer).spans) <= len(rows)


def guided_scores(
    scores: np.ndarray,
    rows: Sequence[Sequence[int]],
    prefix: Sequence[int],
    left: set[int],
    weights: ItemWeights,
) -> dict[int, float]:
    """The scores of all tokens that may follow a prefix, from every item's weight."""
    below: dict[int, list[float]] = {}
    for number in left:
        row = list(rows[number])
        if row[: len(prefix)] == list(prefix):
            token = row[len(prefix)] if len(row) > len(prefix) else EOI
            below.setdefault(token, []).append(float(weights.by_row[number]))
    tokens = list(below)
    own = scores[tokens] - np.logaddexp.reduce(scores[tokens])
    masses = np.array([np.logaddexp.reduce(some) for some in below.values()])
    guided = weights.model * own + weights.share * (masses - np.logaddexp.reduce(masses))
    return dict(zip(tokens, guided.tolist(), strict=True))


@settings(max_examples=100, deadline=None)
@given(token_rows, st.integers(0, 1000), st.sampled_from([0.0, 0.4, 1.0]))
def test_scores_under_weights_are_those_of_brute_force(
    rows: list[list[int]], seed: int, share: float
) -> None:
    random = np.random.default_rng(seed)
    trie = ItemTrie.build(rows)
    own = random.choice([0.0, -1.0, -3.0, -50.0, -800.0, -np.inf], len(rows))
    own[0] = -0.5
    boosts = random.choice([0.0, 0.7], len(rows))
    weights = ItemWeights.build(trie, own, share=share, log_factors=boosts)
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=weights)
    left = set(np.flatnonzero(np.isfinite(own)).tolist())
    text, prefix = [9], None
    for _ in range(20):
        scores = random.normal(0, 3, VOCAB).astype(np.float32)
        found = processor(torch.tensor([text]), torch.from_numpy(scores)[None])[0].numpy()
        allowed_now = np.isfinite(found)
        if prefix is None:
            # Outside of spans they are the model's.
            assert found[allowed_now].tolist() == scores[allowed_now].tolist()
            if not allowed_now[SOI]:
                break
            text.append(SOI)
            prefix = []
            continue
        expected = guided_scores(scores.astype(np.float64), rows, prefix, left, weights)
        assert set(np.flatnonzero(allowed_now).tolist()) == set(expected)
        if weights.plain:
            assert found[allowed_now].tolist() == scores[allowed_now].tolist()
        else:
            for token, score in expected.items():
                assert found[token] == pytest.approx(score, abs=1e-4, rel=1e-6)
        token = int(random.choice(list(expected)))
        text.append(token)
        if token == EOI:
            left -= {number for number, row in enumerate(rows) if row == prefix}
            prefix = None
        else:
            prefix.append(token)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_beams_rank_items_by_their_scores_under_weights(share: float, seed: int) -> None:
    rows = [[4, 5], [4, 6], [7, 8], [7, 9], [10, 4], [10, 5]]
    model, trie, prompt = make_model(seed), ItemTrie.build(rows), [9, 6, SOI]
    own = np.log([0.3, 0.02, 0.25, 0.1, 0.3, 0.03])
    weights = ItemWeights.build(trie, own, share=share)
    expected = []
    for number, row in enumerate(rows):
        total = share * (own[number] - np.log(np.exp(own).sum()))
        for place in range(len(row)):
            with torch.no_grad():
                ids = torch.tensor([[*prompt, *row[:place]]])
                scores = model(input_ids=ids).logits[0, -1].double()
            tokens = sorted(choices(rows, row[:place], set()))
            total += (1 - share) * float(scores[tokens].log_softmax(0)[tokens.index(row[place])])
        expected.append(total)
    # As many beams as there are items; all end at the same length.
    found = generate(
        model,
        [prompt],
        3,
        num_beams=6,
        num_return_sequences=6,
        do_sample=False,
        length_penalty=0.0,
        early_stopping=False,
        output_scores=True,
        return_dict_in_generate=True,
        logits_processor=[ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=weights)],
    )
    order = np.argsort(-np.array(expected))
    titles = [row[len(prompt) : len(prompt) + 3].tolist() for row in found.sequences]
    assert titles == [[*rows[number], EOI] for number in order]
    np.testing.assert_allclose(found.sequences_scores.numpy(), np.array(expected)[order], atol=1e-4)


def test_what_is_banned_stays_banned_under_weights() -> None:
    class Ban(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            scores = scores.clone()
            scores[:, [4, 6]] = -torch.inf
            return scores

    trie = ItemTrie.build([[4, 5], [6], [7], [8]])
    weights = ItemWeights.build(trie, np.log([0.97, 0.01, 0.015, 0.005]), share=1.0)
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=weights)
    banned = processor(torch.tensor([[9, SOI]]), Ban()(torch.empty(0), FLAT))
    assert (banned[0] > -torch.inf).nonzero()[:, 0].tolist() == [7, 8]
    # And one whose share of the weight is too small for the scores' type is allowed still.
    far = ItemWeights.build(trie, np.array([0.0, -1e6, -1.0, -np.inf]), share=1.0)
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=far)
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        found = processor(torch.tensor([[9, SOI]]), FLAT.to(kind))
        assert found.dtype == kind
        assert (found[0] > -torch.inf).nonzero()[:, 0].tolist() == [4, 6, 7]
        processor.reset()
    with pytest.raises(BackboneError, match="not numbers"):
        processor(torch.tensor([[9, SOI]]), torch.full_like(FLAT, torch.nan))


def test_weights_bring_all_exclusions() -> None:
    trie = ItemTrie.build([[4], [5], [6]])
    weights = ItemWeights.build(trie, np.array([0.0, -np.inf, -1.0]), share=0.5)
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=weights)
    assert allowed(processor, [9, SOI]) == [4, 6]
    for excluded in ([0], ExcludedItems.build(trie, [0])):
        with pytest.raises(TrieError, match="expected weights that were built with all"):
            ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=excluded, weights=weights)
    processor = ItemConstrainedLogitsProcessor(trie, SOI, EOI, excluded=[1], weights=weights)
    assert allowed(processor, [9, SOI]) == [4, 6]
    nothing = ItemWeights.build(trie, np.full(3, -np.inf))
    with pytest.raises(NoItemLeftError, match="leaves none of the 3 items"):
        ItemConstrainedLogitsProcessor(trie, SOI, EOI, weights=nothing)
