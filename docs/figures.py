"""Makes pictures of the docs from a finished study: ``make docs``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from incatalog.artifacts import read_json
from incatalog.evaluation.figures import dot_figure, highest, segment_facets
from incatalog.evaluation.finished import RECOMMEND, FinishedRun
from incatalog.evaluation.looks import colour_rules
from incatalog.quickstart.study import METHODS, comparison, show_answer

_IMAGES = Path(__file__).parent / "images"
# The grounds of GitHub's pages.
_LIGHT = "--text: #1c1d1b; --dim: #5d5f59; --line: #dcdcd5; --surface: #ffffff;"
_DARK = "--text: #e9ebe6; --dim: #a5aaa3; --line: #343935; --surface: #0d1117;"


def main(study: Path) -> None:
    """Writes ``demo.svg``, the end of what ``make study`` prints, and a figure of its report."""
    console = Console(record=True, width=88, file=io.StringIO(), force_terminal=True)
    console.print(comparison(read_json(study / "summary.json")["rows"]))
    show_answer(console, study / "cgen", study / "data")
    _IMAGES.mkdir(exist_ok=True)
    console.save_svg(str(_IMAGES / "demo.svg"), title="make study")
    segments(study / "evaluation")


def segments(evaluation: Path) -> None:
    """Writes ``segments.svg``: a figure of the report that the study ends with."""
    runs = [FinishedRun.load(evaluation / name, RECOMMEND) for name in METHODS]
    facets = segment_facets(runs, f"HR@{runs[0].k}", "target")
    light, dark = colour_rules()
    # Alone it has the variables of the report itself.
    style = (
        f"<style>:root {{ {_LIGHT} {light} font-family: system-ui, sans-serif; }} "
        f"@media (prefers-color-scheme: dark) {{ :root {{ {_DARK} {dark} }} }} "
        "text { fill: var(--text); }</style>"
    )
    svg = dot_figure(runs, facets, highest(facets))
    (_IMAGES / "segments.svg").write_text(svg.replace("<defs>", f"{style}<defs>", 1), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/study"))
