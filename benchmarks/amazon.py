"""How much time and memory does `incatalog data` need for a million reviews, in each format?

Writes files of the size and shape of the raw ones into a temporary folder, prepares them in a
process of its own, and prints wall time, processor time and peak memory of that process.

    python -m benchmarks.amazon [--reviews 1000000] [--users 100000] [--items 50000]
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
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
CORE = ["--k-core", "5"]
MODES = {"17 interactions, 10,000 users": [], "5-core": CORE}


def main() -> None:
    """Generates the files, runs every mode and format, writes the table."""
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
        _, _, base = run("import incatalog.data.amazon", [])
        pair = ["data", "amazon", "--reviews", str(reviews), "--meta", str(meta)]
        jobs = {mode: [*pair, *flags] for mode, flags in MODES.items()}
        jobs |= write_others(folder, reviews, sizes.items)
        code = "import sys; from incatalog.cli import main; sys.exit(main(sys.argv[1:]))"
        for number, (mode, arguments) in enumerate(jobs.items()):
            seconds, busy, peak = run(code, [*arguments, "--out", str(folder / f"out-{number}")])
            rows.append([mode, f"{seconds:.1f}", f"{busy:.1f}", f"{peak:.0f}", f"{base:.0f}"])
    header = ["mode", "seconds", "processor seconds", "peak memory, MB", "imports alone, MB"]
    title = f"Preparing {sizes.reviews:,} reviews (Amazon 2018: {stored:.0f} MB as stored)"
    publish("amazon", title, markdown(header, rows))


def write_others(folder: Path, reviews: Path, items: int) -> dict[str, list[str]]:
    """Writes the same reviews in other formats; returns the commands that read them."""
    csv, steam, yelp = folder / "ratings.csv", folder / "steam.json.gz", folder / "yelp.json"
    films = folder / "ml"
    films.mkdir()
    with contextlib.ExitStack() as stack:
        stored = stack.enter_context(gzip.open(reviews, "rt"))
        rated = stack.enter_context(csv.open("w"))
        seen = stack.enter_context((films / "ratings.csv").open("w"))
        played = stack.enter_context(gzip.open(steam, "wt", compresslevel=1))
        eaten = stack.enter_context(yelp.open("w"))
        rated.write("user_id,parent_asin,rating,timestamp\n")
        seen.write("userId,movieId,rating,timestamp\n")
        for record in map(json.loads, stored):
            user, item, time_of = (record[f] for f in ("reviewerID", "asin", "unixReviewTime"))
            day = datetime.datetime.fromtimestamp(time_of, datetime.UTC)
            text = record["reviewText"]
            rated.write(f"{user},{item},5.0,{time_of}000\n")
            seen.write(f"{int(user[1:])},{int(item[1:])},4.5,{time_of}\n")
            played.write(
                f"{{u'username': u'{user}', u'hours': 1.1, u'products': 41, u'product_id': "
                f"u'{item}', u'page_order': 0, u'date': u'{day:%Y-%m-%d}', u'text': u'{text}', "
                "u'early_access': False, u'page': 1}\n"
            )
            business = {"review_id": "x", "user_id": user, "business_id": item, "stars": 3.0}
            eaten.write(json.dumps(business | {"text": text, "date": f"{day:%F %T}"}) + "\n")
    metas: dict[str, list[str]] = {"new": [], "games": [], "places": [], "films": []}
    for item in range(items):
        asin, title = f"B{item:09d}", f"Thing {item}"
        new = {"parent_asin": asin, "title": title, "categories": ["Shop", f"Part {item % 40}"]}
        place = {"business_id": asin, "name": title, "categories": "Food, Bars"}
        metas["new"].append(json.dumps(new))
        metas["games"].append(repr({"id": asin, "title": title, "genres": ["Action"]}))
        metas["places"].append(json.dumps(place))
        metas["films"].append(f'{item},"{title}, The (1999)",Drama|Comedy')
    for name, lines in metas.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    text = (folder / "films").read_text()
    (films / "movies.csv").write_text(f"movieId,title,genres\n{text}")

    def command(verb: str, reviews: Path, meta: str) -> list[str]:
        return ["data", verb, "--reviews", str(reviews), "--meta", str(folder / meta), *CORE]

    return {
        "Amazon 2023, ratings in CSV, 5-core": command("amazon", csv, "new"),
        "Steam, 5-core": command("steam", steam, "games"),
        "Yelp, 5-core": command("yelp", yelp, "places"),
        "MovieLens, ratings.csv": ["data", "movielens", "--source", str(films)],
    }


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


def run(code: str, arguments: list[str]) -> tuple[float, float, float]:
    """Runs Python code in a process of its own: seconds, processor seconds, peak MB (Linux)."""
    # Not getrusage: its peak also counts what the parent held when it forked.
    report = (
        "import atexit, time\n"
        "atexit.register(lambda: print(open('/proc/self/status').read(), time.process_time()))\n"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", report + code, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    lines = done.stdout.splitlines()
    peak = next(line for line in lines if line.startswith("VmHWM:"))
    return seconds, float(lines[-1]), int(peak.split()[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
