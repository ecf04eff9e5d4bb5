from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from incatalog import metrics
from incatalog.evaluation.compare import compare_runs
from incatalog.evaluation.finished import CHAT, FinishedRun
from incatalog.evaluation.headline import Headline, Standing, deciding_metric, headline
from scored import MISSED, scored_run

USERS = 40
ALWAYS = [1] * USERS
THIRD = [3] * USERS  # NDCG 1 / log2(4) = 0.5
NEVER = [MISSED] * USERS
# First for the half, second for the others, and the other way about: the same in the mean.
ONE_WAY, OTHER_WAY = [1, 2] * (USERS // 2), [2, 1] * (USERS // 2)
BLEND = {"model/teacher.json": "a", "model/parts/ease/teacher.json": "b"}
GUIDE = {"guide/teacher.json": "a", "guide/parts/ease/teacher.json": "b", "guide.json": "c"}


def told(*runs: FinishedRun, **more: Any) -> Headline:
    pairs = compare_runs(runs, ("HR@3", "NDCG@3"), 200, 0)["pairs"] if len(runs) > 1 else []
    return headline(runs, pairs, "NDCG@3", **more)


def chat_run(folder: Path) -> FinishedRun:
    folder.mkdir()
    manifest = {"stage": CHAT, "status": "finished", "config": {"data": "shop"}}
    rounds = {"ExactlyK": {"value": 0.975}, "NoControl": {"value": 1.0}}
    summary = {"method": "cgen", "users": 4, "k": 3, "metrics": {}, "rounds": rounds}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "summary.json").write_text(json.dumps(summary))
    return FinishedRun.load(folder, CHAT)


def test_a_winner_worked_out_by_hand(tmp_path: Path) -> None:
    said = told(
        scored_run(tmp_path / "p", "popularity", NEVER),
        scored_run(tmp_path / "c", "cgen", THIRD, decode="beam"),
        scored_run(tmp_path / "s", "sasrec", ALWAYS),
        items=1682,
    )
    assert said.compared == (
        "The base line popularity, the teacher SASRec, and the language model cgen recommended 3 "
        "items to each of 40 users of shop (1,682 items); right is the last item of each user, "
        "which was hidden; what a user had seen was left out."
    )
    assert said.winner == (
        "The winner is SASRec: it has NDCG@3 1.000 (95 % interval 1.000 to 1.000), 0.500 (0.500 to "
        "0.500) above cgen, the next; the right item is among its 3 for 100.0 % of users, among "
        "those of popularity, the base line, for 0.0 %."
    )
    assert said.language_model == (
        "The language model adds nothing to the accuracy of SASRec alone: cgen is 0.500 (0.500 to "
        "0.500) below it; what it adds is conversation, which was not measured here, and none of "
        "the 120 items it named is outside the catalog."
    )


def test_a_guided_model_that_equals_its_guide_is_a_tie(tmp_path: Path) -> None:
    said = told(
        scored_run(tmp_path / "g", "cgen, guided", ALWAYS, decode="list", guide_weight=1.0,
                   inputs=GUIDE),
        scored_run(tmp_path / "l", "cgen", THIRD, decode="list"),
        scored_run(tmp_path / "s", "sasrec", THIRD),
        scored_run(tmp_path / "b", "blend", ALWAYS, inputs=BLEND),
    )  # fmt: skip
    assert "in 4 runs" in said.compared
    assert said.winner.startswith(
        "At the top blend and cgen (guided list) tie; blend has NDCG@3 1.000 (95 % interval 1.000 "
        "to 1.000), 0.500 (0.500 to 0.500) above SASRec, the next, and cgen (guided list) scores "
        "the same; "
    )
    assert said.language_model.startswith(
        "The language model adds nothing to the accuracy of blend alone: cgen (guided list) scores "
        "the same, as the guide decides alone; without a guide the best, cgen (list), is 0.500 "
        "(0.500 to 0.500) below it; what it adds is conversation"
    )


def test_what_a_guide_gave_is_not_what_the_model_adds(tmp_path: Path) -> None:
    """A guide that is not among the runs may be all there is to a better list."""
    said = told(
        scored_run(tmp_path / "g", "cgen, guided", ALWAYS, decode="list", guide_weight=0.5,
                   inputs=GUIDE),
        scored_run(tmp_path / "b", "blend", THIRD, inputs=BLEND | {"model/teacher.json": "other"}),
    )  # fmt: skip
    assert said.winner.startswith("The winner is cgen (guided list): ")
    assert said.language_model.startswith(
        "What the language model adds to accuracy was not measured, as the guide of cgen (guided "
        "list) is not among the runs; it adds conversation"
    )


