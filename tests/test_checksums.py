from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from damage import cut, edit_json, flip_bit
from incatalog.artifacts import open_run, read_json, write_json
from incatalog.checksums import CHECKSUMS, FILES, file_checksums, sealed, verify_checksums
from incatalog.errors import ArtifactError
from incatalog.training.settings import MergeSettings

# printf abc | sha256sum
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(params=["manifest.json", CHECKSUMS])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two files and their record, under either name."""
    (tmp_path / "a.txt").write_bytes(b"abc")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "weights.bin").write_bytes(bytes(range(256)) * 9)
    write_json(tmp_path / request.param, sealed({"stage": "x", FILES: file_checksums(tmp_path)}))
    return tmp_path


def record_of(folder: Path) -> Path:
    return next(path for path in folder.iterdir() if path.suffix == ".json")


def test_checksums_are_sha256_of_all_that_is_kept(folder: Path) -> None:
    for kept_out in (
        "tensorboard/events",
        "checkpoints/checkpoint-1/model",
        ".lock",
        ".a/b",
        "batches-0.jsonl",
    ):
        (folder / kept_out).parent.mkdir(parents=True, exist_ok=True)
        (folder / kept_out).write_text("changes")
    digest = hashlib.sha256(bytes(range(256)) * 9).hexdigest()
    assert file_checksums(folder) == {"a.txt": ABC, "base/weights.bin": digest}
    verify_checksums(folder)


def test_every_bit_counts(folder: Path) -> None:
    path = folder / "base" / "weights.bin"
    whole = path.read_bytes()
    for byte in (0, 1000, len(whole) - 1):
        flip_bit(path, byte)
        with pytest.raises(ArtifactError, match=r"weights\.bin: is not as it was written"):
            verify_checksums(folder)
        path.write_bytes(whole)
    verify_checksums(folder)


def test_lost_bytes_and_files_are_named(folder: Path) -> None:
    cut(folder / "a.txt", 1)
    with pytest.raises(ArtifactError, match=r"a\.txt: is not as it was written"):
        verify_checksums(folder)
    (folder / "a.txt").unlink()
    with pytest.raises(ArtifactError, match=r"a\.txt: is gone, and was there when") as caught:
        verify_checksums(folder)
    assert "\n" not in str(caught.value)
    # Only what is needed is asked for.
    verify_checksums(folder, ("base/weights.bin", "never recorded"))


def test_a_change_can_be_accepted_as_the_error_says(folder: Path) -> None:
    (folder / "a.txt").write_text("mine")
    record = record_of(folder)
    message = (
        f'if the change was meant, take "a.txt" out of "files", and "checksum", in {record.name}'
    )
    with pytest.raises(ArtifactError, match=message):
        verify_checksums(folder)
    edit_json(record, lambda found: found["files"].pop("a.txt"))
    with pytest.raises(ArtifactError, match=f"{record.name}: is not as it was written"):
        verify_checksums(folder)
    edit_json(record, lambda found: found.pop("checksum"))
    verify_checksums(folder)


def test_folders_without_checksums_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("x")
    verify_checksums(tmp_path)
    write_json(tmp_path / "manifest.json", {"stage": "train sft", "status": "finished"})
    verify_checksums(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"files": 3}', '{"files": {"a": 3}}', "\udc80", "[" * 100_000]
)
def test_a_damaged_record_is_named(folder: Path, text: str) -> None:
    record = record_of(folder)
    record.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ArtifactError, match=f"{record.name}: not a readable record"):
        verify_checksums(folder)


def test_a_run_records_its_files_with_its_end(tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = MergeSettings(run=tmp_path, out=out)
    run = open_run(out, "train merge", config)
    (out / "a.txt").write_bytes(b"abc")
    assert FILES not in read_json(out / "manifest.json")
    run.finish(steps=1)
    found = json.loads((out / "manifest.json").read_text())
    assert found[FILES] == {"a.txt": ABC}
    assert (found["status"], found["results"]) == ("finished", {"steps": 1})
    assert open_run(out, "train merge", config).finished


def test_a_changed_manifest_is_named(tmp_path: Path) -> None:
    config = MergeSettings(run=tmp_path / "in", out=tmp_path / "run")
    run = open_run(config.out, "train merge", config)
    run.finish(ndcg=0.25)
    assert open_run(config.out, "train merge", config).finished
    manifest = config.out / "manifest.json"
    manifest.write_text(manifest.read_text().replace("0.25", "0.35"))
    with pytest.raises(ArtifactError, match=r"manifest\.json: is not as it was written"):
        open_run(config.out, "train merge", config)
