"""How long a search that forgives takes: seconds of one core, over invented titles.

python -m benchmarks.title_search [TITLES]
"""

from __future__ import annotations

import random
import statistics
import sys
import time

from incatalog import Catalog, Item
from incatalog.serving.title_search import TitleSearch

_SYLLABLES = [first + second for first in "bcdfgklmnprst" for second in "aeiou"]
_WORDS, _QUERIES = 50_000, 200


def main() -> None:
    """Prints what building the index and what a query takes."""
    rng, size = random.Random(0), int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    words = ["".join(rng.choices(_SYLLABLES, k=rng.randint(1, 5))) for _ in range(_WORDS)]
    titles = [" ".join(rng.choices(words, k=rng.randint(2, 9))) for _ in range(size)]
    catalog = Catalog.from_items(Item(str(row), title) for row, title in enumerate(titles))
    begun = time.process_time()
    search = TitleSearch(catalog)
    search.near("first")
    built = time.process_time() - begun
    seconds, found = [], 0
    for _ in range(_QUERIES):
        row = rng.randrange(size)
        typed = list(" ".join(titles[row].split()[:3]))
        typed.pop(rng.randrange(len(typed)))
        begun = time.process_time()
        rows = search.near("".join(typed))
        seconds.append(time.process_time() - begun)
        found += row in rows[:8]
    middle, worst = (1000 * one for one in (statistics.median(seconds), max(seconds)))
    print(f"{size:,} titles: index {built:.2f} s, query {middle:.0f} ms, {worst:.0f} at most")
    print(f"a letter missing, the title is among the first eight: {found / _QUERIES:.0%}")


if __name__ == "__main__":
    main()
