"""What do paraphrases of the titles add to cgen? MovieLens-100K, and a rule in place of a model.

The rule puts an article where it is spoken and leaves out the year and what stands in brackets:
``Lion King, The (1994)`` is also called ``The Lion King (1994)`` and ``The Lion King``. A name that
would be that of two films is left out. One model each for paraphrases nowhere, in histories, as
targets, and in both; all learn from one teacher. Goes on where it was stopped.

python -m benchmarks.paraphrases [--seeds 3] [--arms without history targets both] [--epochs 40]
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import polars as pl
from benchmarks.report import markdown, publish
from benchmarks.study import DOMAINS, METRICS, Study, cells, difference, side_by_side

from incatalog.artifacts import atomic_path
from incatalog.data.catalog import Catalog
from incatalog.rewrite.apply_rewrite import PARAPHRASES_FILE

_DOMAIN = DOMAINS["movielens"]
_WITHOUT = "without"
_ARMS = (_WITHOUT, "history", "targets", "both")
_TEACHER_SEED = 0
_YEAR = re.compile(r"\s*\((\d{4})\)\s*$")
_BRACKETS = re.compile(r"\s*\([^()]*\)")
_ARTICLE = re.compile(r"^(.*), (The|A|An|Les?|La|Il|El|Das|Der|Die|L')$")


def main() -> None:
    """Trains what is not trained yet, and writes ``results/paraphrases.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each model.")
    parser.add_argument("--arms", nargs="+", choices=_ARMS, default=list(_ARMS))
    parser.add_argument("--epochs", type=int, default=40, help="Epochs of each training.")
    parser.add_argument("--jobs", type=int, default=1, help="Trainings at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each training.")
    options = parser.parse_args()
    study, seeds = Study(options.out.resolve(), options.threads), range(options.seeds)
    path = write_paraphrases(study)
    # Seed by seed, so that what has been trained at any time can be compared.
    chains = [
        partial(scores, study, path, arm, seed, options.epochs)
        for seed in seeds
        for arm in options.arms
    ]
    study.teacher(_DOMAIN, _TEACHER_SEED)
    side_by_side(options.jobs, chains)
    publish(
        "paraphrases",
        "What paraphrases of the titles add to cgen",
        section(study, path, options.arms, list(seeds), options.epochs),
    )


def spoken(title: str) -> list[str]:
    """Other names of a film, by the rule."""
    year = _YEAR.search(title)
    bare = _BRACKETS.sub("", _YEAR.sub("", title)).strip()
    moved = _ARTICLE.match(bare)
    if moved is not None:
        gap = "" if moved[2].endswith("'") else " "
        bare = f"{moved[2]}{gap}{moved[1]}"
    names = [f"{bare} ({year[1]})", bare] if year else [bare]
    return [name for name in names if name and name != title]


def write_paraphrases(study: Study) -> Path:
    """Writes the paraphrases of all titles, as `incatalog rewrite apply` would."""
    catalog = Catalog.load(study.data(_DOMAIN))
    names = [spoken(title) for title in catalog.titles]
    called = Counter(name for own in names for name in set(own))
    called.update(catalog.titles)
    path = study.folder / _DOMAIN.name / PARAPHRASES_FILE
    with atomic_path(path) as partial_file, partial_file.open("w", encoding="utf-8") as stream:
        for item, own in zip(catalog.items, names, strict=True):
            line = {
                "item_id": item.item_id,
                "title": item.title,
                "paraphrases": [name for name in own if called[name] == 1],
            }
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
    return path


def scores(study: Study, path: Path, arm: str, seed: int, epochs: int) -> pl.DataFrame:
    """Trains and scores the model of an arm."""
    extra: list[object] = ["--epochs", epochs]
    extra += ["--teacher", study.teacher(_DOMAIN, _TEACHER_SEED)]
    if arm != _WITHOUT:
        extra += ["--paraphrases", path, "--paraphrases-in", arm]
    name = name_of(arm, epochs)
    model = study.model(_DOMAIN, "cgen", seed, name=name, extra=extra, teacher=False)
    return study.scores(_DOMAIN, model, seed)


def name_of(arm: str, epochs: int) -> str:
    """Folder of a model."""
    return f"paraphrases-{arm}-{epochs}"


def section(study: Study, path: Path, arms: Sequence[str], seeds: list[int], epochs: int) -> str:
    """The table."""
    tables = {arm: [scores(study, path, arm, seed, epochs) for seed in seeds] for arm in arms}
    rows = []
    for arm, runs in tables.items():
        against = "" if arm == _WITHOUT else difference(runs, tables[_WITHOUT], "NDCG@10")
        minutes = study.minutes(_DOMAIN, name_of(arm, epochs), seeds)
        rows.append([arm, *cells(runs), against, f"{minutes:.1f}"])
    header = ("paraphrases", *METRICS, "NDCG@10 less that without", "minutes of training")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    count = sum(len(line["paraphrases"]) for line in lines)
    unlabelled = (
        "\n\nThe recipe also trains on the spans of the history; a paraphrase that is no target "
        "carries no loss there, so `history` learns from fewer of them."
    )
    return (
        f"{markdown(header, rows)}\n\n"
        f"MovieLens-100K, {len(tables[arms[0]][0])} users, {len(seeds)} seeds; "
        f"`recipes/movielens/cgen.yaml` with {epochs} epochs and one teacher for all; {count} "
        f"paraphrases of {len(lines)} titles, by rule. At each occurrence of an item with "
        "paraphrases one of them stands in place of its title with probability 0.5. Held-out last "
        "item of every user, seen items excluded. In brackets 95 % of the bootstrap over users, "
        "each of whom counts with the mean of the seeds. Minutes on one processor core, in the "
        "mean over the seeds." + (unlabelled if "history" in arms else "")
    )


if __name__ == "__main__":
    main()
