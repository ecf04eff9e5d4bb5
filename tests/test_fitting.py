from __future__ import annotations

from pathlib import Path

import pytest
import torch

from incatalog.errors import ArtifactError
from incatalog.fitting import load_snapshot, save_snapshot


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint.safetensors"
    tensors = {
        "weight": torch.arange(12.0).reshape(3, 4),
        "step": torch.tensor(3.0),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "counts": torch.tensor([1, 2, 3]),
        "none": torch.empty(0, 4),
    }
    save_snapshot(path, tensors, {"epoch": 3, "history": [{"loss": 0.1}]})
    return path


def test_tensors_and_progress_come_back(snapshot: Path) -> None:
    tensors, progress = load_snapshot(snapshot)
    assert progress == {"epoch": 3, "history": [{"loss": 0.1}]}
    assert torch.equal(tensors["weight"], torch.arange(12.0).reshape(3, 4))
    assert tensors["step"].shape == ()
    assert tensors["half"].dtype == torch.bfloat16
    assert tensors["none"].shape == (0, 4)


def test_every_flipped_bit_is_noticed(snapshot: Path) -> None:
    before = load_snapshot(snapshot)
    whole = snapshot.read_bytes()
    unnoticed = 0
    messages: list[str] = []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        snapshot.write_bytes(bytes(damaged))
        try:
            tensors, progress = load_snapshot(snapshot)
        except ArtifactError as error:
            messages.append(str(error))
            continue
        # A blank of the header that is another blank now.
        unnoticed += 1
        assert progress == before[1]
        assert all(torch.equal(tensors[name], before[0][name]) for name in before[0])
    assert unnoticed < 10
    assert all("damaged checkpoint" in text and "\n" not in text for text in messages)


@pytest.mark.parametrize("kept", [0, 1, 8, 9, 100, -1, -8])
def test_a_truncation_is_noticed(snapshot: Path, kept: int) -> None:
    snapshot.write_bytes(snapshot.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match=r"checkpoint\.safetensors: damaged checkpoint"):
        load_snapshot(snapshot)


@pytest.mark.parametrize("content", [b"garbage", b"", b"{}" * 50, bytes(1000)])
def test_garbage_is_noticed(snapshot: Path, content: bytes) -> None:
    snapshot.write_bytes(content)
    with pytest.raises(ArtifactError, match="damaged checkpoint"):
        load_snapshot(snapshot)
