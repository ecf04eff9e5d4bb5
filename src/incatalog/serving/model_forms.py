"""The names that requests may give to the model, as `/v1/models` lists them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from incatalog.web.bodies import Form


class Model(Form):
    """A name that requests may give; whether its model was trained on a catalog."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "incatalog"
    domain: str | None = None
    trained: bool = True
    about: str = ""
    """What the model is, in a sentence."""
    parameters: int | None = None
    """Of its network, in all."""


class Models(Form):
    """All names that requests may give."""

    object: Literal["list"] = "list"
    data: list[Model]


def model_names(name: str, domains: Iterable[str]) -> list[str]:
    """The names of a service's model: alone, and with each domain."""
    return [name, *(f"{name}/{domain}" for domain in domains)]
