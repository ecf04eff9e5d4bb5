from __future__ import annotations

import io

from rich.console import Console

from incatalog.progress import FitReport

ENTRY = {"epoch": 3, "loss": 6.5, "NDCG@10": 0.08, "HR@10": 0.15}
BEST = {"epoch": 2, "loss": 6.6, "NDCG@10": 0.09, "HR@10": 0.16}


def told(*, terminal: bool, done: int = 0) -> str:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=160)
    with FitReport(10, done=done, console=console) as report:
        report.epoch_begins(2)
        report.batch_done()
        report.batch_done()
        report.epoch_done(ENTRY, BEST)
    return out.getvalue()


def test_a_log_gets_lines() -> None:
    assert told(terminal=False) == (
        "teacher: epoch 3  loss 6.500  valid NDCG@10 0.0800 (best 0.0900, HR@10 0.1600, epoch 2)\n"
    )


def test_a_terminal_gets_a_bar() -> None:
    text = told(terminal=True)
    assert "epoch 4 of 10" in text
    assert "best 0.0900" in text


def test_a_resumed_run_says_so() -> None:
    assert told(terminal=False, done=2).startswith("teacher: resuming after epoch 2\n")
