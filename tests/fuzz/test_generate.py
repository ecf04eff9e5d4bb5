"""Plain `generate` in all its modes, options and neighbours: every span is an item, or an error."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from transformers import LogitsProcessor, WatermarkingConfig

from incatalog import ItemConstrainedLogitsProcessor, ItemTrie
from incatalog.errors import IncatalogError
from worlds import EOI, FIRST_WORD, PAD, SOI, STOP, VOCAB, choices, make_model, opened

NEW_TOKENS = 40


class Noise(LogitsProcessor):
    """Somebody else's processor: raises, lowers, bans and poisons scores."""

    def __init__(self, seed: int, kind: str) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.kind = kind

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        draw = torch.rand(scores.shape, generator=self.generator)
        if self.kind == "noise":
            return scores + 4 * draw
        if self.kind == "open":
            return scores + 6 * (torch.arange(VOCAB) == SOI)
        if self.kind == "free":
            return torch.where(draw < 0.1, 5.0, scores)
        if self.kind == "ban":
            return torch.where(draw < 0.4, -torch.inf, scores)
        if self.kind == "ban all":
            return torch.where(draw[:, :1] < 0.05, -torch.inf, scores)
        value = {"nan": torch.nan, "inf": torch.inf}[self.kind]
        return torch.where(draw < 0.002, value, scores)


@dataclass
class World:
    """A catalog and what of it may be named."""

    rows: list[list[int]]
    banned: set[int]
    unique: bool
    max_items: int | None


def draw_world(random: np.random.Generator) -> World:
    count = int(random.choice([1, 2, 3, 8, 40]))
    deep = random.random() < 0.05
    rows = [
        random.integers(FIRST_WORD, VOCAB - random.integers(0, 5), size).tolist()
        for size in (
            random.integers(130, 150, count) if deep else random.integers(1, 6, count)
        ).tolist()
    ]
    banned = set(random.choice(count, int(random.integers(0, count)), replace=False).tolist())
    return World(
        rows,
        banned,
        bool(random.random() < 0.7),
        [None, None, 0, 1, 3][random.integers(5)],
    )


def draw_prompts(random: np.random.Generator, world: World, count: int) -> list[list[int]]:
    """Any tokens; of those that end in an open span most lead to an item."""
    prompts = []
    for _ in range(count):
        prompt = random.integers(1, VOCAB, int(random.integers(1, 9))).tolist()
        begun = opened(prompt)
        if begun is not None and random.random() < 0.95:
            prompt = prompt[: len(prompt) - len(begun)]
            free = [r for r in range(len(world.rows)) if r not in world.banned]
            row = world.rows[int(random.choice(free))]
            prompt += row[: int(random.integers(0, len(row) + 1))]
            if world.max_items == 0:
                prompt.append(EOI)
        prompts.append(prompt)
    return prompts


def draw_options(random: np.random.Generator) -> dict[str, Any]:
    """A mode of generation and some settings."""
    options: dict[str, Any] = {
        "max_new_tokens": int(
            random.integers(1, NEW_TOKENS) if random.random() < 0.3 else NEW_TOKENS
        )
    }
    mode = random.choice(["greedy", "sample", "beams", "beam sample", "lookup", "assistant"])
    if mode == "beams" or mode == "beam sample":
        beams = int(random.integers(2, 5))
        options |= {
            "num_beams": beams,
            "num_return_sequences": int(random.integers(1, beams + 1)),
            "length_penalty": float(random.choice([-1.0, 0.0, 1.0])),
            "early_stopping": [True, False, "never"][random.integers(3)],
        }
    if mode == "lookup":
        options["prompt_lookup_num_tokens"] = int(random.integers(1, 6))
    if mode == "assistant":
        options["assistant_model"] = make_model(int(random.integers(10, 13)))
    sampling = mode in ("sample", "beam sample") or (
        mode in ("lookup", "assistant") and random.random() < 0.5
    )
    options["do_sample"] = bool(sampling)
    if sampling:
        options["temperature"] = float(
            random.choice([1e-310, 1e-20, 1e-6, 0.3, 1.0, 3.0, 1e30, np.inf])
            if random.random() < 0.3
            else 1.5
        )
        warpers: list[tuple[str, Any]] = [
            ("top_k", 1), ("top_k", 3), ("top_p", 0.01), ("top_p", 0.7), ("min_p", 0.2),
            ("typical_p", 0.5), ("epsilon_cutoff", 0.05), ("eta_cutoff", 0.05), ("top_h", 0.4),
        ]  # fmt: skip
        for place in random.choice(len(warpers), int(random.integers(0, 3)), replace=False):
            options[warpers[place][0]] = warpers[place][1]
        if mode == "sample" and random.random() < 0.3:
            options["num_return_sequences"] = 2
    word = int(random.integers(FIRST_WORD, VOCAB))
    settings: list[tuple[str, Any]] = [
        ("no_repeat_ngram_size", int(random.integers(1, 4))),
        ("bad_words_ids", [[word]]),
        ("bad_words_ids", [[word, FIRST_WORD]]),
        ("suppress_tokens", [word]),
        ("suppress_tokens", [EOI]),
        ("begin_suppress_tokens", [word]),
        ("min_new_tokens", int(random.integers(1, 12))),
        ("forced_eos_token_id", STOP),
        ("sequence_bias", [[[word], 5.0]]),
        ("repetition_penalty", 1.5),
        ("renormalize_logits", True),
        ("remove_invalid_values", True),
        ("exponential_decay_length_penalty", (2, 1.3)),
        ("guidance_scale", 1.5),
        ("watermarking_config", WatermarkingConfig(bias=4.0)),
    ]
    for place in random.choice(len(settings), int(random.choice([0, 0, 1, 2])), replace=False):
        options[settings[place][0]] = settings[place][1]
    if mode in ("lookup", "assistant"):
        options.pop("guidance_scale", None)
    options["eos_token_id"] = int(random.choice([STOP, STOP, EOI]))
    options["pad_token_id"] = int(random.choice([PAD, options["eos_token_id"]]))
    return options


