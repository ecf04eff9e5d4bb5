"""How much time and memory does preparing large tables take, and reading what was prepared?

Invents orders and products (items by Zipf's law, seeded), prepares them with `incatalog data
table`, and reads them as a training does, each in a process of its own: wall time, processor time
and peak memory.

    python -m benchmarks.prepare [--rows 10000000] [--users 200000] [--items 50000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
from benchmarks.report import markdown, publish

_PREPARE = "import sys; from incatalog.cli import main; sys.exit(main([*sys.argv[1:], '--quiet']))"
# What a training reads first, and one look at every history.
_READ = """
import sys
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
catalog = Catalog.load(sys.argv[1])
split = leave_one_out(Histories.load(sys.argv[1], catalog))
print(sum(len(split.train(user)) for user in range(len(split))))
"""
# Prints the peak of the process and its processor seconds. Not getrusage: its peak also counts what
# the parent held when it forked.
_REPORT = """
import atexit, os
def report():
    print(open('/proc/self/status').read())
    print(sum(os.times()[:4]))
atexit.register(report)
"""


class Cost(NamedTuple):
    """What a process took."""

    seconds: float
    busy: float  # user and system
    peak: float  # MB, with the pages of files that are mapped
    own: float  # MB at the end, without them
    printed: list[str]


def write_tables(folder: Path, rows: int, users: int, items: int) -> tuple[Path, Path]:
    """Writes ``orders.parquet`` and ``products.parquet``; returns their paths."""
    random = np.random.default_rng(0)
    weights = 1 / np.arange(1, items + 1)
    bought = np.searchsorted(np.cumsum(weights) / weights.sum(), random.random(rows))
    buyers = (users * random.random(rows) ** 1.5).astype(np.int64)
    orders, products = folder / "orders.parquet", folder / "products.parquet"
    pl.DataFrame(
        {
            "user_id": pl.select(pl.format("u{}", pl.Series(buyers))).to_series(),
            "item_id": pl.select(pl.format("i{}", pl.Series(bought))).to_series(),
            "timestamp": random.integers(1_500_000_000, 1_700_000_000, size=rows),
        }
    ).write_parquet(orders)
    numbers = range(items)
    pl.DataFrame(
        {
            "item_id": [f"i{number}" for number in numbers],
            "title": [f"Product {number} of line {number % 97}" for number in numbers],
            "category": [f"Shelf {number % 300}" for number in numbers],
            "price": (random.integers(100, 9000, size=items) / 100),
        }
    ).write_parquet(products)
    return orders, products


def cost(code: str, *arguments: str) -> Cost:
    """Runs Python code in a process of its own (Linux)."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _REPORT + code, *arguments], capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        sys.exit(done.stderr)
    lines = done.stdout.splitlines()
    size = {
        line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("VmH", "Rss"))
    }
    peak, own = (int(size[name]) * 1024 / 1e6 for name in ("VmHWM", "RssAnon"))
    return Cost(seconds, float(lines[-1]), peak, own, lines)


def measure(folder: Path, orders: Path, products: Path) -> list[list[str]]:
    """A row of the table for each step."""
    csv = folder / "orders.csv"
    pl.scan_parquet(orders).sink_csv(csv)
    given = ["data", "table", "--items", str(products), "--interactions"]
    steps = {
        "imports alone": ("import incatalog.data.tables", []),
        "Parquet to Parquet": (
            _PREPARE,
            [*given, str(orders), "--out", str(folder / "parquet"), "--format", "parquet"],
        ),
        "Parquet to JSON": (_PREPARE, [*given, str(orders), "--out", str(folder / "json")]),
        "CSV to Parquet": (
            _PREPARE,
            [*given, str(csv), "--out", str(folder / "of-csv"), "--format", "parquet"],
        ),
        "read Parquet": (_READ, [str(folder / "parquet")]),
        "read JSON": (_READ, [str(folder / "json")]),
    }
    rows = []
    for name, (code, arguments) in steps.items():
        found = cost(code, *arguments)
        rows.append(
            [name, f"{found.seconds:.1f}", f"{found.busy:.1f}", f"{found.peak:.0f}",
             f"{found.own:.0f}"]
        )  # fmt: skip
    return rows


def main() -> None:
    """Invents the tables, measures, writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=200_000)
    parser.add_argument("--items", type=int, default=50_000)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        orders, products = write_tables(folder, sizes.rows, sizes.users, sizes.items)
        rows = measure(folder, orders, products)
        stored = {
            what: sum(one.stat().st_size for one in folder.glob(pattern)) / 1e6
            for what, pattern in {
                "orders.parquet": "orders.parquet", "orders.csv": "orders.csv",
                "prepared Parquet": "parquet/*.parquet", "its arrays": "parquet/.histories/*.npy",
                "prepared JSON": "json/*.jsonl",
            }.items()
        }  # fmt: skip
    header = ["step", "seconds", "processor seconds", "peak memory, MB", "own at the end, MB"]
    files = "; ".join(f"{what} {size:.0f} MB" for what, size in stored.items())
    publish(
        "prepare",
        f"Preparing {sizes.rows:,} interactions of {sizes.users:,} users and {sizes.items:,} items",
        f"{markdown(header, rows)}\n\nOn disk: {files}. Processor seconds are user and system, of "
        "all threads. The peak counts pages of mapped files, which the system takes back when it "
        "needs them; memory of its own at the end does not.",
    )


if __name__ == "__main__":
    main()
