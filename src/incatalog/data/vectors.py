"""Item vectors as a file: one row an item, in the order of the catalog."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Int64

from incatalog.artifacts import atomic_path
from incatalog.checksums import verify_checksums
from incatalog.errors import VectorError

_ROWS_AT_ONCE = 1 << 14
# Squares of larger numbers, added up over a row and a catalog, may be beyond float32.
LARGEST = 1e12


def vectors_name(dataset: str, model: str, wording: str) -> str:
    """Name of a vector file, ``movies.emb-llama-td.npy``."""
    short = re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-.") or "model"
    return f"{dataset}.emb-{short}-{wording}.npy"


def save_vectors(path: str | Path, vectors: Float32[np.ndarray, "items hidden"]) -> None:
    """Writes vectors as a npy file, atomically."""
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.save(stream, np.ascontiguousarray(vectors, dtype=np.float32), allow_pickle=False)


@contextlib.contextmanager
def writing_vectors(
    path: str | Path, items: int, hidden: int
) -> Iterator[Float32[np.ndarray, "items hidden"]]:
    """Zeros on the disk to write vectors into; they become a npy file when the block succeeds."""
    with atomic_path(path) as partial:
        shape = (items, hidden)
        found = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
        # A memory map gives no error on a full disk: the process would be killed.
        with partial.open("r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, partial.stat().st_size)
        yield found
        found.flush()


def load_vectors(
    path: str | Path, num_items: int | None = None
) -> Float32[np.ndarray, "items hidden"]:
    """Reads and checks vectors; those in float32 stay on the disk, memory-mapped and read-only."""
    path = Path(path)
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        hint = "make item vectors with `incatalog items embed`"
        raise VectorError(f"{path}: no such file; {hint}") from error
    except (OSError, ValueError, EOFError) as error:
        raise VectorError(f"{path}: not a readable npy file of numbers") from error
    if not isinstance(vectors, np.ndarray) or vectors.dtype.kind != "f" or vectors.ndim != 2:
        found = getattr(vectors, "dtype", "an archive"), getattr(vectors, "shape", "arrays")
        holds = f"holds {found[0]} of shape {found[1]}"
        raise VectorError(f"{path}: {holds}; expected real numbers [items, hidden]")
    if not vectors.size:
        raise VectorError(f"{path}: is empty, of shape {vectors.shape}; expected [items, hidden]")
    if num_items is not None and len(vectors) != num_items:
        expected = f"one for each of the {num_items} items of the catalog"
        raise VectorError(f"{path}: holds {len(vectors)} rows; expected {expected}")
    verify_checksums(path.parent, (path.name,))
    check_numbers(vectors, str(path))
    return vectors.astype(np.float32, copy=False)


def check_numbers(vectors: Float[np.ndarray, "items hidden"], name: str) -> None:
    """Makes sure that every number is one to calculate with, in bounded memory."""
    bad = unusable_rows(vectors)
    if len(bad):
        row, what = vectors[bad[0]], "NaN or infinity"
        if np.isfinite(row).all():
            what = f"too large a number, {row[np.abs(row).argmax()]:g}"
        found = f"row {bad[0]} holds {what} ({len(bad)} of {len(vectors)} rows do)"
        raise VectorError(f"{name}: {found}; expected numbers from {-LARGEST:g} to {LARGEST:g}")


def unusable_rows(vectors: Float[np.ndarray, "items hidden"]) -> Int64[np.ndarray, " bad"]:
    """Rows that hold NaN, infinity or a number beyond :data:`LARGEST`."""
    usable = np.empty(len(vectors), dtype=np.bool_)
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        # Beyond float16, LARGEST would be infinity, to which nothing compares.
        usable[part] = (np.abs(vectors[part]) <= np.float64(LARGEST)).all(axis=1)
    return np.flatnonzero(~usable)


def unit_rows(vectors: Float[np.ndarray, "rows dim"]) -> Float[np.ndarray, "rows dim"]:
    """Rows of length 1; one of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: np.ndarray = vectors / np.where(lengths > 0, lengths, 1)
    return unit
