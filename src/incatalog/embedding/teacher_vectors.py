"""What fitted teachers know of items, as vectors: who took an item takes its neighbours too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import sparse
from sklearn.utils.extmath import randomized_svd

from incatalog.artifacts import fingerprint
from incatalog.data.catalog import Catalog
from incatalog.data.interactions import LeaveOneOut
from incatalog.data.vector_blocks import TeacherBlock, center_and_scale, standardised
from incatalog.errors import TeacherError, VectorError
from incatalog.teacher.teacher import load_teacher

Similarity = sparse.csr_matrix | Float32[np.ndarray, "items items"]


@dataclass(frozen=True, eq=False)
class Taught:
    """A block of the vectors of all items, zeros where the teacher does not know the item."""

    block: TeacherBlock
    vectors: Float32[np.ndarray, "items width"]


def taught_vectors(
    runs: Sequence[str], catalog: Catalog, split: LeaveOneOut, *, svd_dim: int, seed: int
) -> list[Taught]:
    """A block from each of some runs, or from each part of a blend.

    Each has mean 0 over the items that its teacher knows, and mean length 1. A teacher knows no
    item without an interaction to train on.

    Raises:
        TeacherError: A run cannot be read, is of another catalog, or knows nothing of items.
        VectorError: A teacher knows no item, or all alike.
    """
    trained = trained_items(split, len(catalog))
    return [
        taught
        for run in runs
        for taught in _of_run(run, catalog, trained, svd_dim=svd_dim, seed=seed)
    ]


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
    vectors = (np.sqrt(values)[:, None] * offers).T.astype(np.float32)
    led_to = np.asarray(abs(similarity).sum(axis=0)).reshape(-1) > 0
    return vectors, led_to


def _of_run(
    run: str, catalog: Catalog, trained: Bool[np.ndarray, " items"], *, svd_dim: int, seed: int
) -> Iterator[Taught]:
    try:
        teacher = load_teacher(run, catalog, "cpu")
    except TeacherError as error:
        raise TeacherError(f"--teacher: {error}") from error
    mark = fingerprint([run])
    vectors = teacher.item_embeddings
    yield _block(run, "sasrec", mark, vectors, trained)


def _block(
    run: str,
    kind: str,
    mark: str,
    vectors: Float32[np.ndarray, "items width"],
    known: Bool[np.ndarray, " items"],
) -> Taught:
    """Vectors, centred and scaled by the items that the teacher knows."""
    if not known.any():
        raise VectorError(f"--teacher {run}: knows none of the items; fit it on more interactions")
    center, scale = center_and_scale(vectors, known)
    if not 0 < scale < np.inf:
        found = "are all alike" if scale == 0 else "are not finite"
        raise VectorError(f"--teacher {run}: the vectors of its {kind} {found}; fit it again")
    moved = standardised(vectors, center, scale)
    moved[~known] = 0.0
    return Taught(TeacherBlock(run, kind, mark, vectors.shape[1]), moved)
