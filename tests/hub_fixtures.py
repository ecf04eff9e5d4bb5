"""A hub of its own for each test, and a trained model to publish there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from hub_server import TOKEN, Hub, serving_hub
from incatalog.artifacts import open_run
from incatalog.data.catalog import Catalog
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from incatalog.recommender.model_card import write_card
from incatalog.training.settings import SftSettings


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub that the real client of this process asks, with an empty cache, logged in."""
    with serving_hub() as found:
        page = "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", found.url + page)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield found


def trained_folder(folder: Path, backbone: Backbone, catalog: Catalog, data: Path) -> Path:
    """A folder as `incatalog train sft` leaves it, of a model that learned nothing."""
    settings = SftSettings(model="tiny", data=data, out=folder, tune="full", epochs=3)
    run = open_run(folder, "train sft", settings)
    catalog.save(folder)
    save_model(folder, backbone, ModelSpec(base="tiny"))
    results = {"steps": 7, "HR@10": 0.25, "NDCG@10": 0.125}
    write_card(folder, results)
    run.finish(**results)
    return folder


@pytest.fixture(scope="session")
def trained_once(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, catalog: Catalog, data: Path
) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "films"
    return trained_folder(folder, tiny_backbone, catalog, data)


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(trained_once, tmp_path / "films"))
