from __future__ import annotations

import io

import pytest
from rich.console import Console

from reclm.progress import with_progress


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_hands_on_every_batch(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reclm.progress._SECONDS_BETWEEN_LINES", 0.0)
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal)
    batches = [[1, 2], [3, 4], [5]]
    assert list(with_progress(batches, 5, "evaluate", console)) == batches
    if terminal:
        assert "5/5" in output.getvalue()
    else:
        assert output.getvalue() == "evaluate: 2 of 5\nevaluate: 4 of 5\n"
