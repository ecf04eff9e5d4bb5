from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damage import edit_json
from incatalog.data import vector_blocks
from incatalog.data.vector_blocks import (
    BLOCKS_FILE,
    TeacherBlock,
    TextBlock,
    VectorBlocks,
    blocks_of,
    center_and_scale,
    standardised,
)
from incatalog.errors import VectorError

TEXT = TextBlock("sentence", "minilm", "tc", 512, center=(1.0, -2.5), scale=0.5)
TEACHER = TeacherBlock("runs/teacher", "sasrec", "ab12", 3)
BLOCKS = VectorBlocks(TEXT, (TEACHER, TeacherBlock("runs/knn", "knn", "cd34", 4)))


def test_center_and_scale_by_hand() -> None:
    vectors = np.array([[1, 0], [9, 9], [4, 4]], dtype=np.float32)
    center, scale = center_and_scale(vectors, np.array([True, False, True]))
    # The middle of (1, 0) and (4, 4), and the half of their distance, 5.
    assert center.tolist() == [2.5, 2.0]
    assert scale == 2.5
    assert standardised(vectors, center, scale)[0].tolist() == pytest.approx([-0.6, -0.8])


@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 99))
def test_standardised_vectors_have_mean_0_and_mean_length_1(
    items: int, width: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(7, 3, (items + 1, width)).astype(np.float32)
    known = random.random(items + 1) < 0.7
    known[:2] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_blocks, "_ROWS_AT_ONCE", 3)
        center, scale = center_and_scale(vectors, known)
    moved = standardised(vectors, center, scale)[known]
    np.testing.assert_allclose(moved.mean(axis=0), 0, atol=1e-4)
    assert np.linalg.norm(moved, axis=1).mean() == pytest.approx(1, abs=1e-4)
    assert moved.dtype == np.float32


def test_a_part_of_text_is_centred_and_scaled() -> None:
    assert TEXT.part(np.array([[2.0, -2.0]], dtype=np.float32)).tolist() == [[2.0, 1.0]]


@pytest.mark.parametrize("blocks", [BLOCKS, VectorBlocks(None, (TEACHER,))])
def test_blocks_come_back(tmp_path: Path, blocks: VectorBlocks) -> None:
    blocks.save(tmp_path)
    assert VectorBlocks.load(tmp_path) == blocks
    assert blocks.width == (9 if blocks.text else 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("text"),
        lambda found: found["text"].pop("scale"),
        lambda found: found["text"].update(scale=0.0),
        lambda found: found["text"].update(center=[1.0, float("nan")]),
        lambda found: found["text"].update(encoder="words"),
        lambda found: found["teachers"][1].update(width=0),
        lambda found: found.update(teachers=3),
    ],
)
def test_a_broken_description_is_named(tmp_path: Path, change: object) -> None:
    BLOCKS.save(tmp_path)
    edit_json(tmp_path / BLOCKS_FILE, change)  # type: ignore[arg-type]
    with pytest.raises(VectorError, match=r"blocks\.json: not a readable description"):
        VectorBlocks.load(tmp_path)


def test_blocks_are_those_of_the_file_that_the_run_wrote(tmp_path: Path) -> None:
    assert blocks_of(tmp_path / "x.npy") is None
    BLOCKS.save(tmp_path)
    manifest = {"stage": "items embed", "results": {"file": "x.npy"}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert blocks_of(tmp_path / "x.npy") == BLOCKS
    assert blocks_of(tmp_path / "other.npy") is None
