"""Runs the benchmarks one after the other, each in a process of its own.

python -m benchmarks [NAME ...]
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent
_SHARED = {"__init__", "__main__", "report"}


def main(names: list[str]) -> int:
    """Runs the named benchmarks, or all; the exit code is that of the first that failed."""
    known = sorted(path.stem for path in _HERE.glob("*.py") if path.stem not in _SHARED)
    if unknown := sorted(set(names) - set(known)):
        print(f"{', '.join(unknown)}: no such benchmark; there are {', '.join(known)}")
        return 2
    for name in names or known:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
