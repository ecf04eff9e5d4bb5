from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from chatting import HOSTILE, Server
from reclm import Catalog, Item, Recommender
from reclm.backbone import Backbone, ModelSpec, save_model

GENRES = ("Drama", "Comedy", "Crime")


def items(titles: tuple[str, ...]) -> list[Item]:
    return [
        Item(f"i{row}", title, f"About {title}", (GENRES[row % 3],))
        for row, title in enumerate(titles)
    ]


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, titles: tuple[str, ...]
) -> Path:
    """A random model that likes to open item spans, with forty films."""
    folder = tmp_path_factory.mktemp("served") / "films"
    folder.mkdir()
    talkative = copy.deepcopy(tiny_backbone)
    network: Any = talkative.model
    torch.manual_seed(1)
    with torch.no_grad():
        weight = torch.randn_like(network.get_output_embeddings().weight)
        network.lm_head.weight = torch.nn.Parameter(weight)
        network.lm_head.weight[talkative.soi_token_id] *= 4
    save_model(folder, talkative, ModelSpec(base="tiny", list_form="plain"))
    Catalog.from_items(items(titles)[:40]).save(folder)
    return folder


@pytest.fixture(scope="session")
def books(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another catalog, one of its titles written by someone with bad intentions."""
    folder = tmp_path_factory.mktemp("domains") / "books"
    folder.mkdir()
    titles = ("The Harbour Guide", "Night Reading", "Paper Boats for Beginners", HOSTILE)
    Catalog.from_items(
        Item(f"b/{row}", title, categories=("Book",)) for row, title in enumerate(titles)
    ).save(folder)
    return folder


@pytest.fixture(scope="session")
def recommender(model: Path) -> Recommender:
    """The same model in this process: what the service has to say."""
    return Recommender.from_pretrained(model, device="cpu")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, model: Path, books: Path) -> Iterator[Server]:
    """A service of two domains that anyone may ask; do not change its catalogs."""
    folder = tmp_path_factory.mktemp("service")
    domains = ("--domain", f"films={model}", "--domain", f"books={books}")
    sessions = ("--sessions", folder / "sessions.sqlite")
    running = Server(folder / "log", "--model", model, *domains, *sessions, "--max-body", "100000")
    yield running
    running.terminate()
    assert running.wait() == 0
    assert "Traceback" not in running.said
