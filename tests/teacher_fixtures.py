from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.teacher import InProcessTeacher

NUM_ITEMS = 24


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """Items 0 to 23; "even" and "odd" by row, "few" holds rows 0 to 2."""
    items = [
        Item(
            item_id=f"i{row}",
            title=f"Title {row}",
            categories=("odd" if row % 2 else "even",) + (("few",) if row < 3 else ()),
        )
        for row in range(NUM_ITEMS)
    ]
    return Catalog.from_items(items, name="walks")


@pytest.fixture(scope="session")
def sizes() -> SasRecSizes:
    return SasRecSizes(
        num_items=NUM_ITEMS, max_length=6, hidden=16, inner=32, layers=2, heads=2, dropout=0.2
    )


def random_network(sizes: SasRecSizes) -> SasRec:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = SasRec(sizes)
        # Weights of the usual size make every score differ visibly.
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return network.eval()


@pytest.fixture
def network(sizes: SasRecSizes) -> SasRec:
    return random_network(sizes)


@pytest.fixture(scope="session")
def reference(sizes: SasRecSizes, catalog: Catalog) -> InProcessTeacher:
    """The teacher of `network`, for services that live longer than a test."""
    return InProcessTeacher(random_network(sizes), catalog)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, sizes: SasRecSizes, catalog: Catalog) -> Path:
    """The folder of the same teacher."""
    folder = tmp_path_factory.mktemp("run")
    save_network(folder, random_network(sizes), catalog.fingerprint)
    return folder


@pytest.fixture
def teacher(network: SasRec, catalog: Catalog) -> InProcessTeacher:
    return InProcessTeacher(network, catalog)


@pytest.fixture(scope="session")
def walks(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Path:
    """Data in which every user walks the catalog in steps of one, from a random start."""
    folder = tmp_path_factory.mktemp("walks")
    rng = np.random.default_rng(5)
    lists = []
    for _ in range(60):
        start, length = rng.integers(NUM_ITEMS), rng.integers(5, 14)
        lists.append([int(row) for row in (start + np.arange(length)) % NUM_ITEMS])
    catalog.save(folder)
    Histories.from_lists([f"u{user}" for user in range(60)], lists).save(folder, catalog)
    return folder
