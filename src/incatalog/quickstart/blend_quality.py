"""How good a blend is beside popularity, on what every user took last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float64
from rich.table import Table

from incatalog.artifacts import read_json, write_json
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import Histories, Holdout, leave_one_out
from incatalog.metrics import Interval, bootstrap_intervals, of_ranks
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher import load_teacher

_K = 10
_RESAMPLES = 1000
_MOST_USERS = 2000
POPULARITY: Final = "popularity"
BLEND: Final = "blend"


@dataclass(frozen=True)
class Quality:
    """HR@10 and NDCG@10 of teachers on the held-out last items, and of the blend's lead."""

    users: int
    all_users: int
    rows: Mapping[str, tuple[Interval, Interval]]  # HR@10 and NDCG@10, by the teacher's name
    lead: Interval  # NDCG@10 of the blend less that of popularity, on validation items

    @property
    def better(self) -> bool:
        """Whether the blend is better than popularity by more than chance, on validation items."""
        return self.lead.low > 0

    def save(self, path: Path) -> None:
        """Writes it as JSON."""
        rows = {
            name: {"HR@10": hits._asdict(), "NDCG@10": gains._asdict()}
            for name, (hits, gains) in self.rows.items()
        }
        known = {"users": self.users, "all_users": self.all_users}
        write_json(path, known | {"rows": rows, "validation_lead": self.lead._asdict()})

    @classmethod
    def load(cls, path: Path) -> Quality:
        """Reads what `save` wrote."""
        found: dict[str, Any] = read_json(path)
        rows = {
            name: (Interval(**row["HR@10"]), Interval(**row["NDCG@10"]))
            for name, row in found["rows"].items()
        }
        lead = Interval(**found["validation_lead"])
        return cls(found["users"], found["all_users"], rows, lead)

    def table(self) -> Table:
        """One row a teacher, with 95 % intervals."""
        of = "" if self.users == self.all_users else f" of {self.all_users:,}"
        title = f"What {self.users:,}{of} users took last, found among ten"
        table = Table(title=title, title_justify="left", caption_justify="left")
        table.add_column("")
        for metric in ("HR@10", "NDCG@10"):
            table.add_column(f"{metric} (95 % interval)", justify="right", no_wrap=True)
        for name, row in self.rows.items():
            cells = [f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in row]
            table.add_row(name, *cells, style="bold" if name == BLEND else "")
        return table

    def sentence(self) -> str:
        """What the table says, in plain words."""
        blend, popular = self.rows[BLEND][0].value, self.rows[POPULARITY][0].value
        told = (
            f"For {_share(blend)} of the users, what they took next is among the ten items that "
            "the blend would have named; among the ten most popular ones it is for "
            f"{_share(popular)}."
        )
        if not self.better:
            told += (
                " On the validation items the blend is no better than popularity by more than "
                "chance: recommendations will look like a list of bestsellers until there are more "
                "orders of more customers."
            )
        return told


def measured(data: Path, teachers: Mapping[str, Path], seed: int) -> Quality:
    """Scores teachers, one of them the blend, and popularity on held-out items.

    What was seen is left out of the answers, as the service does. Of more than 2,000 users some are
    drawn.

    Raises:
        DataError: The data is broken.
        TeacherError: A teacher is damaged, or was fitted on another catalog.
    """
    catalog = Catalog.load(data)
    split = leave_one_out(Histories.load(data, catalog))
    users = np.arange(len(split))
    if len(users) > _MOST_USERS:
        drawn = np.random.default_rng(seed).choice(len(users), _MOST_USERS, replace=False)
        users = np.sort(drawn)
    trained = [split.train(user) for user in range(len(split))]
    scored: dict[str, ScoringTeacher] = {POPULARITY: Popularity.from_histories(trained, catalog)}
    scored |= {name: load_teacher(folder, catalog, "cpu") for name, folder in teachers.items()}
    tests = [split.test(int(user)) for user in users]
    columns = [column for teacher in scored.values() for column in _figures(teacher, tests)]
    found = bootstrap_intervals(np.stack(columns, axis=1), _RESAMPLES, seed)
    rows = {name: (found[2 * at], found[2 * at + 1]) for at, name in enumerate(scored)}
    valid = [split.valid(int(user)) for user in users]
    gains = [_figures(scored[name], valid)[1] for name in (BLEND, POPULARITY)]
    [lead] = bootstrap_intervals((gains[0] - gains[1])[:, None], _RESAMPLES, seed)
    return Quality(len(users), len(split), rows, lead)


def _figures(
    teacher: ScoringTeacher, asked: Sequence[Holdout]
) -> tuple[Float64[np.ndarray, " users"], Float64[np.ndarray, " users"]]:
    """Hits and gains among ten items of each user."""
    histories, targets = [one.history for one in asked], [[one.target] for one in asked]
    ranks = np.concatenate(teacher.ranking(histories, targets, exclude_seen=True))
    hits, gains = of_ranks(ranks, _K)
    return hits.astype(np.float64), gains


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
