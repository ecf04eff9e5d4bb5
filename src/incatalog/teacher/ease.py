"""EASE (arXiv 1905.03375): each item is told from the others by ridge regression, in closed form.

With G the Gram matrix of the training rows, P = (G + regularisation)^-1 and B[i, j] = -P[i, j] /
P[j, j] off the diagonal, 0 on it, the scores of a history are the sum of recency^age B[i, :] over
its newest items i. A training row is the set of a whole history (`window` 0), or each stretch of
`window` places of it, which makes the order count: two items `gap` places apart stand together in
the share 1 - gap / window of the stretches that hold one of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float32, Float64
from scipy import linalg, sparse

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.recent import RecentlyUsed
from incatalog.teacher.counted import (
    Block,
    CountedTeacher,
    Counts,
    Lists,
    newest_weights,
    training_counts,
)
from incatalog.teacher.row_lists import Rows, ragged

# Numbers that are kept of users whose own history was left out: 256 MB.
_KEPT = 2**25


@dataclass(frozen=True)
class EaseOptions:
    """How the Gram matrix is made, and how a history is scored."""

    window: int = 0
    regularisation: float = 100.0
    newest: int = 10
    recency: float = 0.8


class Ease(CountedTeacher):
    """EASE, asked by the inverse P.

    An item without training is unrelated to all others and scores 0.
    """

    kind: ClassVar[str] = "ease"

    def __init__(
        self,
        catalog: Catalog,
        counts: Counts,
        inverse: Float32[np.ndarray, "items items"],
        options: EaseOptions,
        temperature: float = 1.0,
    ) -> None:
        """Takes trainings of each item, and P."""
        super().__init__(catalog, counts, temperature)
        self._inverse, self._options = inverse, options
        self._diagonal: Counts = np.diagonal(inverse).astype(np.float64)
        self._kept: RecentlyUsed[bytes, _Without] = RecentlyUsed(_KEPT, _numbers)

    @classmethod
    def from_histories(
        cls,
        histories: Iterable[np.ndarray],
        catalog: Catalog,
        options: EaseOptions | None = None,
        *,
        max_items: int = 20_000,
    ) -> Ease:
        """Fits on histories; pass only the training part of each.

        Raises:
            TeacherError: The catalog is too large for a dense matrix of all pairs of items.
        """
        options, lists = options or EaseOptions(), list(histories)
        check_items(len(catalog), max_items)
        gram = gram_matrix(lists, len(catalog), options.window)
        counts = training_counts(lists, len(catalog))
        return cls(catalog, counts, inverse_gram(gram, options.regularisation), options)

    @property
    def similarity(self) -> Float32[np.ndarray, "items items"]:
        """B: how much each item speaks for each other one."""
        found: np.ndarray = -self._inverse / self._diagonal.astype(np.float32)
        np.fill_diagonal(found, 0.0)
        return found

    @property
    def window(self) -> int:
        """Newest items of a history that are scored."""
        return self._options.newest

    def tensors(self) -> dict[str, np.ndarray]:
        """Counts and P."""
        return {"counts": self.counts, "inverse": self._inverse}

    def options(self) -> dict[str, Any]:
        """How the Gram matrix was made, and how a history is scored."""
        return asdict(self._options)

    @classmethod
    def restored(
        cls,
        catalog: Catalog,
        tensors: dict[str, np.ndarray],
        options: dict[str, Any],
        temperature: float,
    ) -> Self:
        """The teacher of what a run folder holds."""
        counts, inverse = tensors["counts"], tensors["inverse"]
        return cls(catalog, counts, inverse, EaseOptions(**options), temperature)

    def _after(self, histories: Lists, left_out: Lists | None) -> Block:
        scores: Block = np.zeros((len(histories), self.num_items))
        spoken = []
        for line, rows in zip(scores, histories, strict=True):
            _, items, weights = newest_weights([rows], self._options.newest, self._options.recency)
            used, at = np.unique(items, return_inverse=True)
            spoken.append((used, np.bincount(at, weights=weights)))
            line[:] = spoken[-1][1] @ self._inverse[used].astype(np.float64)
        if left_out is None:
            scores /= -self._diagonal
        else:
            self._leave_out(scores, left_out)
        # B is 0 on its diagonal, -P / P is -1.
        for line, (used, asked) in zip(scores, spoken, strict=True):
            line[used] += asked
        return scores

    def _leave_out(self, scores: Block, left_out: Lists) -> None:
        """Divides by the diagonal, with P as it is without some histories, in place."""
        # Questions of one user together, as all of them need the same rows of P.
        lines: dict[bytes, list[int]] = {}
        for index, own in enumerate(left_out):
            lines.setdefault(np.asarray(own, dtype=np.int64).tobytes(), []).append(index)
        for key, some in lines.items():
            if not key:
                scores[some] /= -self._diagonal
                continue
            less = self._kept.get(key, partial(self._without, key))
            change = (scores[some][:, less.items] @ less.change).astype(np.float32)
            scores[some] = (scores[some] + change @ self._inverse[less.items]) / -less.diagonal

    def _without(self, own: bytes) -> _Without:
        """What P is without a training history."""
        items, block = _gram_block(np.frombuffer(own, dtype=np.int64), self._options.window)
        columns = self._inverse[items].astype(np.float64)  # U' P
        change = linalg.solve(np.eye(len(items)) - block @ columns[:, items], block)
        diagonal = self._diagonal + np.einsum("ij,ij->j", columns, change @ columns)
        return _Without(items, change, diagonal)


@dataclass(frozen=True)
class _Without:
    """P as if a history had not been among the training.

    With U the items of the history and C its Gram matrix, (G - U C U')^-1 is
    P + P U (1 - C U' P U)^-1 C U' P (Sherman, Morrison and Woodbury).

    Attributes:
        items: U, as rows of the catalog.
        change: (1 - C U' P U)^-1 C.
        diagonal: That of the inverse.
    """

    items: Rows
    change: Float64[np.ndarray, "items items"]
    diagonal: Counts


def _numbers(one: _Without) -> int:
    """How many numbers are kept."""
    return int(one.items.size + one.change.size + one.diagonal.size)


def check_items(num_items: int, max_items: int) -> None:
    """Refuses a catalog too large for a dense matrix."""
    if num_items > max_items:
        gigabytes = num_items**2 * 8 / 1e9
        raise TeacherError(
            f"ease: the catalog has {num_items} items, and a dense matrix of their pairs takes "
            f"{gigabytes:.1f} GB; expected at most {max_items} items; use --kind knn, which is "
            "sparse, or raise --max-items"
        )


def gram_matrix(histories: Iterable[np.ndarray], num_items: int, window: int) -> sparse.csr_array:
    """Co-occurrences of items in the training rows."""
    lists = list(histories)
    if window == 0:
        lists = [np.unique(rows) for rows in lists]
    rows = ragged("history", lists, len(lists), num_items)
    owners = np.repeat(np.arange(len(lists)), np.diff(rows.offsets))
    if window == 0:
        ones = np.ones(len(owners))
        members = sparse.csr_array((ones, (owners, rows.flat)), shape=(len(lists), num_items))
        return sparse.csr_array(members.T @ members)
    gram = sparse.csr_array(
        (np.ones(len(rows.flat)), (rows.flat, rows.flat)), shape=(num_items, num_items)
    )
    for gap in range(1, window):
        same = owners[gap:] == owners[:-gap]
        pairs = (rows.flat[:-gap][same], rows.flat[gap:][same])
        weights = np.full(len(pairs[0]), 1 - gap / window)
        forward = sparse.csr_array((weights, pairs), shape=gram.shape)
        gram = gram + forward + forward.T
    return sparse.csr_array(gram)


def inverse_gram(
    gram: sparse.csr_array, regularisation: float
) -> Float32[np.ndarray, "items items"]:
    """P, by Cholesky's factors in place: one dense matrix of float64, and the result."""
    dense = gram.toarray(order="F")
    dense[np.diag_indices_from(dense)] += regularisation
    factor, failed = linalg.lapack.dpotrf(dense, lower=1, overwrite_a=1)
    if failed:
        raise TeacherError(
            f"--regularisation {regularisation}: the Gram matrix cannot be inverted; raise it"
        )
    inverse, _ = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
    half: np.ndarray = inverse.astype(np.float32)
    for row in range(len(half)):  # The upper half is not computed.
        half[row, row + 1 :] = half[row + 1 :, row]
    return np.ascontiguousarray(half)


def _gram_block(own: Rows, window: int) -> tuple[Rows, Float64[np.ndarray, "items items"]]:
    """The items of one history, and its part of the Gram matrix among them."""
    items, at = np.unique(own, return_inverse=True)
    if window == 0:
        return items, np.ones((len(items), len(items)))
    gaps = np.abs(np.arange(len(own))[:, None] - np.arange(len(own))[None])
    block = np.zeros((len(items), len(items)))
    np.add.at(block, (at[:, None], at[None]), np.maximum(1 - gaps / window, 0.0))
    return items, block