def test_a_model_that_adds_accuracy_and_one_no_better_than_popularity(tmp_path: Path) -> None:
    popularity = scored_run(tmp_path / "p", "popularity", THIRD)
    teacher = scored_run(tmp_path / "s", "sasrec", THIRD)
    better = scored_run(tmp_path / "c", "cgen", ALWAYS, decode="beam")
    assert told(popularity, teacher, better).language_model.startswith(
        "The language model adds 0.500 (0.500 to 0.500) of NDCG@3 to SASRec alone (as cgen), and "
    )
    poor = scored_run(tmp_path / "t", "token", NEVER, decode="beam")
    assert told(popularity, teacher, poor).language_model.startswith(
        "The language model adds nothing to the accuracy of SASRec alone: token is 0.500 (0.500 "
        "to 0.500) below it; popularity, the base line, is no worse than token; "
    )


def test_a_difference_that_may_be_chance_is_a_tie(tmp_path: Path) -> None:
    one = scored_run(tmp_path / "k", "knn", ONE_WAY)
    two = scored_run(tmp_path / "c", "cgen", OTHER_WAY, decode="beam")
    said = told(two, one)
    assert said.winner.startswith(
        "Nobody wins: kNN and cgen tie; kNN has NDCG@3 0.815 (95 % interval "
    )
    assert "and differences from it may be chance (the largest is 0.000 (−0." in said.winner
    assert "cgen differs by 0.000 (−0." in said.language_model


def test_what_is_free_of_the_catalog_is_counted(tmp_path: Path) -> None:
    said = told(
        scored_run(tmp_path / "u", "untrained", NEVER, outside=2, decode="free text"),
        scored_run(tmp_path / "c", "cgen", ALWAYS, outside=1, decode="beam"),
        chats=[chat_run(tmp_path / "chat")],
    )
    assert "each of 40 users of shop; " in said.compared  # The four talked and were not ranked for.
    assert said.language_model == (
        "No teacher is among the runs to hold cgen against; it adds conversation (4 with cgen, "
        "98 % of the lists have exactly 3 items, 100 % of the next answers are plain text), and "
        "40 of the 120 items it named (33.3 %) are outside the catalog, and in free text 80 of the "
        "120 items it named (66.7 %) are outside the catalog."
    )


def test_runs_that_cannot_be_compared_have_no_winner(tmp_path: Path) -> None:
    one = scored_run(tmp_path / "s", "sasrec", ALWAYS, config={"exclude_seen": False})
    two = scored_run(tmp_path / "c", "cgen", NEVER[:7], decode="beam", config={"data": "other"})
    said = headline([one, two], [], "NDCG@3")
    assert "7 and 40 users of shop and other; " in said.compared
    assert said.compared.endswith("what a user had seen was left out in some runs.")
    assert said.winner == (
        "Nobody wins, as the runs differ in users, held-out items or the length of answers."
    )
    assert said.language_model.endswith("what it adds to accuracy was not measured.")
    alone = told(one)
    assert alone.winner.startswith("Nobody wins, as SASRec is alone: it has NDCG@3 1.000 (95 %")
    assert alone.language_model.startswith("No language model is among the runs")
    only = headline([], [], "NDCG@0", [chat_run(tmp_path / "chat")])
    assert only.compared == "The language model cgen held conversations with 4 users of shop."
    assert only.winner == "Nobody wins, as nothing was ranked."


def test_a_win_that_many_comparisons_may_explain_says_so(tmp_path: Path) -> None:
    # Six of 40 users better and none worse: p 2 / 2^6 = 0.031 alone, 0.094 as one of three.
    names = {"sasrec": [1] * 6 + [2] * 34, "knn": [2] * 40, "ease": [2] * 40}
    said = told(*(scored_run(tmp_path / name, name, places) for name, places in names.items()))
    assert said.winner.startswith("The winner is SASRec: ")
    assert " above kNN, the next (p 0.09 once all 3 comparisons are counted); " in said.winner


@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=5, max_size=12))
def test_those_at_the_top_are_those_that_brute_force_finds(
    tmp_path_factory: pytest.TempPathFactory, places: list[tuple[int, int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    names = ("sasrec", "knn", "ease")
    runs = [scored_run(folder / name, name, own)
            for name, own in zip(names, zip(*places, strict=True), strict=True)]  # fmt: skip
    standing = Standing(runs, compare_runs(runs, ("NDCG@3",), 200, 0)["pairs"], "NDCG@3")
    gains = {run.name: run.users["NDCG@3"].to_numpy() for run in runs}
    best = standing.runs[0].name
    assert gains[best].mean() == pytest.approx(max(own.mean() for own in gains.values()))
    expected = {best}
    for name, own in gains.items():
        # The interval of the mean is symmetric in the sign of the differences but for rounding.
        sign = 1 if names.index(name) < names.index(best) else -1
        [interval] = metrics.bootstrap_intervals(np.stack([sign * (gains[best] - own)], 1), 200, 0)
        low = interval.low if sign == 1 else -interval.high
        if low <= 0:
            expected.add(name)
    assert {run.name for run in standing.tied} == expected


def test_ndcg_decides_if_it_was_compared() -> None:
    assert deciding_metric(["HR@10", "NDCG@5", "NDCG@10"]) == "NDCG@5"
    assert deciding_metric(["OOD@10", "MRR@3"]) == "MRR@3"
    assert deciding_metric(["OOD@10", "Novelty@10"]) is None
