from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from incatalog.cli import main
from incatalog.data.interactions import Holdout
from incatalog.steering.balance import STEERING_FILE, Balance
from incatalog.steering.fit_steering import request_for, try_balances
from incatalog.steering.steering import Steering
from shelves import FILMS


def test_requests_are_made_from_items() -> None:
    steering, random = Steering.of(FILMS, encoder="words"), np.random.default_rng(0)
    made = {request_for(FILMS, steering, 1, random) for _ in range(50)}
    # Horror and Sci-Fi are its categories; no word of its title is that of two other films.
    assert made >= {"I would like horror", "I would like sci-fi"}
    assert all("alien" not in text for text in made)


def test_the_best_balance_is_the_one_that_finds_the_items() -> None:
    steering = Steering.of(FILMS, encoder="words")
    log_p = np.tile(np.linspace(0, -5, len(FILMS)), (2, 1))
    holdouts = [Holdout(np.array([0]), 9), Holdout(np.array([0]), 8)]
    found = try_balances(steering, holdouts, ["hamlet", "falcon"], log_p)
    assert set(found) == {
        Balance(0.0, 0.0, 0.0),
        *(Balance(s, 1.0, 0.0) for s in (0, 2.5, 5, 10, 20)),
    }
    assert found[Balance(0.0, 0.0, 0.0)] == pytest.approx((1 / np.log2(11) + 1 / np.log2(10)) / 2)
    # Each is first once its word is worth more than five.
    assert found[Balance(20.0, 1.0, 0.0)] == 1


def test_the_fit_lies_with_the_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, teacher = tmp_path / "data", tmp_path / "knn"
    FILMS.save(data)
    rows = np.random.default_rng(0).permuted(np.tile(np.arange(10), (30, 1)), axis=1)[:, :5]
    lines = {
        f"u{user}": [f"f{row}" for row in row_list] for user, row_list in enumerate(rows.tolist())
    }
    (data / "sequential.jsonl").write_text(json.dumps(lines))
    fit = ["teacher", "fit", "--kind", "popularity", "--data", str(data), "--out", str(teacher)]
    assert main(fit) == 0
    flags = ["--data", str(data), "--teacher", str(teacher), "--encoder", "words"]
    assert main(["steering", "fit", *flags]) == 0
    known = json.loads((teacher / STEERING_FILE).read_text())["encoders"]["words"]
    assert known["fitted"]["users"] == 30
    assert known["fitted"]["NDCG@10"] >= known["fitted"]["unsteered"]
    assert Balance.beside(teacher, "words") == Balance(known["strength"], 1.0, 0.0)
    assert Balance.beside(teacher, "minilm") == Balance()
    assert "written to" in capsys.readouterr().err
    assert main(["steering", "fit", *flags[:-1], "off"]) == 2
    assert "--encoder off: steers nothing" in capsys.readouterr().err
    assert main(["steering", "fit", *flags[:-1], "nowhere"]) == 2
    assert "--encoder nowhere: no such folder" in capsys.readouterr().err
