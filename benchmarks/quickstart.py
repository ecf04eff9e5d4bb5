"""How long does it take from two files to the first answer, and how good are the answers?

Two files of a shop are made of Office: prices and stock are invented, names and formats odd, some
products discontinued. `incatalog quickstart` makes a service of them; each of some users is then
asked for by a chat over HTTP, with a chat model that was never trained on the catalog. Lists are
compared with those of the blend and of popularity, on what each user took last.

    python -m benchmarks.quickstart [--data ../shared/data/office] [--users 200] [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from benchmarks.report import markdown, publish
from benchmarks.shop_files import shop_files

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.metrics import bootstrap_intervals, hit_rate
from incatalog.quickstart.example_talks import asked, service
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher import load_teacher

K = 10
AT_ONCE = 8
RESAMPLES = 1000


def main() -> None:
    """Times a quickstart, and scores the answers of its service."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/office"))
    parser.add_argument("--users", type=int, default=200)
    parser.add_argument("--out", type=Path, default=None, help="an existing quickstart is kept")
    parser.add_argument("--json", type=Path, default=None, help="figures go here, and no page")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(options.data, Path(folder), options.out, options.users)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))
        return
    rows = [
        (name, *(f"{figures[name][part]:.3f}" for part in ("value", "low", "high")))
        for name in ("chat over HTTP", "blend", "popularity", "chat less popularity")
    ]
    table = markdown(["", "HR@10", "low", "high"], rows)
    body = (
        f"Office as two files of a shop ({figures['orders']:,} orders, {figures['products']:,} "
        f"products). `incatalog quickstart` took {figures['seconds']:.0f} s, the service "
        f"{figures['to_first_answer']:.0f} s more to its first answer. {figures['users']} users "
        f"asked by chat for ten products, 95 % intervals of the bootstrap; "
        f"{figures['same']:.0%} of the lists are those of the blend.\n\n{table}\n"
    )
    publish("quickstart", "From two files to an assistant", body)


def measure(data: Path, folder: Path, out: Path | None, count: int) -> dict[str, object]:
    """The figures of one quickstart, in a folder of its own."""
    orders, products = shop_files(data, folder)
    out = out or folder / "shop"
    command = [sys.executable, "-m", "incatalog.cli", "quickstart", str(orders), str(products)]
    started = time.monotonic()
    subprocess.run([*command, "--out", str(out), "--no-serve"], check=True)
    prepared = time.monotonic()
    catalog = Catalog.load(out / "data")
    split = leave_one_out(Histories.load(out / "data", catalog))
    users = np.sort(
        np.random.default_rng(0).choice(len(split), min(count, len(split)), replace=False)
    )
    tests = [split.test(int(user)) for user in users]
    ids = [[catalog.item(int(row)).item_id for row in one.history] for one in tests]
    model = f"incatalog/{out.resolve().name}"

    with service(out / "serve.yaml") as address:

        def answer(history: list[str]) -> list[int]:
            message = {"role": "user", "content": "What else could I use?"}
            body = {"model": model, "messages": [message], "history": history, "k": K}
            return [catalog.row(item["id"]) for item in asked(address, body)["items"]]

        first = answer(ids[0])
        to_first = time.monotonic() - prepared
        with ThreadPoolExecutor(AT_ONCE) as pool:
            chats = [first, *pool.map(answer, ids[1:])]
    histories, targets = [one.history for one in tests], [{one.target} for one in tests]
    trained = [split.train(user) for user in range(len(split))]
    teachers = {
        "blend": load_teacher(out / "blend", catalog, "cpu"),
        "popularity": Popularity.from_histories(trained, catalog),
    }
    lists = {"chat over HTTP": chats}
    lists |= {name: one.top_k(histories, K).tolist() for name, one in teachers.items()}
    hits = {name: hit_rate(found, targets, K) for name, found in lists.items()}
    hits["chat less popularity"] = hits["chat over HTTP"] - hits["popularity"]
    found = bootstrap_intervals(np.stack(list(hits.values()), axis=1), RESAMPLES, 0)
    same = np.mean([one == other for one, other in zip(chats, lists["blend"], strict=True)])
    return {
        "orders": len(split.histories.rows),
        "products": len(catalog),
        "users": len(tests),
        "seconds": prepared - started,
        "to_first_answer": to_first,
        "same": float(same),
        **{name: one._asdict() for name, one in zip(hits, found, strict=True)},
    }


if __name__ == "__main__":
    main()
