from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.metrics import Interval
from incatalog.quickstart.blend_quality import BLEND, POPULARITY, Quality, measured
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher_folder import save_teacher

_NOTHING = Interval(0.0, -0.01, 0.01)
_POPULAR = (Interval(0.05, 0.04, 0.06), Interval(0.02, 0.01, 0.03))
_GOOD = (Interval(0.2, 0.18, 0.22), Interval(0.1, 0.09, 0.11))


def test_it_says_how_good_the_blend_is_in_plain_words(tmp_path: Path) -> None:
    rows = {POPULARITY: _POPULAR, BLEND: _GOOD}
    good = Quality(90, 90, rows, Interval(0.05, 0.02, 0.08))
    assert good.better
    assert good.sentence() == (
        "For 20.0 % of the users, what they took next is among the ten items that the blend would "
        "have named; among the ten most popular ones it is for 5.0 %."
    )
    good.save(tmp_path / "quality.json")
    assert Quality.load(tmp_path / "quality.json") == good
    bad = Quality(50, 90, rows, _NOTHING)
    assert not bad.better
    assert "no better than popularity by more than chance" in bad.sentence()
    console = Console(record=True, width=100)
    console.print(bad.table())
    said = console.export_text()
    assert "What 50 of 90 users took last" in said
    assert "0.200 (0.180 to 0.220)" in said


def test_a_blend_that_is_popularity_leads_by_nothing(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    catalog = Catalog.from_items([Item(f"i{row}", f"Title {row}") for row in range(30)], "things")
    lists = [random.choice(30, 6, replace=False).tolist() for _ in range(80)]
    histories = Histories.from_lists([f"u{user}" for user in range(80)], lists)
    data = tmp_path / "data"
    data.mkdir()
    catalog.save(data)
    histories.save(data, catalog)
    popular = Popularity.from_histories([np.array(one[:-2]) for one in lists], catalog)
    (tmp_path / "blend").mkdir()
    save_teacher(tmp_path / "blend", popular, catalog)
    found = measured(data, {BLEND: tmp_path / "blend"}, 0)
    assert found.rows[BLEND] == found.rows[POPULARITY]
    assert found.lead == Interval(0.0, 0.0, 0.0)
    assert not found.better
    counts = np.bincount(np.concatenate([one[:-2] for one in lists]), minlength=30)
    hits = []
    for one in lists:
        order = sorted(set(range(30)) - set(one[:-1]), key=lambda row: (-counts[row], row))
        hits.append(one[-1] in order[:10])
    assert found.rows[POPULARITY][0].value == pytest.approx(np.mean(hits))
