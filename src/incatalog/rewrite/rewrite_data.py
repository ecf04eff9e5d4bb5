"""`incatalog rewrite data`: the data set on which titles are learned to be rewritten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from incatalog.artifacts import open_run
from incatalog.data.catalog import Catalog
from incatalog.data.documents import write_lines
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.data.vectors import load_vectors, unit_rows
from incatalog.dialogue.templates import wording_named
from incatalog.errors import ConfigError
from incatalog.rewrite.rewrite_rewards import GroupRow, Row, SingleRow
from incatalog.rewrite.rows import record
from incatalog.rewrite.settings import RewriteDataSettings

ROWS_FILE = "rewrite.jsonl"

_DISTRACTORS, _NEIGHBOURS = 3, 10
_WORDING = "test-single-turn"
_HISTORY_SEPARATOR = " → "
# Rows of the similarity matrix that are in memory together.
_BLOCK = 1024
_HISTORIES, _ORDER = range(2)


def make_rewrite_data(settings: RewriteDataSettings) -> Path:
    """Writes a row for every item, and rows for users' histories, in shuffled order.

    Only training interactions are used.

    Returns:
        The run folder with :data:`ROWS_FILE`.

    Raises:
        ConfigError: A number that cannot work, or a catalog with too few items.
        DataError: The data is missing or broken.
        VectorError: The vectors are missing, damaged, or those of another catalog.
        ArtifactError: ``out`` holds something else.
    """
    inputs = {**prepared_files(settings.data), "vectors": settings.vectors}
    catalog = Catalog.load(settings.data, title_field=settings.title_field)
    if len(catalog) <= _NEIGHBOURS:
        raise ConfigError(
            f"--data {settings.data}: {len(catalog)} items; expected more than {_NEIGHBOURS}, as "
            "every item is compared with its neighbours"
        )
    vectors = load_vectors(settings.vectors, len(catalog))
    split = leave_one_out(Histories.load(settings.data, catalog))
    run = open_run(settings.out, "rewrite data", settings, inputs=inputs)
    if run.finished:
        return run.folder
    rows = [*_singles(settings, catalog, split, vectors), *_groups(settings, catalog, split)]
    order = np.random.default_rng((settings.seed, _ORDER)).permutation(len(rows))
    write_lines(run.folder / ROWS_FILE, (record(rows[place]) for place in order.tolist()))
    groups = sum(isinstance(row, GroupRow) for row in rows)
    run.finish(singles=len(rows) - groups, groups=groups)
    return run.folder


def nearest(vectors: Float[np.ndarray, "items dim"], count: int) -> Int64[np.ndarray, "items n"]:
    """The nearest other rows of each row by cosine, nearest first; of equal ones the lower row."""
    unit = unit_rows(np.asarray(vectors, dtype=np.float32))
    found = np.empty((len(unit), count), dtype=np.int64)
    for start in range(0, len(unit), _BLOCK):
        similar = unit[start : start + _BLOCK] @ unit.T
        own = np.arange(len(similar))
        similar[own, start + own] = -np.inf
        found[start : start + _BLOCK] = (-similar).argsort(axis=1, kind="stable")[:, :count]
    return found


def _singles(
    settings: RewriteDataSettings,
    catalog: Catalog,
    split: LeaveOneOut,
    vectors: Float[np.ndarray, "items dim"],
) -> Iterator[Row]:
    titles, instruction = catalog.names, wording_named(_WORDING).instruction
    near = nearest(vectors, _NEIGHBOURS).tolist()
    before = _histories_before(settings, catalog, split)
    for item, neighbours, history in zip(catalog.items, near, before, strict=True):
        shown = _HISTORY_SEPARATOR.join(f'"{titles[row]}"' for row in history)
        yield SingleRow(
            item.called,
            item.description,
            item.categories[0] if item.categories else "",
            tuple(titles[row] for row in neighbours[:_DISTRACTORS]),
            tuple(neighbours),
            instruction.format(history=shown, item_count=1).strip() + "\n",
            catalog.name,
        )


def _groups(settings: RewriteDataSettings, catalog: Catalog, split: LeaveOneOut) -> Iterator[Row]:
    """Histories of users drawn at random, each with the training item that came next."""
    random = np.random.default_rng((settings.seed, _HISTORIES, 1))
    users = random.permutation(len(split))[: settings.groups]
    for train in (split.train(user).tolist() for user in users.tolist()):
        if len(train) > 1:
            place = int(random.integers(1, len(train)))
            history = train[max(0, place - settings.max_history) : place]
            titles = tuple(catalog.names[row] for row in history)
            yield GroupRow(titles, train[place], catalog.name)


def _histories_before(
    settings: RewriteDataSettings, catalog: Catalog, split: LeaveOneOut
) -> list[list[int]]:
    """For each item what one user, drawn at random, had before it; nothing if no one had it."""
    random = np.random.default_rng((settings.seed, _HISTORIES, 0))
    found: list[list[int]] = [[] for _ in range(len(catalog))]
    times = np.zeros(len(catalog), dtype=np.int64)
    for user in range(len(split)):
        train = split.train(user).tolist()
        for place, row in enumerate(train[1:], start=1):
            times[row] += 1
            # Reservoir sampling: each occurrence of an item is kept with the same chance.
            if random.random() * times[row] < 1:
                found[row] = train[max(0, place - settings.max_history) : place]
    return found
