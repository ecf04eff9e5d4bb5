from __future__ import annotations

import inspect

import pytest

from incatalog import errors
from incatalog.errors import DataError, IncatalogError, MissingExtraError, require


def test_every_error_belongs_to_the_family():
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if kind is not None]
    for kind in found:
        if issubclass(kind, Exception):
            assert issubclass(kind, IncatalogError)
            assert kind.__doc__
    assert issubclass(errors.NoItemLeftError, errors.CatalogError)


def test_place_comes_first():
    assert str(DataError.at("a/b.jsonl", "empty title", line=3)) == "a/b.jsonl:3: empty title"
    assert str(DataError.at("a/b.jsonl", "no such file")) == "a/b.jsonl: no such file"
    assert isinstance(DataError.at("x", "y"), DataError)


def test_require_hands_on_the_module():
    assert require("json.decoder", extra="train").JSONDecoder


@pytest.mark.parametrize("module", ["not_a_module", "not_a_module.sub", "json.not_a_module"])
def test_missing_dependency_names_its_extra(module):
    with pytest.raises(MissingExtraError) as caught:
        require(module, extra="serve")
    assert str(caught.value) == f"{module} is not installed; run: pip install 'incatalog[serve]'"
    assert isinstance(caught.value, ImportError)


def test_a_broken_dependency_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "installed_but_broken.py").write_text("import its_own_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="its_own_dependency") as caught:
        require("installed_but_broken", extra="train")
    assert not isinstance(caught.value, IncatalogError)
