from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from incatalog.data import vectors
from incatalog.data.vectors import load_vectors, save_vectors, vectors_name
from incatalog.errors import VectorError


def test_name_of_the_file() -> None:
    assert vectors_name("movies", "llama", "td") == "movies.emb-llama-td.npy"
    assert vectors_name("toys", "org/All MiniLM_L6/", "t") == "toys.emb-all-minilm-l6-t.npy"
    assert vectors_name("toys", "runs/../Qwen2.5-1.5B", "t") == "toys.emb-qwen2.5-1.5b-t.npy"


def test_round_trip_is_a_read_only_memory_map(tmp_path: Path) -> None:
    made = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    save_vectors(tmp_path / "new" / "x.npy", made)
    found = load_vectors(tmp_path / "new" / "x.npy", 7)
    assert isinstance(found, np.memmap)
    assert np.array_equal(found, made)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.npy"]


def test_other_precisions_become_float32(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0.5, 1.5]], dtype=np.float64))
    found = load_vectors(tmp_path / "x.npy")
    assert found.dtype == np.float32
    assert found.tolist() == [[0.5, 1.5]]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (np.zeros(3, dtype=np.float32), r"float32 of shape \(3,\); expected real numbers \[items"),
        (np.zeros((2, 2), dtype=np.int64), "int64 of shape"),
        (np.zeros((2, 0), dtype=np.float32), r"is empty, of shape \(2, 0\)"),
        (np.zeros((3, 2), dtype=np.float32), "holds 3 rows; expected one for each of the 2 items"),
        (np.array([[1, 2], [np.nan, 1]]), r"row 1 holds NaN or infinity \(1 of 2 rows do\)"),
        (np.array([[-np.inf, 2], [np.nan, 1]]), r"row 0 holds NaN or infinity \(2 of 2"),
        (np.array([[1, 2], [3, 1e39]]), r"row 1 holds too large a number, 1e\+39 \(1 of 2 rows do"),
        (np.array([[-1e30, 2], [1, 1]], np.float32), r"row 0 holds too large a number, -1e\+30"),
        (np.array([[1, 2], [2e12, 1]]), r"2e\+12 .*expected numbers from -1e\+12 to 1e\+12"),
        (np.array([[1, np.longdouble("1e400")], [0, 0]]), "row 0 holds too large a number"),
        (np.array([[1e39, np.nan], [0, 0]]), "row 0 holds NaN or infinity"),
        (np.array([{}, 1], dtype=object), "not a readable npy file of numbers"),
    ],
)
def test_what_cannot_be_vectors_is_refused(tmp_path: Path, array: np.ndarray, said: str) -> None:
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(VectorError, match=said) as error:
        load_vectors(tmp_path / "x.npy", 2)
    assert "x.npy" in str(error.value)


def test_missing_and_cut_files(tmp_path: Path) -> None:
    with pytest.raises(VectorError, match="incatalog items embed"):
        load_vectors(tmp_path / "none.npy")
    save_vectors(tmp_path / "x.npy", np.ones((50, 8), dtype=np.float32))
    whole = (tmp_path / "x.npy").read_bytes()
    for size in (0, 30, 200, len(whole) - 1):
        (tmp_path / "x.npy").write_bytes(whole[:size])
        with pytest.raises(VectorError, match="not a readable npy file"):
            load_vectors(tmp_path / "x.npy")


def test_bad_rows_are_found_in_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vectors, "_ROWS_AT_ONCE", 4)
    made = np.ones((11, 2), dtype=np.float32)
    made[10, 1] = np.nan
    save_vectors(tmp_path / "x.npy", made)
    with pytest.raises(VectorError, match=r"row 10 holds NaN or infinity \(1 of 11"):
        load_vectors(tmp_path / "x.npy")


@pytest.mark.filterwarnings("error::RuntimeWarning", "error::UserWarning")
def test_the_largest_numbers_pass(tmp_path: Path) -> None:
    for kind in (np.float16, np.float32, np.float64):
        made = np.array([[60_000, -60_000], [0, 1]], dtype=kind)
        np.save(tmp_path / "x.npy", made)
        assert load_vectors(tmp_path / "x.npy").tolist() == made.tolist()
    np.save(tmp_path / "x.npy", np.array([[1e12, -1e12]]))
    assert np.isfinite(load_vectors(tmp_path / "x.npy")).all()
