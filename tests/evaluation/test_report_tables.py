from __future__ import annotations

from pathlib import Path

from incatalog.evaluation.compare import compare_runs
from incatalog.evaluation.finished import FinishedRun
from incatalog.evaluation.headline import Standing
from incatalog.evaluation.report_tables import (
    EMPTY,
    ReportCell,
    gaps_table,
    in_order,
    interval_cell,
    metrics_table,
    pairs_table,
    segments_table,
)
from scored import MISSED, scored_run

ALL, NONE = [1] * 20, [MISSED] * 20


def runs_in(folder: Path) -> list[FinishedRun]:
    return [
        scored_run(folder / "c", "cgen", [3] * 20, decode="beam", coverage=0.25, outside=0),
        scored_run(folder / "u", "untrained", NONE, decode="free text", outside=1),
        scored_run(folder / "p", "popularity", NONE, coverage=0.125),
        scored_run(folder / "b", "blend", ALL),
        scored_run(folder / "g", "cgen, guided", ALL, decode="list", guide_weight=1.0),
    ]


def test_popularity_comes_first_and_then_the_best(tmp_path: Path) -> None:
    names = [run.name for run in in_order(runs_in(tmp_path), "NDCG@3")]
    assert names == ["popularity", "blend", "cgen (guided list)", "cgen", "untrained"]


def test_the_best_of_a_column_is_marked_unless_all_are_equal(tmp_path: Path) -> None:
    table = metrics_table(runs_in(tmp_path), 3)
    headings = [column.heading for column in table.columns]
    assert headings == ["NDCG@3", "HR@3", "OOD@3", "coverage"]  # No run has the others.
    assert table.groups == [
        ("Finds the right item", 2), ("Keeps to what was asked", 1), ("Variety", 1)
    ]  # fmt: skip
    cells = {row.name: row.cells for row in table.rows}
    assert cells["cgen"][0] == ReportCell("0.500", value=0.5)
    assert [name for name, own in cells.items() if own[0].best] == ["blend", "cgen (guided list)"]
    # Less is better here, and what writes as it likes is alone with 0.333.
    assert [name for name, own in cells.items() if own[2].best] == [
        "popularity", "blend", "cgen (guided list)", "cgen"
    ]  # fmt: skip
    assert [own[3] for own in cells.values()].count(EMPTY) == 3
    assert not any(own[3].best for own in cells.values())
    assert [row.name for row in table.rows if row.is_base] == ["popularity"]


def test_differences_are_from_the_best_run(tmp_path: Path) -> None:
    runs = runs_in(tmp_path)
    pairs = compare_runs(runs, ("NDCG@3", "HR@3"), 200, 0)["pairs"]
    table = gaps_table([Standing(runs, pairs, name) for name in ("NDCG@3", "HR@3")])
    assert table.label == "Differences from blend"
    cells = {row.name: [cell.text for cell in row.cells] for row in table.rows}
    assert cells["cgen (guided list)"] == ["0.000", "1.0000", "the same"] * 2
    assert cells["cgen"][:1] + cells["cgen"][2:4] == ["−0.500", "behind", "0.000"]
    assert cells["popularity"][3] == "−1.000"
    both = pairs_table(pairs, runs)
    assert len(both.rows) == 2 * 5 * 4 / 2
    [row] = [row for row in both.rows if row.name == "NDCG@3"
             and {row.cells[0].text, row.cells[1].text} == {"cgen", "blend"}]  # fmt: skip
    assert [cell.text for cell in row.cells[:4]] == ["blend", "cgen", "20", "+0.500"]


def test_kinds_of_users_have_a_row_each(tmp_path: Path) -> None:
    def part(by: str, segment: str, value: float) -> dict[str, object]:
        interval = {"value": value, "low": value, "high": value}
        return {"by": by, "segment": segment, "users": 4, "metrics": {"HR@3": interval}}

    runs = [
        scored_run(tmp_path / "s", "sasrec", ALL, segments=[part("target", "head", 0.5)]),
        scored_run(tmp_path / "k", "knn", NONE,
                   segments=[part("target", "head", 0.25), part("category", "Toys", 0.125)]),
    ]  # fmt: skip
    table = segments_table(runs, "HR@3")
    assert [column.heading for column in table.columns] == ["users", "SASRec", "kNN"]
    head, toys = table.rows
    assert (head.name, toys.name) == ("target: head", "Toys")
    assert [(cell.text, cell.best) for cell in head.cells] == [
        ("4", False), ("0.500", True), ("0.250", False)
    ]  # fmt: skip
    assert toys.cells[1] == EMPTY


def test_an_interval_without_width_is_not_shown() -> None:
    assert interval_cell({"value": 0.5, "low": 0.25, "high": 0.75}).interval == "0.250–0.750"
    assert interval_cell({"value": 0.0, "low": 0.0, "high": 0.0}) == ReportCell("0.000", value=0.0)
    assert interval_cell(None) == EMPTY
