"""`incatalog rewrite data`: the data set on which titles are learned to be rewritten."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from incatalog.artifacts import atomic_path, open_run
from incatalog.data.catalog import Catalog
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
    files = prepared_files(settings.data)
    catalog = Catalog.load(settings.data)
    if len(catalog) <= _NEIGHBOURS:
        raise ConfigError(
            f"--data {settings.data}: {len(catalog)} items; expected more than {_NEIGHBOURS}, as "
            "every item is compared with its neighbours"
        )
    vectors = load_vectors(settings.vectors, len(catalog))
    split = leave_one_out(Histories.load(settings.data, catalog))
    inputs = {**files, "vectors": settings.vectors}
    run = open_run(settings.out, "rewrite data", settings, inputs=inputs)
    if run.finished:
        return run.folder
    rows = [*_singles(settings, catalog, split, vectors), *_groups(settings, catalog, split)]
    order = np.random.default_rng((settings.seed, _ORDER)).permutation(len(rows))
    with atomic_path(run.folder / ROWS_FILE) as partial, partial.open("w") as stream:
        for place in order.tolist():
            stream.write(json.dumps(record(rows[place]), ensure_ascii=False) + "\n")
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
    neighbours = nearest(vectors, _NEIGHBOURS)
    before = _histories_before(settings, catalog, split)
    for row, item in enumerate(catalog.items):
        yield SingleRow(
            item.title,
            item.description,
            item.categories[0] if item.categories else "",
            tuple(catalog.titles[other] for other in neighbours[row, :_DISTRACTORS].tolist()),
            tuple(neighbours[row].tolist()),
            _prompt([catalog.titles[other] for other in before[row]]),
            catalog.name,
        )


def _groups(settings: RewriteDataSettings, catalog: Catalog, split: LeaveOneOut) -> Iterator[Row]:
    """Histories of users drawn at random, each with the training item that came next."""
    random = np.random.default_rng((settings.seed, _HISTORIES, 1))
    users = random.permutation(len(split))[: settings.groups]
    for user in users.tolist():
        train = split.train(user)
        if len(train) < 2:
            continue
        place = int(random.integers(1, len(train)))
        history = train[max(0, place - settings.max_history) : place]
        titles = tuple(catalog.titles[row] for row in history.tolist())
        yield GroupRow(titles, int(train[place]), catalog.name)


def _histories_before(
    settings: RewriteDataSettings, catalog: Catalog, split: LeaveOneOut
) -> list[list[int]]:
    """For each item what one user, drawn at random, had before it; nothing if no one had it."""
    random = np.random.default_rng((settings.seed, _HISTORIES, 0))
    found: list[list[int]] = [[] for _ in range(len(catalog))]
    times = np.zeros(len(catalog), dtype=np.int64)
    for user in range(len(split)):
        train = split.train(user).tolist()
        for place in range(1, len(train)):
            row = train[place]
            times[row] += 1
            # Reservoir sampling: each occurrence of an item is kept with the same chance.
            if random.random() * times[row] < 1:
                found[row] = train[max(0, place - settings.max_history) : place]
    return found


def _prompt(history: list[str]) -> str:
    """The recommendation prompt of one item, as plain text."""
    shown = _HISTORY_SEPARATOR.join(f'"{title}"' for title in history)
    instruction = wording_named(_WORDING).instruction
    return instruction.format(history=shown, item_count=1).strip() + "\n"
