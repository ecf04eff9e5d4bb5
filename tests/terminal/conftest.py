from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from incatalog import Catalog, Item, Recommender
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, titles: tuple[str, ...]
) -> Path:
    """A random model that likes to open item spans, with forty films."""
    folder = tmp_path_factory.mktemp("talking") / "films"
    folder.mkdir()
    talkative = copy.deepcopy(tiny_backbone)
    network: Any = talkative.model
    torch.manual_seed(1)
    with torch.no_grad():
        weight = torch.randn_like(network.get_output_embeddings().weight)
        network.lm_head.weight = torch.nn.Parameter(weight)
        network.lm_head.weight[talkative.soi_token_id] *= 4
    save_model(folder, talkative, ModelSpec(base="tiny", list_form="plain"))
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
