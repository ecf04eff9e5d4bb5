from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from incatalog.artifacts import read_json, write_json
from incatalog.checksums import verify_checksums
from incatalog.errors import ArtifactError, BackboneError, ConfigError, IncatalogError
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_spec
from incatalog.model.spec import load_spec
from incatalog.publishing.parcel import Parcel


def refused(folder: Path, kind: type[IncatalogError]) -> str:
    with pytest.raises(kind) as caught:
        Parcel.of(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_the_run_wrote_is_sent_and_all_else_is_named(trained: Path) -> None:
    (trained / "customers.csv").write_text("name\n")
    (trained / ".env").write_text("SECRET=1\n")
    (trained / "LICENSE").write_text("mine\n")
    (trained / "tensorboard").mkdir()
    (trained / "tensorboard" / "events").write_text("log")
    parcel = Parcel.of(trained)
    assert parcel.left == ("customers.csv",)
    recorded = read_json(trained / "manifest.json")["files"].keys()
    assert parcel.files.keys() == {*recorded, "LICENSE", "checksums.json"}
    sizes = parcel.with_card("# é").sizes()
    assert sizes["README.md"] == 4
    assert sizes["model.safetensors"] == (trained / "model.safetensors").stat().st_size


def test_the_record_that_is_sent_holds_for_a_copy(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name, found in Parcel.of(trained).files.items():
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(found if isinstance(found, bytes) else found.read_bytes())
    verify_checksums(copy)
    assert Parcel.of(copy).files.keys() == Parcel.of(trained).files.keys()
    (copy / "config.json").write_text("{}")
    with pytest.raises(ArtifactError, match=r"config\.json: is not as it was written"):
        verify_checksums(copy)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "extra/scaler.pkl"])
def test_pickles_are_refused_by_name(trained: Path, name: str) -> None:
    path = trained / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"\x80\x04.")
    told = refused(trained, ConfigError)
    assert told.startswith(f"{path}: is a pickle, which runs code when it is read; only")


def test_a_file_that_was_changed_is_refused(trained: Path) -> None:
    (trained / "metas.jsonl").write_text("{}")
    assert "metas.jsonl: is not as it was written" in refused(trained, ArtifactError)


def test_weights_that_were_cut_are_refused_without_a_record_too(trained: Path) -> None:
    (trained / "manifest.json").unlink()
    Parcel.of(trained)
    path = trained / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    assert refused(trained, BackboneError).startswith(f"{path}: cannot be read (")


def test_a_run_that_is_not_finished_is_refused(trained: Path) -> None:
    manifest = read_json(trained / "manifest.json")
    del manifest["checksum"], manifest["files"]
    write_json(trained / "manifest.json", manifest | {"status": "running"})
    assert "is not finished; repeat its command first" in refused(trained, ArtifactError)


def test_a_folder_without_a_trained_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert "holds no incatalog.json" in refused(tmp_path, BackboneError)


def test_a_guide_that_was_changed_is_refused(trained: Path) -> None:
    (trained / "guide").mkdir()
    (trained / "guide" / "teacher.json").write_text("{}")
    shares = {"ranking": 0.5, "list": 0.5, "empty": "popularity", "teacher": "guide"}
    write_json(trained / "guide.json", {**shares, "files": {"teacher.json": "0" * 64}})
    assert "teacher.json: is not the file that" in refused(trained, ArtifactError)


def test_an_adapter_needs_a_base_that_others_have(
    trained: Path, tiny_backbone: Backbone, tmp_path: Path
) -> None:
    (trained / "manifest.json").unlink()
    (trained / "adapter_config.json").write_text(json.dumps({"r": 8}))

    def based_on(base: str) -> None:
        save_spec(trained, replace(load_spec(trained), base=base), tiny_backbone.tokenizer)

    (tmp_path / "elsewhere").mkdir()
    for base in ("../elsewhere", str(tmp_path / "elsewhere")):
        based_on(base)
        told = refused(trained, BackboneError)
        assert f"is an adapter of {base}" in told
        assert told.endswith("publish what `incatalog train merge` makes of it")
    (trained / "base").mkdir()
    for base in ("./base", "smollm2", "org/name"):
        based_on(base)
        Parcel.of(trained)
