from __future__ import annotations

from pathlib import Path

import pytest

from incatalog import Catalog, Item, Recommender
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, talkative_backbone: Backbone, titles: tuple[str, ...]
) -> Path:
    """A random model that likes to open item spans, with forty films."""
    folder = tmp_path_factory.mktemp("talking") / "films"
    folder.mkdir()
    save_model(folder, talkative_backbone, ModelSpec(base="tiny", list_form="plain"))
    Catalog.from_items(
        Item(
            f"i{row}",
            title,
            categories=(("Drama", "Crime")[row % 2],),
            attributes={"price": row / 2, "in_stock": row % 5 > 0},
        )
        for row, title in enumerate(titles[:40])
    ).save(folder)
    return folder


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another catalog."""
    folder = tmp_path_factory.mktemp("domains") / "books"
    folder.mkdir()
    titles = ("The Harbour Guide", "Night Reading", "Paper Boats for Beginners")
    Catalog.from_items(Item(f"b{row}", title) for row, title in enumerate(titles)).save(folder)
    return folder


@pytest.fixture(scope="session")
def recommender(model: Path) -> Recommender:
    """The same model in this process."""
    return Recommender.from_pretrained(model, device="cpu")
