"""What commands say when they are done, read from what they wrote."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from incatalog.cli import COMMANDS, main, with_leading
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.ending import _ENDINGS, Closing, compared, popularity
from incatalog.flags import parse


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """Twenty users who go round in a circle of ten films, but for those who love the first."""
    folder = tmp_path_factory.mktemp("ending") / "data"
    catalog = Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles[:10])])
    lists = [[(user + step) % 10 for step in range(6)] for user in range(20)]
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(20)], lists).save(folder, catalog)
    return folder


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The last lines of standard error, by what stands in front."""
    lines = capsys.readouterr().err.splitlines()
    known = ("wrote", "quality", "warning", "next")
    return dict(line.split(": ", 1) for line in lines if line.split(": ", 1)[0] in known)


def is_a_command(line: str) -> None:
    """Whether a command line is one that is taken."""
    program, *words = shlex.split(line)
    assert program == "incatalog"
    name = next(n for n in (" ".join(words[:2]), words[0]) if n in COMMANDS)
    parse(name, COMMANDS[name].settings, with_leading(COMMANDS[name], words[len(name.split()) :]))


def test_every_long_command_has_an_ending() -> None:
    quick = {"recommend", "chat", "serve", "teacher serve", "demo"}
    stages = ("data ", "teacher ", "items ", "train ", "model ", "rewrite ", "evaluate ", "guide ")
    long = {name for name in COMMANDS if name.startswith(stages)} - quick
    assert long <= _ENDINGS.keys() <= COMMANDS.keys()


def test_popularity_is_that_of_a_count_by_hand(tmp_path: Path) -> None:
    catalog = Catalog.from_items([Item(str(n), f"Film {n}") for n in range(4)])
    # Training items: 0, 0, 1; validation items: 1, 2, 0; the last ones are for the test.
    lists = [[0, 1, 3], [0, 2, 3], [1, 0, 3]]
    catalog.save(tmp_path)
    Histories.from_lists(["a", "b", "c"], lists).save(tmp_path, catalog)
    found, users = popularity(tmp_path, "valid", None, exclude_seen=False)
    # Order 0, 1, 2, 3: their ranks are 2, 3 and 1.
    assert users == 3
    assert found["HR@10"] == 1
    assert found["NDCG@10"] == pytest.approx((1 / np.log2(3) + 1 / 2 + 1) / 3)
    # Without what they have seen, the second of 1, 2, 3 is first or second.
    found, users = popularity(tmp_path, "valid", [0, 1], exclude_seen=True)
    assert users == 2
    assert found["NDCG@10"] == pytest.approx((1 + 1 / np.log2(3)) / 2)


def test_no_better_than_popularity_is_a_warning() -> None:
    better, worse = {"HR@10": 0.2, "NDCG@10": 0.1}, {"HR@10": 0.3, "NDCG@10": 0.05}
    quality, warning = compared("validation", better, worse, "9 users")
    assert quality == ("validation: HR@10 0.200, NDCG@10 0.100 (popularity: 0.300, 0.050; 9 users)")
    assert warning == ""
    for popular in (better, {"HR@10": 0.1, "NDCG@10": 0.2}):
        assert compared("test", better, popular, "")[1].startswith("it is no better than")


def test_lines_of_an_ending() -> None:
    ending = Closing("runs/x", next=["chat", "--model", Path("a b")])
    assert ending.lines() == ["wrote: runs/x", "next: incatalog chat --model 'a b'"]
    assert Closing().lines() == []


def test_teachers_and_evaluations_end_with_figures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    knn, scored = tmp_path / "knn", tmp_path / "scored"
    flags = ["--kind", "knn", "--exclude-seen", "--data", str(data), "--out", str(knn)]
    assert main(["teacher", "fit", *flags]) == 0
    found = told(capsys)
    own = json.loads((knn / "manifest.json").read_text())["results"]
    popular, _ = popularity(data, "valid", None, exclude_seen=True)
    assert found["wrote"] == str(knn)
    assert found["quality"] == (
        f"validation: HR@10 {own['HR@10']:.3f}, NDCG@10 {own['NDCG@10']:.3f} (popularity: "
        f"{popular['HR@10']:.3f}, {popular['NDCG@10']:.3f}; 20 users, seen items left out)"
    )
    assert ("warning" in found) == (own["NDCG@10"] <= popular["NDCG@10"])
    is_a_command(found["next"])
    # A repeated command says the same, and a quiet one nothing.
    assert main(["teacher", "fit", *flags]) == 0
    assert told(capsys) == found
    assert main(["teacher", "fit", *flags, "--quiet"]) == 0
    assert told(capsys) == {}
    asked = ["--model", str(knn), "--data", str(data), "--out", str(scored), "--users", "8"]
    assert main(["evaluate", "recommend", *asked, "--exclude-seen"]) == 0
    found = told(capsys)
    assert "; 8 users, seen items left out)" in found["quality"]
    assert found["quality"].startswith("test: HR@10 ")
    is_a_command(found["next"])


def test_data_ends_with_the_next_step(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(data)]) == 0
    is_a_command(told(capsys)["next"])


def test_trainings_end_with_figures(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = [
        "--tiny-hidden",
        "16",
        "--tiny-inner",
        "16",
        "--tiny-layers",
        "1",
        "--max-steps",
        "1",
        "--device",
        "cpu",
    ]
    for tune in ("full", "lora"):
        out = tmp_path / tune
        flags = ["--model", "tiny", "--tune", tune, "--data", str(data), "--out", str(out)]
        assert main(["train", "sft", *flags, *sizes]) == 0
        captured = capsys.readouterr()
        assert "Writing model shards" not in captured.err + captured.out
        own = json.loads((out / "manifest.json").read_text())["results"]
        lines = dict(line.split(": ", 1) for line in captured.err.splitlines() if ": " in line)
        figures = f"HR@10 {own['HR@10']:.3f}, NDCG@10 {own['NDCG@10']:.3f} (popularity: "
        assert lines["quality"].startswith(f"validation: {figures}")
        assert lines["quality"].endswith("20 users, seen items left out)")
        is_a_command(lines["next"])
        assert ("train merge" in lines["next"]) == (tune == "lora")