def draw_processors(
    random: np.random.Generator, own: ItemConstrainedLogitsProcessor
) -> list[LogitsProcessor]:
    kinds = ["noise", "free", "ban", "ban all", "nan", "inf"]

    def others(chance: float) -> list[LogitsProcessor]:
        if random.random() > chance:
            return []
        return [Noise(int(random.integers(1 << 30)), str(random.choice(kinds)))]

    opener = [Noise(0, "open")] if random.random() < 0.7 else []
    return [*opener, *others(0.2), own, *others(0.02)]


def spans_of(
    world: World, prompt: Sequence[int], answer: Sequence[int], stops: Sequence[int]
) -> int:
    """Number of closed spans of an answer, each of which may be named where it stands."""
    ends = [place for place, token in enumerate(answer) if token in stops]
    answer = answer[: ends[0] + 1] if ends else answer
    span = opened(prompt)
    taken: set[int] = set(world.banned)
    count = 0
    for token in answer:
        if span is None:
            assert token != EOI
            if token == SOI:
                assert world.max_items is None or count < world.max_items
                span = []
        elif token == EOI:
            found = [row for row, tokens in enumerate(world.rows) if tokens == span]
            free = [row for row in found if row not in taken]
            assert free, (span, sorted(taken))
            if world.unique:
                taken |= set(found)
            span = None
            count += 1
        else:
            assert token in choices(world.rows, span, taken), (token, span)
            span.append(token)
    return count


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_every_span_is_an_item_or_there_is_an_error(fuzz: Any) -> None:
    for number, random in fuzz.cases():
        world = draw_world(random)
        trie = ItemTrie.build(world.rows)
        processor = ItemConstrainedLogitsProcessor(
            trie,
            SOI,
            EOI,
            unique=world.unique,
            excluded=world.banned,
            max_items=world.max_items,
        )
        # One processor for several generations, as a service has it.
        for _ in range(int(random.integers(1, 4))):
            options = draw_options(random)
            alone = "assistant_model" in options or "prompt_lookup_num_tokens" in options
            size = 1 if alone else int(random.choice([1, 2, 16, 128]))
            prompts = draw_prompts(random, world, size)
            width = max(map(len, prompts))
            ids = torch.tensor([[PAD] * (width - len(row)) + row for row in prompts])
            mask = (torch.arange(width) >= width - torch.tensor([[len(r)] for r in prompts])).long()
            torch.manual_seed(number)
            processors = draw_processors(random, processor)
            shown = {name: value for name, value in options.items() if name != "assistant_model"}
            told = f"case {number} of seed {fuzz.seed}: {shown}, {prompts}, {world}"
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    output = make_model(int(random.integers(4))).generate(
                        input_ids=ids,
                        attention_mask=mask,
                        logits_processor=processors,
                        return_dict_in_generate=True,
                        output_scores=True,
                        **options,
                    )
            except IncatalogError as error:
                fuzz.refuse(error)
                continue
            except Exception as error:
                raise AssertionError(told) from error
            scores = getattr(output, "sequences_scores", None)
            stops = [options["eos_token_id"]]
            repeats = len(output.sequences) // len(prompts)
            for place, row in enumerate(output.sequences[:, width:].tolist()):
                # Empty places carry -1e9, and fillers -inf.
                if scores is not None and not scores[place] > -1e8:
                    fuzz.counts["beams of probability zero"] += 1
                    continue
                try:
                    padded = ids[place // repeats].tolist()
                    fuzz.counts["spans"] += spans_of(world, padded, row, stops)
                except AssertionError as error:
                    raise AssertionError(
                        f"{told}: {row} {None if scores is None else scores[place]}"
                    ) from error
