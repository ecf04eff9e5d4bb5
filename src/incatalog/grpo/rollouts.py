"""Answers to learn from: prompts made of training interactions, and what the policy says to them.

Other samplers, such as a vLLM server, fit here: the trainer takes whatever answers a `Prompt` with
a `Rollout` under the same constraint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np

from incatalog.data.interactions import LeaveOneOut
from incatalog.decoding.request import Request
from incatalog.errors import DataError, NoItemLeftError
from incatalog.grpo.policy import Choices, read_choices
from incatalog.recommender.recommender import Recommender
from incatalog.training.draws import TOO_SHORT
from incatalog.training.validation import PROMPTS, Prompt

# Key of the random stream, beside `PROMPTS`.
_ANSWERS = 1


@dataclass(frozen=True)
class Rollout:
    """An answer of the policy."""

    prompt_ids: tuple[int, ...]  # Tokens of the prompt
    token_ids: tuple[int, ...]  # Tokens of the answer
    items: tuple[int, ...]  # Item rows it names
    logprob: float  # At temperature 1; that of a beam is its share of all items
    choices: Choices  # What was decided in it


class Sampler(Protocol):
    """Answers prompts with what the policy would say."""

    def __call__(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], places: Sequence[int]
    ) -> list[Rollout]:
        """Answers each prompt once.

        Args:
            prompts: What is asked; the same one again for each answer of its group.
            seeds: Seed of each answer.
            places: Number of each answer within its group.
        """


def make_prompts(
    split: LeaveOneOut, count: int, *, next_items: int, new_only: bool, seed: int
) -> list[Prompt]:
    """Draws prompts from training interactions; those held out are in none.

    Users come in turn, each pass in a new order; the target is uniform over all but a user's first
    training item.
    """
    histories = [split.train(user).tolist() for user in range(len(split))]
    targets = [
        [place for place in range(1, len(h)) if not new_only or h[place] not in h[:place]]
        for h in histories
    ]
    users = np.array([user for user, places in enumerate(targets) if places], dtype=np.int64)
    if not len(users):
        raise DataError(TOO_SHORT)
    random = np.random.default_rng([seed, PROMPTS])
    prompts: list[Prompt] = []
    while len(prompts) < count:
        for user in random.permutation(users)[: count - len(prompts)].tolist():
            items = histories[user]
            place = int(random.choice(targets[user]))
            right = items[place : place + next_items]
            if new_only:
                right = [row for row in right if row not in items[:place]]
            prompts.append(Prompt(tuple(items[:place]), tuple(dict.fromkeys(right))))
    return prompts


def answer_seeds(seed: int, step: int, first: int, count: int) -> list[int]:
    """Seeds of the answers of one step, numbered over all processes."""
    streams = ([seed, _ANSWERS, step, first + number] for number in range(count))
    return [int(np.random.default_rng(keys).integers(1 << 62)) for keys in streams]


@dataclass(frozen=True)
class EngineSampler:
    """Samples lists through the engine, or takes the likeliest items of the first place (`beam`).

    An answer that was not sampled writes the title of its item, whatever other names that has.
    """

    recommender: Recommender
    list_length: int  # Items an answer names
    rollout: Literal["sample", "beam"]
    temperature: float
    exclude_seen: bool
    num_generations: int

    @property
    def _asked_for(self) -> int:
        """The prompt is that of the evaluation, which asks for as many items as were trained."""
        return max(self.recommender.spec.list_length, self.list_length)

    def __call__(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], places: Sequence[int]
    ) -> list[Rollout]:
        """Answers each prompt once; see :class:`Sampler`."""
        requests = {prompt: self._request(prompt) for prompt in dict.fromkeys(prompts)}
        if self.rollout == "beam":
            return self._beams(prompts, places, requests)
        pairs = zip(prompts, seeds, strict=True)
        asked = [replace(requests[prompt], seed=seed) for prompt, seed in pairs]
        rollouts = []
        for request, done in zip(asked, self.recommender.engine.complete(asked), strict=True):
            if len(done.items) < self.list_length:
                raise _too_few(len(done.items), self.list_length)
            logprob = float(sum(done.logprobs))
            rollouts.append(self._read(request, done.token_ids, done.items, logprob))
        return rollouts

    def _request(self, prompt: Prompt) -> Request:
        recommender = self.recommender
        excluded = recommender.excluded(history=prompt.history, exclude_seen=self.exclude_seen)
        request = recommender.list_request(prompt.history, self._asked_for, excluded)
        # The policy that is trained is one over tokens.
        return replace(
            request,
            max_items=self.list_length,
            temperature=self.temperature,
            item_decode="token",
        )

    def _beams(
        self, prompts: Sequence[Prompt], places: Sequence[int], requests: dict[Prompt, Request]
    ) -> list[Rollout]:
        recommender, asked = self.recommender, self._asked_for
        slots = [
            replace(recommender.slot(q.history, asked, r.excluded), weights=r.weights)
            for q, r in requests.items()
        ]
        ranked = recommender.beam.top_items(slots, self.num_generations)
        found = dict(zip(requests, ranked, strict=True))
        rollouts = []
        for prompt, place in zip(prompts, places, strict=True):
            rows, request = found[prompt].rows, requests[prompt]
            if place >= len(rows):
                raise _too_few(len(rows), self.num_generations)
            assert request.scaffold is not None
            row = int(rows[place])
            answer = (*request.scaffold.before_item[0], *recommender.item_tokens.span(row))
            logprob = float(found[prompt].logprobs[place])
            rollouts.append(self._read(request, answer, (row,), logprob))
        return rollouts

    def _read(
        self, request: Request, token_ids: Sequence[int], items: Sequence[int], logprob: float
    ) -> Rollout:
        backbone, excluded = self.recommender.backbone, request.barred
        assert excluded is not None
        choices = read_choices(
            excluded.trie,
            token_ids,
            items,
            soi_token_id=backbone.soi_token_id,
            eoi_token_id=backbone.eoi_token_id,
            excluded=excluded,
            weights=request.weights,
            retrieves=backbone.head is not None,
        )
        return Rollout(tuple(request.prompt_ids), tuple(token_ids), tuple(items), logprob, choices)


def _too_few(found: int, wanted: int) -> NoItemLeftError:
    return NoItemLeftError(
        f"no item left for an answer: found {found} where {wanted} are wanted; lower "
        "--num-generations or --list-length, or leave out --exclude-seen"
    )
