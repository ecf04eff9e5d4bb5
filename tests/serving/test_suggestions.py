from __future__ import annotations

from typing import Any

import httpx
import numpy as np
import pytest

from chatting import Server
from incatalog import Catalog, Item, Recommender
from incatalog.errors import ConfigError
from incatalog.recommender.guide import Guide
from incatalog.serving.facets import category_sizes, facets
from incatalog.serving.server import serve
from incatalog.serving.settings import ServeSettings
from incatalog.serving.suggestions import begin_with, popularity, questions
from incatalog.teacher.popularity import Popularity


def shop(recommender: Recommender, items: list[Item]) -> Recommender:
    """The model on another catalog."""
    return recommender.with_catalog(Catalog.from_items(items), None, None, guide=None)


def guided(recommender: Recommender, counts: list[float], empty: Any = "popularity") -> Recommender:
    catalog = recommender.catalog
    return recommender.with_guide(Guide(Popularity(counts, catalog), catalog, empty=empty))


PENS = [
    Item("a", "Pen", categories=("Pens",), attributes={"price": 2.0, "year": 1994, "brand": "X"}),
    Item("b", "Fountain pen", categories=("Pens",), attributes={"price": 30.0, "brand": "Y"}),
    Item("c", "Paper", categories=("Paper",), attributes={"price": 4.0, "brand": "X"}),
    Item("d", "Blue paper", categories=("Paper",), attributes={"price": 6.0, "new": True}),
    Item("e", "Ink", categories=("Ink",), attributes={"price": 8.0, "brand": "Y", "sku": "9"}),
]


def test_popular_items_come_first_but_not_all_of_one_category(recommender: Recommender) -> None:
    items = [Item(f"i{n}", f"Thing {n}", categories=(f"c{n % 2}",)) for n in range(40)]
    # The even ones, all of one category, are the most popular.
    counts = [100.0 - n if n % 2 == 0 else 40.0 - n for n in range(40)]
    model = guided(shop(recommender, items), counts)
    known = popularity(model)
    assert known is not None
    assert known.tolist() == [*range(0, 40, 2), *range(1, 40, 2)]
    # Three of each category first, then the most popular of the rest.
    assert list(begin_with(model, known)) == [0, 2, 4, 1, 3, 5, 6, 8, 10, 12, 14, 16]
    hidden = model.with_disabled({"i0"})
    assert 0 not in list(begin_with(hidden, popularity(hidden)))


def test_without_a_guide_that_knows_it_nothing_is_called_popular(recommender: Recommender) -> None:
    model = shop(recommender, PENS)
    assert popularity(model) is None
    assert popularity(guided(model, [1.0] * 5, "nothing")) is None
    assert list(begin_with(model, None)) == [0, 1, 2, 3, 4]


def test_questions_name_what_the_catalog_has(recommender: Recommender) -> None:
    model = shop(recommender, PENS)
    # Prices of 2 to 30 around 6: up to 10 is a usual limit.
    assert questions(model, [2]) == [
        "What is good in Paper?",
        "Pens under 10",
        "Something like Paper",
        "What would you recommend?",
    ]
    priced = Catalog(tuple(PENS), "items", formats=(("price", "EUR"),))
    euros = recommender.with_catalog(priced, None, None, guide=None)
    assert questions(euros, [])[1] == "Pens under €10"
    assert facets(euros)[0].currency == "EUR"
    years = [
        Item(f"i{n}", f"Film {n}", categories=("Drama",), attributes={"year": year})
        for n, year in enumerate((1931, 1984, 1989, 1999))
    ]
    # All are dramas, so that this says nothing.
    assert questions(shop(recommender, years), []) == [
        "Something from the 1980s",
        "What would you recommend?",
    ]
    plain = [Item("a", "Alpha"), Item("b", "Beta")]
    assert questions(shop(recommender, plain), [1]) == [
        "Something like Beta",
        "What would you recommend?",
    ]


def test_facets_are_ranges_choices_and_switches(recommender: Recommender) -> None:
    model = shop(recommender, PENS)
    found = {one.field: one for one in facets(model)}
    # One year is no range, and a text that names a single item is no kind of items.
    assert list(found) == ["price", "brand", "new"]
    assert (found["price"].least, found["price"].most, found["price"].whole) == (2, 30, True)
    brand = [(one.value, one.items) for one in found["brand"].choices]
    assert brand == [("X", 2), ("Y", 2)]
    assert (found["new"].kind, found["new"].label, found["new"].items) == ("switch", "New", 1)
    assert category_sizes(model) == [("Paper", 2), ("Pens", 2), ("Ink", 1)]
    # What may not be recommended is not counted.
    hidden = model.with_disabled({"b"})
    assert category_sizes(hidden) == [("Paper", 2), ("Ink", 1), ("Pens", 1)]
    assert next(one for one in facets(hidden) if one.field == "price").most == 8


def test_service_answers_the_page(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        found = http.get("/v1/catalogs/films/suggestions").json()
        assert found["order"] == "catalog"
        assert len(found["popular"]) == 12
        assert found["suggestions"][0] == "What is good in Drama?"
        found = http.get("/v1/catalogs/films/facets").json()
        assert [(one["value"], one["items"]) for one in found["categories"]] == [
            ("Drama", 14),
            ("Comedy", 13),
            ("Crime", 13),
        ]
        for name in ("suggestions", "facets"):
            assert http.get(f"/v1/catalogs/nothing/{name}").status_code == 404
        asked: dict[str, Any] = {"search": "harbuor lihgts", "limit": 5}
        page = http.get("/v1/catalogs/films/items", params=asked).json()
        assert page["items"][0]["title"] == "Harbour Lights (1991)"
        refused = http.get("/v1/catalogs/films/items", params=asked | {"query": "x"})
        assert refused.status_code == 400
        settings = http.get("/page/settings.json").json()
        assert settings["title"] == "incatalog"
        assert settings["images"] == []
        policy = http.get("/").headers["Content-Security-Policy"]
        assert "img-src 'self' data:;" in policy
        models = http.get("/v1/models").json()["data"]
        assert {one["parameters"] for one in models} == {models[0]["parameters"]}
        assert models[0]["parameters"] > 1000


@pytest.mark.parametrize("origin", ["http://a.example", "https://a.example/x", "https://a; b", "*"])
def test_only_origins_of_images_are_taken(origin: str, tmp_path: Any) -> None:
    settings = ServeSettings(model=tmp_path, allow_image=(origin,))
    with pytest.raises(ConfigError, match=r"--allow-image .*: expected an origin"):
        serve(settings)


def test_popularity_is_the_order_of_the_counts(recommender: Recommender) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 100, 40).astype(float).tolist()
    items = [Item(f"i{n}", f"Thing {n}", categories=("Things",)) for n in range(40)]
    model = guided(shop(recommender, items), counts)
    order = popularity(model)
    assert order is not None
    assert order.tolist() == sorted(range(40), key=lambda row: (-counts[row], row))
