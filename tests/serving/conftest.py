from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser import Watched, chromium
from chatting import HOSTILE, Server
from incatalog import Catalog, Item, Recommender
from incatalog.codes.semantic_ids import SemanticIds
from incatalog.model.backbone import Backbone, add_codes
from incatalog.model.head import RetrievalHead
from incatalog.model.saved import save_model
from incatalog.model.spec import ModelSpec
from page_acts import watching

GENRES = ("Drama", "Comedy", "Crime")


def items(titles: tuple[str, ...]) -> list[Item]:
    return [
        Item(
            f"i{row}",
            title,
            f"About {title}",
            (GENRES[row % 3],),
            attributes={"price": row / 2, "studio": "AB"[row % 2], "in_stock": row % 5 > 0},
        )
        for row, title in enumerate(titles)
    ]


@pytest.fixture(scope="session")
def model(
    tmp_path_factory: pytest.TempPathFactory, talkative_backbone: Backbone, titles: tuple[str, ...]
) -> Path:
    """A random model that likes to open item spans, with forty films."""
    folder = tmp_path_factory.mktemp("served") / "films"
    folder.mkdir()
    save_model(folder, talkative_backbone, ModelSpec(base="tiny", list_form="plain"))
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
    return Recommender.from_pretrained(model, device="cpu", encoder="words")


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


@pytest.fixture(scope="session")
def coded(tiny_backbone: Backbone, titles: tuple[str, ...]) -> Recommender:
    """A random model that writes codes, of two levels of eight."""
    backbone = add_codes(copy.deepcopy(tiny_backbone), (8, 8))
    catalog = Catalog.from_items(items(titles)[:40])
    rows = np.arange(40, dtype=np.int32)
    codes = SemanticIds(np.stack([rows // 8, rows % 8], axis=1), (8, 8))
    spec = ModelSpec(base="tiny", method="token", item_form="codes", code_sizes=(8, 8))
    return Recommender(backbone, spec, catalog, codes)


@pytest.fixture(scope="session")
def retrieving(tiny_backbone: Backbone, titles: tuple[str, ...]) -> Recommender:
    """A random model that retrieves, by vectors of six numbers."""
    backbone = copy.deepcopy(tiny_backbone)
    vectors = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    head = RetrievalHead.create(32, vectors)
    spec = ModelSpec(base="tiny", method="ret")
    catalog = Catalog.from_items(items(titles)[:40])
    return Recommender(replace(backbone, head=head.eval()), spec, catalog)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def watched(browser: Any, server: Server) -> Iterator[Watched]:
    """The page, which must not complain, and must not ask elsewhere."""
    with watching(browser, server.url) as page:
        yield page
