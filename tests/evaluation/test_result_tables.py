from __future__ import annotations

import io

from rich.console import Console

from incatalog.evaluation.result_tables import metric_table


def test_table_has_a_row_a_metric_and_fits_a_terminal() -> None:
    interval = {"value": 0.25, "low": 0.125, "high": 0.5}
    summary = {
        "method": "sasrec",
        "users": 7,
        "k": 10,
        "metrics": {
            "HR@1": interval,
            "HR@5": interval,
            "HR@10": interval,
            "TargetCategory@10": interval,
        },
    }
    console = Console(file=io.StringIO(), width=80)
    with console.capture() as shown:
        console.print(metric_table(summary))
    lines = [line.split() for line in shown.get().splitlines() if line.strip()]
    assert lines[0] == ["7", "users,", "95", "%", "intervals"]
    assert lines[1] == ["sasrec", "@1", "@5", "@10"]
    assert lines[-2] == ["HR", *["0.250", "(0.125–0.500)"] * 3]
    assert lines[-1] == ["TargetCategory", "0.250", "(0.125–0.500)"]
