from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from incatalog import Item, Recommender
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recommender.guide import Guide, item_weights
from incatalog.steering.steering import Steering
from incatalog.teacher.popularity import Popularity
from shelves import FILMS

RULES: Any = {"exclude": (), "categories": (), "boost": None}


@pytest.fixture(scope="module")
def steered(tiny_backbone: Backbone) -> Recommender:
    model = Recommender(tiny_backbone, ModelSpec(base="tiny"), FILMS)
    teacher = Popularity(np.arange(1.0, 11.0), FILMS)
    guided = model.with_guide(Guide(teacher, FILMS, 0.4, 0.4))
    return guided.with_steering(Steering.of(FILMS, encoder="words"))


def turn(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_what_is_said_counts_in_full_beside_model_and_guide(steered: Recommender) -> None:
    steer = np.linspace(-3, 0, len(FILMS))
    for guide, share in ((steered.guide, 0.4), (None, 0.0)):
        [plain] = item_weights(guide, [[2]], steered.items, [None], "list", boost={"f1": 2.0})
        how: Any = {"boost": {"f1": 2.0}, "steer": steer}
        [told] = item_weights(guide, [[2]], steered.items, [None], "list", **how)
        assert plain is not None
        assert told is not None
        assert told.model == plain.model == pytest.approx(1 - share)
        gain = told.share * told.by_row - plain.share * plain.by_row
        np.testing.assert_allclose(gain, steer, atol=1e-9)


def test_a_chat_is_held_to_what_is_said(steered: Recommender) -> None:
    said = turn("a horror film about aliens under 20 euros, I have seen Psycho")
    wish = steered.wish(said)
    assert [one.id for one in wish.filters] == ["price<=20", "category=Horror"]
    request = steered._turn(said, ["f7"], None, {}, **RULES)
    assert request.excluded is not None
    assert request.weights is not None
    allowed = ~request.weights.excluded.rows
    assert [FILMS.titles[row] for row in allowed.nonzero()[0]] == ["Alien (1979)"]
    off = steered._turn(said, ["f7"], None, {}, **RULES, steer=False)
    assert off.weights is not None
    assert off.weights.excluded.rows.nonzero()[0].tolist() == [7]
    plain = steered.with_steering(None)
    assert plain.wish(said).filters == ()
    unsteered = plain._turn(said, ["f7"], None, {}, **RULES)
    assert unsteered.weights is not None
    np.testing.assert_array_equal(unsteered.weights.log_weights, off.weights.log_weights)


def test_steering_follows_the_catalog(steered: Recommender) -> None:
    changed = steered.with_changes([Item("n", "Heat (1995)", categories=("Western",))], ["f1"])
    wish = changed.wish(turn("westerns"))
    assert [one.id for one in wish.filters] == ["category=Western"]
    assert wish.where.rows(changed.catalog).nonzero()[0].tolist() == [len(FILMS)]
    assert steered.wish(turn("westerns")).filters == ()
    assert changed.with_disabled(["f2"]).steering is not None
