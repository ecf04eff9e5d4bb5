from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from incatalog.evaluation.figures import (
    Panel,
    calibration_figure,
    dot_figure,
    highest,
    segment_facets,
)
from incatalog.evaluation.finished import FinishedRun
from scored import MISSED, scored_run

HALF = {"value": 0.5, "low": 0.25, "high": 0.75}
SVG = "{http://www.w3.org/2000/svg}"


def runs_in(folder: Path) -> list[FinishedRun]:
    bins = [{"probability": 0.01, "hits": 0.02}, {"probability": 0.2, "hits": 0.0}]
    more = {
        "segments": [
            {"by": "target", "segment": "head", "users": 3, "metrics": {"HR@3": HALF}},
            {"by": "history", "segment": "1–5", "users": 2, "metrics": {}},
        ],
        "calibration": {"ECE": 0.0125, "bins": bins},
    }  # fmt: skip
    return [
        scored_run(folder / "s", "sasrec", [1, 1, MISSED], segments=[]),
        scored_run(folder / "a$b$ <i>", "cgen", [1, 2, MISSED], decode="beam", **more),
    ]


def test_a_figure_has_names_values_and_words(tmp_path: Path) -> None:
    first, second = runs_in(tmp_path)
    facet = Panel("HR & $more$", [HALF, None])
    svg = dot_figure([first, second], [facet], highest([facet]))
    root = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    assert {"SASRec", "cgen", "0.500", "HR & $more$"} <= set(texts)
    assert root.attrib["aria-label"] == "HR & $more$: SASRec 0.500 (0.250 to 0.750)"
    assert root.attrib["role"] == "img"
    assert "<style" not in svg
    # The line, its mark and where that is put; and no colour that the page does not know.
    assert svg.count("stroke: var(--method-8c2d04, #8c2d04)") == 3
    assert set(re.findall(r"#[0-9a-f]{6}", svg)) <= set(re.findall(r", (#[0-9a-f]{6})\)", svg))
    assert svg == dot_figure([first, second], [facet], highest([facet]))


def test_figures_of_one_page_share_no_ids(tmp_path: Path) -> None:
    runs = runs_in(tmp_path)
    facets = segment_facets(runs, "HR@3", "target")
    assert [facet.title for facet in facets] == ["HR@3, head item (3 users)"]
    assert facets[0].intervals == [None, HALF]
    assert segment_facets(runs, "HR@3", "history")[0].intervals == [None, None]
    svgs = [dot_figure(runs, facets, 1.0), dot_figure(runs, facets, 0.8),
            calibration_figure([runs[1]])]  # fmt: skip
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in svgs]
    assert len({one for own in ids for one in own}) == sum(len(set(own)) for own in ids)
    for own, svg in zip(ids, svgs, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= set(own)


def test_calibration_has_a_line_in_the_colour_of_its_method(tmp_path: Path) -> None:
    svg = calibration_figure([runs_in(tmp_path)[1]])
    root = ElementTree.fromstring(svg)
    assert root.attrib["aria-label"] == "Mean distance from the diagonal: cgen 0.0125"
    assert "var(--method-09a557, #09a557)" in svg
    assert "1 %" in ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def test_a_long_name_leaves_room_for_the_figure(tmp_path: Path) -> None:
    run = scored_run(tmp_path / "x", "a very long name of a teacher made elsewhere", [1])
    svg = dot_figure([run], [Panel("HR@3", [run.summary["metrics"]["HR@3"]])], 1.0)
    texts = ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]
    assert "a very long n…made elsewhere" in [text.strip() for text in texts]
