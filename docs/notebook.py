"""Runs ``docs/notebook.ipynb`` and keeps its outputs in it: ``make notebook``.

    python docs/notebook.py [FILE]

With FILE the notebook with its outputs goes there, and the kept one stays as it is. The cells run
in an empty folder, with the commands of this very environment on the path.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_suffix(".ipynb")
# The cell that fits the blend trains a network for some seconds, on cores that may be shared.
_MOST_SECONDS = 600
# Jupyter says that it is a terminal. Bars that are drawn anew are no text to keep; lines are.
_PLAIN = "import os; os.environ['FORCE_COLOR'] = ''"


def run(notebook: Any) -> Any:
    """The notebook with the outputs of its cells; an error where a cell fails."""
    commands = str(Path(sys.executable).parent)
    before = dict(os.environ)
    os.environ["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"
    # Tables as wide as the page.
    os.environ["COLUMNS"] = "88"
    notebook.cells.insert(0, nbformat.v4.new_code_cell(_PLAIN))
    try:
        with tempfile.TemporaryDirectory() as folder:
            client = NotebookClient(
                notebook,
                timeout=_MOST_SECONDS,
                kernel_name="python3",
                resources={"metadata": {"path": folder}},
            )
            client.execute()
    finally:
        os.environ.clear()
        os.environ.update(before)
    del notebook.cells[0]
    return tidy(notebook)


def tidy(notebook: Any) -> Any:
    """Takes away what is another one at each run: times, names of kernels, cuts of streams."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
        "incatalog": {"sources": sources(notebook)},
    }
    code = (cell for cell in notebook.cells if cell.cell_type == "code")
    for number, cell in enumerate(code, start=1):
        cell.metadata, cell.execution_count = {}, number
        joined: list[Any] = []
        for output in cell.outputs:
            if joined and "text" in output and joined[-1].get("name") == output.name:
                joined[-1].text += output.text
            else:
                joined.append(output)
        for output in joined:
            if "text" in output:
                lines = output.text.replace("\r\n", "\n").splitlines()
                output.text = "\n".join(line.rstrip() for line in lines).strip("\n") + "\n"
        cell.outputs = joined
    return notebook


def sources(notebook: Any) -> str:
    """A checksum of the code, so that outputs of other code are told."""
    code = [cell["source"] for cell in notebook["cells"] if cell["cell_type"] == "code"]
    joined = "\n\n".join(one if isinstance(one, str) else "".join(one) for one in code)
    return hashlib.sha256(joined.encode()).hexdigest()


def main(target: Path) -> None:
    """Runs the notebook and writes it."""
    nbformat.write(run(nbformat.read(NOTEBOOK, as_version=4)), target)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else NOTEBOOK)
