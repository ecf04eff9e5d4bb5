"""What fitted teachers know of items, as vectors: who took an item takes its neighbours too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float32
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from incatalog.data.catalog import Catalog
from incatalog.data.interactions import LeaveOneOut
from incatalog.data.vector_blocks import TeacherBlock, center_and_scale, standardised
from incatalog.data.vectors import LARGEST, unusable_rows
from incatalog.errors import TeacherError, VectorError
from incatalog.teacher.blend import BlendTeacher
from incatalog.teacher.ease import Ease
from incatalog.teacher.knn import ItemKnn
from incatalog.teacher.selection import ScoringTeacher
from incatalog.teacher.teacher import InProcessTeacher, load_teacher
from incatalog.teacher.teacher_folder import PARTS, numbers_checksum
from incatalog.teacher.words import WordsTeacher

Similarity: TypeAlias = sparse.csr_array | Float32[np.ndarray, "items items"]


@dataclass(frozen=True, eq=False)
class Taught:
    """A block of the vectors of all items, zeros where the teacher does not know the item."""

    block: TeacherBlock
    vectors: Float32[np.ndarray, "items width"]


def taught_vectors(
    runs: Sequence[str], catalog: Catalog, split: LeaveOneOut, *, svd_dim: int, seed: int
) -> list[Taught]:
    """A block from each of some runs, or from each part of a blend that has vectors.

    Each has mean 0 over the items that its teacher knows, and mean length 1. Only words know items
    without an interaction to train on.

    Raises:
        TeacherError: A run cannot be read, is of another catalog, or knows nothing of items.
        VectorError: A teacher knows no item, or all alike.
    """
    trained, found = trained_items(split, len(catalog)), []
    for run in runs:
        try:
            teacher = load_teacher(run, catalog, "cpu")
        except TeacherError as error:
            raise TeacherError(f"--teacher: {error}") from error
        known_by = list(_known_by(teacher, Path(run), svd_dim, seed))
        if not known_by:
            raise TeacherError(
                f"--teacher {run}: a {teacher.kind} without item vectors; expected a sasrec, knn, "
                "ease or words, or a blend with one of them"
            )
        found += [
            # Words say as much of an item that nobody took yet.
            _block(folder, kind, vectors, known if kind == WordsTeacher.kind else known & trained)
            for folder, kind, vectors, known in known_by
        ]
    return found


def trained_items(split: LeaveOneOut, num_items: int) -> Bool[np.ndarray, " items"]:
    """Which items have interactions to train on."""
    trained = np.zeros(num_items, dtype=np.bool_)
    for user in range(len(split)):
        trained[split.train(user)] = True
    return trained


def reduced(
    similarity: Similarity, dim: int, seed: int
) -> tuple[Float32[np.ndarray, "items dim"], Bool[np.ndarray, " items"]]:
    """Vectors of items as what is recommended, and which of them anything leads to.

    Where ``similarity[i, j]`` is what `i` in a history adds to the score of `j`, a truncated SVD
    writes it as a product of what a history asks for and what an item offers; the singular values
    are shared between both. Items with like columns, taken after the same items, lie side by side.
    """
    _, values, offers = randomized_svd(similarity, min(dim, similarity.shape[1]), random_state=seed)
    with np.errstate(over="ignore"):  # What becomes infinite is refused by name.
        vectors = (np.sqrt(values)[:, None] * offers).T.astype(np.float32)
    led_to = np.asarray(abs(similarity).sum(axis=0)).reshape(-1) > 0
    return vectors, led_to


def reduced_words(
    described: sparse.csr_array | Float32[np.ndarray, "items words"], dim: int, seed: int
) -> Float32[np.ndarray, "items dim"]:
    """Vectors of items whose products are about those of their words (latent semantic analysis)."""
    width = min(dim, *described.shape)
    items, values, _ = randomized_svd(described, width, random_state=seed)
    vectors: np.ndarray = (items * values).astype(np.float32)
    return vectors


def _known_by(
    teacher: ScoringTeacher, folder: Path, svd_dim: int, seed: int
) -> Iterator[tuple[Path, str, Float32[np.ndarray, "items width"], Bool[np.ndarray, " items"]]]:
    """Vectors of each teacher of a folder, and which items it may know."""
    match teacher:
        case BlendTeacher():
            for part in teacher.parts:
                yield from _known_by(part.teacher, folder / PARTS / part.name, svd_dim, seed)
        case InProcessTeacher():
            vectors = teacher.item_embeddings
            yield folder, teacher.kind, vectors, np.ones(len(vectors), dtype=np.bool_)
        case ItemKnn() | Ease():
            yield folder, teacher.kind, *reduced(teacher.similarity, svd_dim, seed)
        case WordsTeacher():
            vectors = reduced_words(teacher.described, svd_dim, seed)
            yield folder, teacher.kind, vectors, (vectors != 0).any(axis=1)


def _block(
    folder: Path,
    kind: str,
    vectors: Float32[np.ndarray, "items width"],
    known: Bool[np.ndarray, " items"],
) -> Taught:
    """Vectors, centred and scaled by the items that the teacher knows."""
    run = str(folder)
    if not known.any():
        raise VectorError(f"--teacher {run}: knows none of the items; fit it on more interactions")
    said = f"--teacher {run}: the vectors of its {kind}"
    if len(unusable_rows(vectors)):
        raise VectorError(f"{said} hold NaN, infinity or numbers beyond {LARGEST:g}; fit it again")
    center, scale = center_and_scale(vectors, known)
    if not scale > 0:
        raise VectorError(f"{said} are all alike; fit it again")
    moved = standardised(vectors, center, scale)
    moved[~known] = 0.0
    mark = numbers_checksum(folder)
    return Taught(TeacherBlock(run, kind, mark, vectors.shape[1]), moved)
