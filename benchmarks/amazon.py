"""How much time and memory does `incatalog data amazon` need for a million reviews?

Writes a review file and a metadata file of the size and shape of the raw ones into a temporary
folder, prepares them in a process of its own, and prints wall time and peak memory of that process.

    python -m benchmarks.amazon [--reviews 1000000] [--users 100000] [--items 50000]
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from benchmarks.report import markdown, publish

WORDS = (
    "sturdy",
    "light",
    "blue",
    "compact",
    "gift",
    "travel",
    "kitchen",
    "garden",
    "paper",
    "steel",
    "cotton",
    "classic",
)
MODES = {"17 interactions, 10,000 users": [], "5-core": ["--k-core", "5"]}


def main() -> None:
    """Generates the files, runs both modes, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reviews", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=50_000)
    sizes = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        reviews, meta = folder / "Shop_5.json.gz", folder / "meta_Shop.json.gz"
        write_files(reviews, meta, sizes.reviews, sizes.users, sizes.items)
        stored = sum(path.stat().st_size for path in (reviews, meta)) / 1e6
        _, base = run("import incatalog.data.amazon", [])
        for mode, flags in MODES.items():
            arguments = ["data", "amazon", "--reviews", str(reviews), "--meta", str(meta)]
            arguments += ["--out", str(folder / mode.split()[0]), *flags]
            code = "import sys; from incatalog.cli import main; sys.exit(main(sys.argv[1:]))"
            seconds, peak = run(code, arguments)
            rows.append([mode, f"{seconds:.1f}", f"{peak:.0f}", f"{base:.0f}"])
    publish(
        "amazon",
        f"Preparing {sizes.reviews:,} Amazon reviews ({stored:.0f} MB as stored)",
        markdown(["mode", "seconds", "peak memory, MB", "imports alone, MB"], rows),
    )


def write_files(reviews: Path, meta: Path, count: int, users: int, items: int) -> None:
    """Writes reviews item by item, popular ones first, and one metadata line an item."""
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(1, items + 1) ** 0.8
    item_of = np.sort(draw.choice(items, size=count, p=weights / weights.sum()))
    # A few users write much, so that enough of them reach 17 reviews.
    user_of = (users * draw.random(count) ** 2).astype(np.int64)
    time_of = draw.integers(1_200_000_000, 1_530_000_000, size=count)
    texts = [" ".join(draw.choice(WORDS, size=40)) for _ in range(500)]
    with gzip.open(reviews, "wt", compresslevel=1) as stream:
        for number in range(count):
            record = {
                "overall": 5.0,
                "verified": True,
                "reviewTime": "06 17, 2018",
                "reviewerID": f"A{user_of[number]:013d}",
                "asin": f"B{item_of[number]:09d}",
                "reviewerName": "A. Customer",
                "reviewText": texts[number % len(texts)],
                "summary": "Five stars",
                "unixReviewTime": int(time_of[number]),
            }
            stream.write(json.dumps(record) + "\n")
    with gzip.open(meta, "wt", compresslevel=1) as stream:
        for item in range(items):
            record = {
                "asin": f"B{item:09d}",
                "title": f"{texts[item % len(texts)][:50]} {item}",
                "category": ["Shop", f"Part {item % 40}", f"Shelf {item % 900}"],
                "description": [f"<p>{texts[(item + i) % len(texts)]}</p>" for i in range(4)],
                "also_buy": [f"B{other:09d}" for other in range(60)],
                "feature": texts[item % 400 : item % 400 + 3],
            }
            stream.write(json.dumps(record) + "\n")


def run(code: str, arguments: list[str]) -> tuple[float, float]:
    """Runs Python code in a process of its own; returns seconds and peak memory in MB (Linux)."""
    # Not getrusage: its peak also counts what the parent held when it forked.
    report = "import atexit; atexit.register(lambda: print(open('/proc/self/status').read()))\n"
    start = time.perf_counter()
    command = [sys.executable, "-c", report + code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    peak = next(line for line in done.stdout.splitlines() if line.startswith("VmHWM:"))
    return seconds, int(peak.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
