"""Makes pictures of the docs from a finished study: ``make docs``."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

from rich.console import Console

from incatalog.artifacts import read_json
from incatalog.evaluation.figures import segment_figure
from incatalog.quickstart.study import METHODS, comparison, show_answer

_IMAGES = Path(__file__).parent / "images"


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
    rows = [read_json(evaluation / name / "summary.json") | {"name": name} for name in METHODS]
    figure = segment_figure(rows, rows[0]["k"])
    (_IMAGES / "segments.svg").write_bytes(base64.b64decode(figure.split(",")[1]))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/study"))
