from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from incatalog.constraint.weights import ItemWeights
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.decoding.request import Request
from incatalog.errors import DataError, NoItemLeftError
from incatalog.grpo.rollouts import EngineSampler, answer_seeds, make_prompts
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recommender.recommender import Recommender
from incatalog.training.validation import Prompt, validation_prompts

SPEC = ModelSpec(base="tiny", list_form="plain", wording="test-as-trained", list_length=4)


@pytest.fixture(scope="module")
def recommender(tiny_backbone: Backbone, catalog: Catalog) -> Recommender:
    return Recommender(tiny_backbone, SPEC, catalog)


def test_prompts_are_made_of_training_items_only(histories: Histories) -> None:
    split = leave_one_out(histories)
    prompts = make_prompts(split, 200, next_items=3, new_only=False, seed=5)
    assert len(prompts) == 200
    asked = set()
    for prompt in prompts:
        place = len(prompt.history)
        users = []
        for user in range(len(split)):
            items = split.train(user).tolist()
            if tuple(items[: place + 3]) == (*prompt.history, *prompt.relevant):
                users.append(user)
        assert users
        asked.update(users)
    # The first user has one item to train on, with nothing behind it.
    assert 0 not in asked
    assert asked == set(range(1, len(split)))
    assert prompts == make_prompts(split, 200, next_items=3, new_only=False, seed=5)
    assert prompts != make_prompts(split, 200, next_items=3, new_only=False, seed=6)
    # A pass asks every user once.
    assert len({prompt.history[0] for prompt in prompts[: len(split) - 1]}) > 20


def test_items_seen_before_are_no_targets() -> None:
    split = leave_one_out(Histories.from_lists(["u"], [[1, 2, 1, 2, 3, 4, 5]]))
    found = {
        (prompt.history, prompt.relevant)
        for prompt in make_prompts(split, 40, next_items=4, new_only=True, seed=0)
    }
    assert found == {((1,), (2, 3)), ((1, 2, 1, 2), (3,))}


def test_nobody_to_ask_about() -> None:
    split = leave_one_out(Histories.from_lists(["u"], [[1, 2, 3]]))
    with pytest.raises(DataError, match="no user has two items"):
        make_prompts(split, 1, next_items=1, new_only=False, seed=0)


def test_validation_asks_for_the_validation_item(histories: Histories) -> None:
    split = leave_one_out(histories)
    prompts = validation_prompts(split, 7, 3)
    assert len(prompts) == 7
    for prompt in prompts:
        assert any(
            (prompt.history, prompt.relevant)
            == (tuple(split.valid(user).history.tolist()), (split.valid(user).target,))
            for user in range(len(split))
        )


def test_seeds_number_the_answers_of_all_processes() -> None:
    assert answer_seeds(1, 2, 0, 4) == [*answer_seeds(1, 2, 0, 2), *answer_seeds(1, 2, 2, 2)]
    assert len({*answer_seeds(1, 2, 0, 50), *answer_seeds(1, 3, 0, 50)}) == 100


def test_sampled_lists_hold_different_items_of_the_catalog(recommender: Recommender) -> None:
    sampler = EngineSampler(
        recommender,
        list_length=3,
        rollout="sample",
        temperature=1.0,
        exclude_seen=True,
        num_generations=4,
    )
    prompt = Prompt((3, 8), (5,))
    seeds = answer_seeds(0, 0, 0, 6)
    found = sampler([prompt] * 6, seeds, [0] * 6)
    for rollout in found:
        assert len(set(rollout.items)) == 3
        assert not {3, 8} & set(rollout.items)
        # The prompt asks for as many as the model was trained with.
        assert rollout.prompt_ids == found[0].prompt_ids
    assert "4" in recommender.backbone.tokenizer.decode(found[0].prompt_ids)
    assert len({rollout.items for rollout in found}) > 1
    again = sampler([prompt] * 2, seeds[4:], [0] * 2)
    assert [rollout.items for rollout in again] == [rollout.items for rollout in found[4:]]


class GuidedSampler(EngineSampler):
    """Asks with weights that are nearly all on three items, and with exclusions in them."""

    def _request(self, prompt: Prompt) -> Request:
        request = super()._request(prompt)
        assert request.excluded is not None
        trie = request.excluded.trie
        own = np.full(trie.num_items, -30.0)
        own[[1, 7, 11]] = -1.0, -1.5, -2.0
        weights = ItemWeights.build(trie, own, share=1.0, base=request.excluded)
        return replace(request, excluded=None, weights=weights)


def test_weights_go_with_the_answers_that_are_sampled(recommender: Recommender) -> None:
    sampler = GuidedSampler(
        recommender,
        list_length=3,
        rollout="sample",
        temperature=1.0,
        exclude_seen=True,
        num_generations=4,
    )
    for rollout in sampler([Prompt((3, 8), (5,))] * 4, [1, 2, 3, 4], [0] * 4):
        assert set(rollout.items) == {1, 7, 11}
        assert rollout.choices.model == 0
        assert rollout.choices.bias is not None
        assert len(rollout.choices.bias) == len(rollout.choices.option)
        # The weights alone decide, so the biases are the log-probabilities.
        chosen = rollout.choices.offsets[:-1] + rollout.choices.chosen
        assert rollout.logprob == pytest.approx(rollout.choices.bias[chosen].sum(), abs=1e-4)


def test_beams_are_the_likeliest_items_in_their_order(recommender: Recommender) -> None:
    sampler = EngineSampler(
        recommender,
        list_length=1,
        rollout="beam",
        temperature=1.0,
        exclude_seen=True,
        num_generations=5,
    )
    prompt, other = Prompt((3, 8), (5,)), Prompt((1,), (2,))
    found = sampler([prompt] * 3 + [other] * 2, [0] * 5, [2, 3, 4, 0, 1])
    slot = recommender.slot((3, 8), 4, recommender.excluded(history=(3, 8), exclude_seen=True))
    [best] = recommender.beam.top_items([slot], 5)
    assert [rollout.items[0] for rollout in found[:3]] == best.rows[2:].tolist()
    assert [rollout.logprob for rollout in found[:3]] == pytest.approx(best.logprobs[2:])
    assert len({rollout.items for rollout in found[3:]}) == 2


@pytest.mark.parametrize(("rollout", "length"), [("sample", 49), ("beam", 1)])
def test_too_few_items_left(recommender: Recommender, rollout: str, length: int) -> None:
    sampler = EngineSampler(
        recommender,
        list_length=length,
        rollout=rollout,  # type: ignore[arg-type]
        temperature=1.0,
        exclude_seen=True,
        num_generations=49,
    )
    with pytest.raises(NoItemLeftError, match="found 48 where 49 are wanted"):
        sampler([Prompt((3, 8), (5,))], [0], [48])
