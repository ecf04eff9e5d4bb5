from __future__ import annotations

import json
from pathlib import Path

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.data.model_catalog import check_field, data_catalog, model_catalog, unused_names
from incatalog.errors import ConfigError, DataError


def write(folder: Path, **fields: str) -> Path:
    folder.mkdir()
    metas = {key: {"title": f"{key} title", **fields} for key in ("a", "b")}
    (folder / "metas.jsonl").write_text(json.dumps(metas))
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data", title_t="T", short="S")


@pytest.fixture
def model(tmp_path: Path, data: Path) -> Path:
    """The folder of a model that knows the items of `data` by their title_t."""
    Catalog.load(data, title_field="title_t").save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_keeps_to_its_field(model: Path) -> None:
    assert model_catalog(model).names == model_catalog(model, "title_t").names == ("T", "T")
    for other in ("title", "short"):
        with pytest.raises(ConfigError, match=rf"^--title-field {other}: .* by their 'title_t'"):
            model_catalog(model, other)


def test_a_model_of_titles_is_not_asked_by_its_written_titles(tmp_path: Path, data: Path) -> None:
    Catalog.load(data).with_titles_t(["1", "2"]).save(tmp_path / "old")
    assert model_catalog(tmp_path / "old").names == ("a title", "b title")
    with pytest.raises(ConfigError, match="by their 'title'"):
        model_catalog(tmp_path / "old", "title_t")
    with pytest.raises(ConfigError, match="by their 'title'"):
        data_catalog(data, tmp_path / "old", "title_t")


def test_data_is_named_as_the_model_was_trained(tmp_path: Path, data: Path, model: Path) -> None:
    found = data_catalog(data, model, name="shop")
    assert (found.name, found.title_field) == ("shop", "title_t")
    assert found.fingerprint == model_catalog(model).fingerprint
    with pytest.raises(ConfigError, match="--title-field short"):
        data_catalog(data, model, "short")
    # Another domain has names of its own, if it has the field.
    other = write(tmp_path / "other")
    metas = {"z": {"title": "Z", "brand": "z"}}
    (other / "metas.jsonl").write_text(json.dumps(metas))
    with pytest.raises(DataError, match="no field 'title_t'"):
        data_catalog(other, model)
    assert data_catalog(other, model, "title").names == ("Z",)
    assert data_catalog(other, model, "brand").names == ("z",)


def test_other_items_may_have_any_field() -> None:
    own = Catalog.from_items([Item("a", "A", name="x")], title_field="short")
    check_field(Catalog.from_items([Item("b", "B")]), own, "m")
    check_field(own, own, "m")
    with pytest.raises(ConfigError, match="--title-field title: m was trained"):
        check_field(Catalog.from_items([Item("a", "A")]), own, "m")


def test_names_that_are_not_used_are_told() -> None:
    items = [
        Item("a", "Tea &amp; Milk", title_t="Tea & Milk"),
        Item("b", "Brazil", title_t="Brazil (1985)"),
        Item("c", "Contact"),
    ]
    told = unused_names(items, "title")
    assert told is not None
    assert told.startswith("notice: 1 of 3 items have a title_t that differs from their title")
    assert unused_names(items, "title_t") is None
    assert unused_names(items[::2], "title") is None
