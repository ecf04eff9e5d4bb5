from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import constants

from incatalog.recommender.base_model import BaseModel


def card(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{text}\n---\n# A model\n")
    return folder


@pytest.mark.parametrize("base", ["tiny", "base", "./base"])
def test_a_model_from_scratch_has_none(tmp_path: Path, base: str) -> None:
    found = BaseModel.of(tmp_path, base)
    assert (found.repository, found.licence) == ("", "unknown")
    assert found.told.startswith("none; ")


def test_the_packaged_model_is_known(tmp_path: Path) -> None:
    found = BaseModel.of(tmp_path, "smollm2")
    assert found.repository == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found.licence == "apache-2.0"


def test_a_folder_says_its_licence_itself(tmp_path: Path) -> None:
    other = card(tmp_path / "other", "license: mit\nbase_model: org/first")
    (tmp_path / "own").mkdir()
    for base in ("../other", str(other)):
        found = BaseModel.of(tmp_path / "own", base)
        assert found == BaseModel("`other`, made from `org/first`", "org/first", "mit")
    assert BaseModel.of(tmp_path, "../nowhere").licence == "unknown"


@pytest.mark.parametrize("text", ["license: [mit, gpl]", "{", "- 1", "license: 3"])
def test_a_card_that_says_nothing_of_use_is_unknown(tmp_path: Path, text: str) -> None:
    folder = card(tmp_path / "other", text)
    assert BaseModel.of(tmp_path, str(folder)).licence == "unknown"


def test_a_model_of_the_hub_is_looked_up_in_the_cache_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    found = BaseModel.of(tmp_path, "org/name")
    assert (found.repository, found.licence) == ("org/name", "unknown")
    commit = "0" * 40
    snapshot = card(tmp_path / "models--org--name" / "snapshots" / commit, "license: mit")
    refs = tmp_path / "models--org--name" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    assert BaseModel.of(tmp_path, "org/name").licence == "mit"
    assert BaseModel.of(tmp_path, str(snapshot)) == BaseModel("`org/name`", "org/name", "mit")
