"""The names that requests may give to the model, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI

from incatalog.model.spec import about
from incatalog.recommender.recommender import Recommender
from incatalog.serving.catalogs import Domain
from incatalog.serving.model_forms import Model, Models, model_names
from incatalog.serving.problems import PROBLEMS, unknown_model


class ModelEndpoints:
    """Tells the names of a model: alone, and with each domain."""

    def __init__(self, recommender: Recommender, domains: Mapping[str, Domain], name: str) -> None:
        self._spec, self._domains = recommender.spec, domains
        self._parameters = sum(one.numel() for one in recommender.backbone.model.parameters())
        self._names = dict(zip(model_names(name, domains), (None, *domains), strict=True))

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoints to an application."""

        @app.get("/v1/models", responses=PROBLEMS)
        async def models() -> Models:
            """The names that requests may give: the model alone, and with each domain."""
            return Models(data=[self._model(name) for name in self._names])

        # A name with a domain has a slash, which clients send as it is or as %2F.
        @app.get("/v1/models/{name:path}", responses=PROBLEMS)
        async def model(name: str) -> Model:
            """One of these names."""
            if name not in self._names:
                raise unknown_model(name, self._names)
            return self._model(name)

    def _model(self, name: str) -> Model:
        domain = self._names[name]
        told = "plain chat, which names no item of a catalog"
        if domain is not None:
            guided = self._domains[domain].version.recommender.guide is not None
            told = about(self._spec, guided=guided)
        return Model(
            id=name,
            domain=domain,
            about=told,
            trained=self._spec.trained,
            parameters=self._parameters,
        )
