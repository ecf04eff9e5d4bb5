from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from incatalog.cli import main
from incatalog.errors import ArtifactError, ConfigError, DataError, IncatalogError
from incatalog.evaluation.compare import evaluate_compare, holm, permutation_p
from incatalog.evaluation.settings import EvaluateCompareSettings
from incatalog.metrics import named_intervals
from scored import MISSED, scored_run


def make_run(folder: Path, method: str, hits: list[float], **columns: Any) -> str:
    folder.mkdir()
    config = {"data": "shop", "split": "test", "exclude_seen": False}
    manifest = {"stage": "evaluate recommend", "status": "finished", "config": config}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    scores = {name: np.array(hits) for name in ("HR@10", "NDCG@10")}
    found = {"metrics": named_intervals(scores, 20, 0)}
    (folder / "summary.json").write_text(
        json.dumps({"method": method, "users": 4, "k": 10} | found)
    )
    users = [f"u{number}" for number in range(len(hits))]
    table = {"user_id": users, "target": ["i"] * len(hits), "HR@10": hits, "NDCG@10": hits}
    pl.DataFrame(table | columns).write_parquet(folder / "users.parquet")
    return str(folder)


def test_difference_and_exact_p_worked_out_by_hand(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", "sasrec", [0.0, 0, 1, 0])
    # The same users in another order; they are paired by name.
    two = make_run(tmp_path / "two", "cgen", [1.0, 1, 1, 1], user_id=["u3", "u2", "u1", "u0"])
    result = evaluate_compare(EvaluateCompareSettings((one, two), tmp_path / "out", ("HR@10",)))
    [pair] = result["pairs"]
    assert (pair["first"], pair["second"], pair["users"]) == ("sasrec", "cgen", 4)
    assert pair["difference"]["value"] == 0.75
    # Three users differ, all one way: 2 of the 8 ways to flip their signs are as far from 0.
    assert pair["p"] == pair["p_holm"] == 2 / 8
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == result


@given(st.lists(st.integers(-3, 3), max_size=8))
def test_exact_p_is_the_share_of_all_sign_flips(values: list[int]) -> None:
    flips = [sum(s * v for s, v in zip(signs, values, strict=True))
             for signs in product((1, -1), repeat=len(values))]  # fmt: skip
    expected = np.mean([abs(total) >= abs(sum(values)) for total in flips])
    assert permutation_p(np.array(values, dtype=float), 10, 0) == pytest.approx(expected)


def test_sampled_p_comes_near_the_sign_test() -> None:
    # 12 of 20 users better by the same amount: the two-sided binomial test gives 0.5034.
    differences = np.array([0.1] * 12 + [-0.1] * 8 + [0.0] * 30)
    assert permutation_p(differences, 20_000, 0) == pytest.approx(0.5034, abs=0.015)
    assert permutation_p(np.ones(40), 999, 0) == 1 / 1000


def test_holm_worked_out_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), 0.06]
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_users_without_a_metric_do_not_count(tmp_path: Path) -> None:
    one = make_run(tmp_path / "one", "a", [0.0, np.nan, 1.0])
    two = make_run(tmp_path / "two", "a", [1.0, 1.0, np.nan])
    result = evaluate_compare(EvaluateCompareSettings((one, two), metrics=("HR@10",)))
    [pair] = result["pairs"]
    assert (pair["users"], pair["difference"]["value"], pair["p"]) == (1, 1.0, 1.0)
    assert [run["name"] for run in result["runs"]] == ["one", "two"]


def test_the_command_takes_runs_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(tmp_path / name, name, [0.0, 1.0]) for name in ("sasrec", "cgen", "ret")]
    assert main(["evaluate", "compare", *runs, "--resamples", "50"]) == 0
    shown = capsys.readouterr().out
    table = shown[: shown.index("The teacher")]
    assert [table.count(name) for name in ("sasrec", "cgen", "ret")] == [4, 4, 4]


def test_the_sentences_of_a_report_end_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        str(scored_run(tmp_path / name, name, [place] * 4, **more).folder)
        for name, place, more in (("sasrec", 1, {}), ("cgen", MISSED, {"decode": "beam"}))
    ]
    command = ["evaluate", "compare", *runs, "--resamples", "50", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "The winner is SASRec: it has NDCG@3 1.000 (95 % interval 1.000 to 1.000)" in shown
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["headline"]
    assert shown.endswith(" ".join(" ".join(found.values()).split()))
    assert list(found) == ["compared", "winner", "language_model"]
    # Nobody wins by what only describes.
    assert main(["evaluate", "compare", *runs, "--metrics", "OOD@3", "--resamples", "50"]) == 0
    assert "winner" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"user_id": ["u0", "x"]}, DataError, "1 only in the first, 1 only in the second"),
        ({"target": ["i", "j"]}, DataError, "1 users have another target"),
        ({}, ConfigError, "--metrics MRR@3: .* has HR@10, NDCG@10"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, change: dict[str, Any], error: type[IncatalogError], message: str
) -> None:
    runs = (
        make_run(tmp_path / "one", "a", [0.0, 1.0]),
        make_run(tmp_path / "two", "b", [0.0, 1.0], **change),
    )
    with pytest.raises(error, match=message):
        evaluate_compare(EvaluateCompareSettings(runs, metrics=("MRR@3",)))


def test_folders_that_are_no_finished_runs_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "one", "a", [1.0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="two or more"):
        evaluate_compare(EvaluateCompareSettings((run,)))
    with pytest.raises(ArtifactError, match=r"empty: holds no manifest\.json"):
        evaluate_compare(EvaluateCompareSettings((run, str(tmp_path / "empty"))))
    (tmp_path / "one" / "manifest.json").write_text('{"stage": "evaluate recommend"}')
    with pytest.raises(ArtifactError, match="is not finished"):
        evaluate_compare(EvaluateCompareSettings((run, run)))
