from __future__ import annotations

import io

import pytest
from rich.console import Console

from incatalog.progress import _clock, with_progress


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
