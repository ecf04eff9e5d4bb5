"""Is the policy that is trained the one that is sampled from, and what does a rollout cost?

The study's models answer prompts of training interactions through the engine. The log-probability
of each answer is taken as `incatalog train grpo` takes it and, as the published script does, over
the whole vocabulary; both are compared with what the engine says. The same prompts are then
answered by transformers' `generate` with `ItemConstrainedLogitsProcessor`, the way of TRL's own
trainer.

    python -m benchmarks.grpo [--study runs/study] [--prompts 4] [--group 16] [--rounds 3]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.report import interleaved, markdown, publish, ratio
from transformers import LogitsProcessorList

from incatalog.constraint.processor import ItemConstrainedLogitsProcessor
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.grpo.policy import ChoiceBatch, choice_logprobs, padded
from incatalog.grpo.rollouts import EngineSampler, Rollout, answer_seeds, make_prompts
from incatalog.model.backbone import base_model, output_rows
from incatalog.recommender.recommender import Recommender

METHODS = ("cgen", "token", "ret")
PAD = 0


def main() -> None:
    """Measures both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=Path("runs/study"))
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if not (options.study / "summary.json").is_file():
        sys.exit(f"--study {options.study}: no finished study there; run `make study` first")
    catalog = Catalog.load(options.study / "data")
    split = leave_one_out(Histories.load(options.study / "data", catalog))
    prompts = make_prompts(split, options.prompts, next_items=1, new_only=True, seed=0)
    repeated = [prompt for prompt in prompts for _ in range(options.group)]
    seeds = answer_seeds(0, 0, 0, len(repeated))
    gaps, times = [], []
    for method in METHODS:
        recommender = Recommender.from_pretrained(options.study / method, "cpu")
        sampler = EngineSampler(
            recommender,
            list_length=10,
            rollout="sample",
            temperature=1.0,
            exclude_seen=False,
            num_generations=options.group,
        )
        found = sampler(repeated, seeds, [0] * len(repeated))
        scoped, full, forced = _logprobs(recommender, found)
        engine = np.array([rollout.logprob for rollout in found])
        decided = np.mean([len(r.choices) / len(r.token_ids) for r in found])
        gaps.append(
            (
                method,
                f"{engine.mean():.1f}",
                f"{np.abs(scoped - engine).max():.1e}",
                f"{np.abs(full - engine).mean():.1f}",
                f"{np.abs(full - engine).max():.1f}",
                f"{(forced / (full - engine)).mean():.0%}",
                f"{decided:.0%}",
            )
        )
        if method == "ret":
            continue
        longest = max(len(rollout.token_ids) for rollout in found)
        contenders = {
            "engine": partial(sampler, repeated, seeds, [0] * len(repeated)),
            "generate": partial(_generate, recommender, found, longest),
        }
        seconds = interleaved(contenders, options.rounds)
        # Padded rows run on until the longest answer is there, and all of that is text.
        tokens = {
            "engine": sum(len(rollout.token_ids) for rollout in found),
            "generate": longest * len(found),
        }
        faster = tokens["engine"] / tokens["generate"] / ratio(seconds, "engine", "generate")
        times.append(
            (
                method,
                tokens["engine"],
                *(f"{tokens[name] / np.median(seconds[name]):.0f}" for name in contenders),
                f"{faster:.1f}",
            )
        )
    answers = f"{len(repeated)} answers of ten items, {options.group} to a prompt"
    body = "\n\n".join(
        [
            f"## One policy\n\nLog-probabilities of {answers}, in nats. Over the whole vocabulary "
            "also the tokens that were forced have one, and of the mass at a choice a part goes to "
            "what could not be said; a model trained with the scoped loss never learned otherwise.",
            markdown(
                ("method", "engine, mean", "scoped - engine, largest",
                 "vocabulary - engine, mean", "largest", "of that at forced tokens",
                 "tokens decided on"),
                gaps,
            ),
            f"## Rollouts\n\n{answers}; tokens of the answers a second, choices noted included.",
            markdown(
                ("method", "tokens", "engine", "`generate` + processor", "times as fast"), times
            ),
        ]
    )  # fmt: skip
    publish("grpo", "Is the policy that is trained the one that is sampled from?", body)


@torch.no_grad()
def _logprobs(
    recommender: Recommender, found: Sequence[Rollout]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probability of each answer over its options, and over the whole vocabulary.

    The last is the part of the second that stands at tokens without a choice.
    """
    backbone = recommender.backbone
    ids = padded([(*r.prompt_ids, *r.token_ids) for r in found], PAD, "cpu")
    starts = [len(rollout.prompt_ids) for rollout in found]
    hidden = base_model(backbone.model)(input_ids=ids, use_cache=False).last_hidden_state
    weight, bias = output_rows(backbone.model)
    batch = ChoiceBatch.of([r.choices for r in found], starts, ids.shape[1])
    each, _ = choice_logprobs(hidden, batch, weight=weight, bias=bias, head=backbone.head)
    scoped = torch.zeros(len(found), dtype=torch.float64)
    scoped.index_add_(0, batch.answer, each.double())
    full, forced = [], []
    for row, (start, rollout) in enumerate(zip(starts, found, strict=True)):
        answer = torch.tensor(rollout.token_ids)
        states = hidden[row, start - 1 : start - 1 + len(answer)]
        scores = torch.nn.functional.linear(states, weight, bias).log_softmax(-1)
        each_token = scores.gather(1, answer[:, None]).squeeze(1)
        full.append(each_token.sum().item())
        decided = torch.zeros(len(answer), dtype=torch.bool)
        decided[torch.from_numpy(rollout.choices.place)] = True
        forced.append(each_token[~decided].sum().item())
    return scoped.numpy(), np.array(full), np.array(forced)


def _generate(recommender: Recommender, found: Sequence[Rollout], longest: int) -> Any:
    """As TRL generates: padded on the left, one token at a time, held to the catalog."""
    backbone = recommender.backbone
    length = max(len(rollout.prompt_ids) for rollout in found)
    ids = torch.full((len(found), length), PAD)
    mask = torch.zeros_like(ids)
    for row, rollout in enumerate(found):
        ids[row, length - len(rollout.prompt_ids) :] = torch.tensor(rollout.prompt_ids)
        mask[row, length - len(rollout.prompt_ids) :] = 1
    processor = ItemConstrainedLogitsProcessor(
        recommender.item_tokens.trie(),
        backbone.soi_token_id,
        backbone.eoi_token_id,
        max_items=10,
    )
    return backbone.model.generate(
        input_ids=ids,
        attention_mask=mask,
        do_sample=True,
        top_k=0,
        max_new_tokens=longest,
        min_new_tokens=longest,
        pad_token_id=PAD,
        logits_processor=LogitsProcessorList([processor]),
    )


if __name__ == "__main__":
    main()
