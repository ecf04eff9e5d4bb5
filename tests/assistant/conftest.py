from __future__ import annotations

import pytest

from incatalog import Catalog, Item, Recommender
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.recommender.guide import Guide
from incatalog.steering.steering import Steering
from incatalog.teacher.popularity import Popularity

FILMS = (
    ("Star Wars (1977)", ("Action", "Sci-Fi")),
    ("Alien (1979)", ("Horror", "Sci-Fi")),
    ("Godfather, The (1972)", ("Crime", "Drama")),
    ("Heat (1995)", ("Crime", "Action")),
    ("Star Trek: First Contact (1996)", ("Action", "Sci-Fi")),
    ("Airplane! (1980)", ("Comedy",)),
    ("Young Frankenstein (1974)", ("Comedy", "Horror")),
    ("Nameless", ()),
)


@pytest.fixture(scope="session")
def films() -> Catalog:
    """Eight films; the first is what most people take, and so on down the rows."""
    return Catalog.from_items(
        (
            Item(f"f{row}", title, categories=kinds, attributes={"year": 1970 + row})
            for row, (title, kinds) in enumerate(FILMS)
        ),
        "films",
    )


@pytest.fixture(scope="session")
def untrained(tiny_backbone: Backbone, films: Catalog) -> Recommender:
    """A random model that was never trained, guided by popularity, steered by words."""
    guide = Guide(Popularity([float(80 - row) for row in range(8)], films), films, 1.0, 1.0)
    spec = ModelSpec(base="tiny", trained=False)
    steering = Steering.of(films, encoder="words")
    return Recommender(tiny_backbone, spec, films, guide=guide, steering=steering)
