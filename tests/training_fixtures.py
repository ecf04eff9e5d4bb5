from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from incatalog.codes.semantic_ids import SemanticIds
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_backbone
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network


@pytest.fixture(scope="session")
def catalog(titles: tuple[str, ...]) -> Catalog:
    items = [Item(f"i{row}", title) for row, title in enumerate(titles)]
    return Catalog.from_items(items, "films")


@pytest.fixture(scope="session")
def histories(catalog: Catalog) -> Histories:
    """Forty users of 3 to 20 items; the first has three, the second four."""
    rng = np.random.default_rng(7)
    sizes = [3, 4, *rng.integers(5, 21, size=38).tolist()]
    return Histories.from_lists(
        [f"u{user}" for user in range(len(sizes))],
        [rng.permutation(len(catalog))[:size].tolist() for size in sizes],
    )


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog, histories: Histories) -> Path:
    folder = tmp_path_factory.mktemp("data")
    catalog.save(folder)
    histories.save(folder, catalog)
    return folder


@pytest.fixture(scope="session")
def semantic_ids(catalog: Catalog) -> SemanticIds:
    """Random codes on three levels, no two items alike."""
    rng = np.random.default_rng(3)
    numbers = rng.permutation(4 * 5 * 6)[: len(catalog)]
    codes = np.stack(np.unravel_index(numbers, (4, 5, 6)), axis=1).astype(np.int32)
    return SemanticIds(codes, (4, 5, 6))


@pytest.fixture(scope="session")
def index(
    tmp_path_factory: pytest.TempPathFactory, catalog: Catalog, semantic_ids: SemanticIds
) -> Path:
    """Folder of the index files."""
    folder = tmp_path_factory.mktemp("index")
    semantic_ids.save(folder, "films", catalog)
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """An untrained SASRec; what it answers is arbitrary but fixed."""
    catalog = Catalog.load(data)
    folder = tmp_path_factory.mktemp("teacher")
    sizes = SasRecSizes(
        num_items=len(catalog), max_length=20, hidden=16, inner=16, layers=1, heads=1, dropout=0.0
    )
    torch.manual_seed(0)
    save_network(folder, SasRec(sizes), catalog.fingerprint)
    return folder


@pytest.fixture(scope="session")
def chat_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chat") / "chat.json"
    conversations = [
        {
            "conversations": [
                {"from": "human", "value": f"Question {number}?"},
                {"from": "gpt", "value": f"Answer {number}."},
                {"from": "human", "value": "And then?"},
                {"from": "gpt", "value": "Nothing. " * 40},
            ]
        }
        for number in range(5)
    ]
    path.write_text(json.dumps(conversations), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone) -> Path:
    """The tiny backbone as a folder, so that tests need not create one of full size."""
    folder = tmp_path_factory.mktemp("tiny")
    save_backbone(folder, tiny_backbone)
    return folder
