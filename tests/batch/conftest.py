from __future__ import annotations

from pathlib import Path

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec


@pytest.fixture(scope="session")
def films(titles: tuple[str, ...]) -> Catalog:
    """Fifty films; those of even rows are dramas."""
    return Catalog.from_items(
        [
            Item(f"i{row}", title, categories=("Drama",) if row % 2 == 0 else ("Comedy",))
            for row, title in enumerate(titles)
        ],
        "films",
    )


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, films: Catalog
) -> Path:
    """The folder of a random model over the films."""
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, tiny_backbone, ModelSpec(base="tiny"))
    films.save(folder)
    return folder
