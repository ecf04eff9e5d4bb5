"""Makes the pictures of the README from a finished demo: ``make docs``."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from reclm.artifacts import read_json
from reclm.demo import comparison, show_answer

_IMAGES = Path(__file__).parent / "images"


def main(demo: Path) -> None:
    """Writes ``demo.svg``: the end of what ``make demo`` prints."""
    console = Console(record=True, width=88, file=io.StringIO(), force_terminal=True)
    console.print(comparison(read_json(demo / "summary.json")["rows"]))
    show_answer(console, demo / "cgen", demo / "data")
    _IMAGES.mkdir(exist_ok=True)
    console.save_svg(str(_IMAGES / "demo.svg"), title="make demo")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
