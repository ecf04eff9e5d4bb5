from __future__ import annotations

import io

import pytest
from rich.console import Console

from incatalog.progress import FitReport, _clock, with_progress
from incatalog.teacher.fit import result_text

ENTRY = {"epoch": 3, "loss": 6.5, "NDCG@10": 0.08, "HR@10": 0.15}
BEST = {"epoch": 2, "loss": 6.6, "NDCG@10": 0.09, "HR@10": 0.16}


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_hands_on_every_batch(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("incatalog.progress._SECONDS_BETWEEN_LINES", 0.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal)
    batches = [[1, 2], [3, 4], [5]]
    assert list(with_progress(batches, 5, "evaluate", console)) == batches
    if terminal:
        assert "5/5" in output.getvalue()
    else:
        lines = output.getvalue().splitlines()
        assert lines == ["evaluate: 2 of 5, 0:00:00 left", "evaluate: 4 of 5, 0:00:00 left"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")]
)
def test_time_left_is_hours_minutes_and_seconds(seconds: float, shown: str) -> None:
    assert _clock(seconds) == shown


def told(*, terminal: bool, done: int = 0) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160)
    with FitReport("teacher", 10, done=done, console=console) as report:
        report.show(completed=2.5)
        report.show(completed=3)
        report.epoch_done(3, result_text(ENTRY, BEST))
    return out.getvalue()


def test_a_log_gets_lines() -> None:
    assert told(terminal=False) == (
        "teacher: epoch 3  loss 6.500  valid NDCG@10 0.0800 (best 0.0900, HR@10 0.1600, epoch 2)"
        "  at most 0:00:00 left\n"
    )


def test_a_terminal_gets_a_bar() -> None:
    text = told(terminal=True)
    assert "epoch 4 of 10" in text
    assert "best 0.0900" in text


def test_a_resumed_run_says_so() -> None:
    assert told(terminal=False, done=2).startswith("teacher: resuming after epoch 2\n")
