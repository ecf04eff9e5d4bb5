from __future__ import annotations

import string

import pytest

from incatalog.dialogue.templates import (
    ALIGNMENT_WORDINGS,
    TEST_WORDINGS,
    TRAIN_WORDINGS,
    asking_wording,
    wording_named,
    wordings,
)
from incatalog.errors import ConfigError


def fields(instruction: str) -> set[str]:
    return {field for _, field, _, _ in string.Formatter().parse(instruction) if field}


def test_every_wording_has_its_fields_and_an_own_name() -> None:
    every = (*TRAIN_WORDINGS, *TEST_WORDINGS)
    assert len({wording.name for wording in every}) == len(every)
    for wording in every:
        expected = {"history", "item_count"}
        if wording.offers_candidates:
            expected.add("candidates")
        assert fields(wording.instruction) == expected
        assert wording.instruction.count("<SOI>") == 2 * wording.mentions_control_tokens
        assert wording.instruction.count("<EOI>") == 2 * wording.mentions_control_tokens


@pytest.mark.parametrize("stage", ["train", "test"])
def test_wordings_are_chosen_by_what_they_hold(stage: str) -> None:
    silent = wordings(stage)
    both = wordings(stage, mention_control_tokens=True)
    assert silent
    assert not any(w.mentions_control_tokens or w.offers_candidates for w in silent)
    assert both[: len(silent)] == silent
    assert all(w.mentions_control_tokens for w in both[len(silent) :])
    assert all(w.offers_candidates for w in wordings(stage, candidates=True))


def test_the_counts_of_the_published_wordings() -> None:
    assert len(wordings("train")) == 1
    assert len(wordings("train", mention_control_tokens=True)) == 2
    assert len(wordings("train", mention_control_tokens=True, candidates=True)) == 2
    assert len(wordings("test")) == 3
    assert len(wordings("test", mention_control_tokens=True)) == 5
    assert len(wordings("test", candidates=True)) == 1


def test_a_wording_is_found_by_name() -> None:
    assert wording_named("test-single-turn") == wordings("test")[0]
    with pytest.raises(ConfigError, match="test-single-turn"):
        wording_named("polite")


def test_alignment_wordings_show_one_side_and_ask_for_the_other() -> None:
    sides = {("text", "item"): 0, ("item", "title"): 0}
    for wording in ALIGNMENT_WORDINGS:
        (shown,), (asked,) = fields(wording.instruction), fields(wording.answer)
        sides[shown, asked] += 1
        assert wording.shows_text == (shown == "text")
    assert set(sides.values()) == {2}
    assert len({wording.name for wording in ALIGNMENT_WORDINGS}) == len(ALIGNMENT_WORDINGS)


def test_wordings_to_ask_with_offer_no_candidates() -> None:
    for wording in (*TRAIN_WORDINGS, *TEST_WORDINGS):
        if wording.offers_candidates:
            with pytest.raises(ConfigError, match=f"--wording {wording.name}: offers candidates"):
                asking_wording(wording.name)
        else:
            assert asking_wording(wording.name) == wording
    with pytest.raises(ConfigError, match="--wording: no wording is named 'polite'; expected one"):
        asking_wording("polite")
