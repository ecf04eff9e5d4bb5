"""What a request may ask for: the names it may give, and how much of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.model_forms import model_names
from incatalog.serving.newest import version_from
from incatalog.serving.problems import ApiError, find_domain, unknown_model
from incatalog.serving.question_schemas import ItemQuestion
from incatalog.serving.settings import ServeSettings

# Without a catalog these mean nothing; `auto` lists nothing there.
_NEEDING_ITEMS = (
    "history",
    "exclude",
    "categories",
    "where",
    "k",
    "boost",
    "guide_weight",
    "filters_off",
    "catalog_version",
)


@dataclass(frozen=True)
class Limits:
    """Refuses a request beyond the settings of the service, by an ApiError that names the field."""

    settings: ServeSettings
    domains: Mapping[str, Domain]

    async def version(self, body: ChatRequest) -> Version | None:
        """The catalog version that a conversation sees; None for plain text."""
        domain = self._domain(body)
        return None if domain is None else await self.version_of(domain, body)

    async def version_of(self, domain: Domain, body: ItemQuestion) -> Version:
        """The version of a domain that a request sees: the newest, or one that it waits for."""
        seen = body.catalog_version
        number = None if seen is None else seen.at_least
        return await version_from(domain, number, self.settings.state_timeout)

    def _domain(self, body: ChatRequest) -> Domain | None:
        name, _, of_model = body.model.partition("/")
        if name != self.settings.name:
            raise unknown_model(body.model, model_names(self.settings.name, self.domains))
        if of_model and body.domain not in (None, of_model):
            raise ApiError(400, "domain: the model's name says another", param="domain")
        if of_model:
            return find_domain(self.domains, of_model, "model")
        if body.domain is not None:
            return find_domain(self.domains, body.domain)
        for field in _NEEDING_ITEMS:
            if getattr(body, field) and getattr(body, field) != "auto":
                why = f"{field}: needs a domain to recommend from"
                raise ApiError(400, why, param="domain", code="domain_missing")
        return None

    def check_question(self, body: ItemQuestion, k: int | None) -> None:
        """Checks what is said of items."""
        settings = self.settings
        for field in ("history", "exclude", "categories", "boost"):
            if (count := len(getattr(body, field))) > settings.max_history:
                _refuse(field, f"{count} entries; expected {settings.max_history} at most")
        if k is not None and k > settings.max_k:
            _refuse("k", f"found {k}; expected {settings.max_k} at most")

    def check_bounds(self, body: ChatRequest) -> None:
        """Checks what is said of items in a conversation."""
        self.check_question(body, body.k if isinstance(body.k, int) else None)

    def check_conversation(self, body: ChatRequest) -> None:
        """Checks the messages that are looked at."""
        settings = self.settings
        if (count := len(body.messages)) > settings.max_messages:
            _refuse("messages", f"{count}; expected {settings.max_messages} at most")
        if (count := body.characters) > settings.max_characters:
            _refuse("messages", f"{count} characters; expected {settings.max_characters} at most")


def _refuse(field: str, why: str) -> NoReturn:
    raise ApiError(400, f"{field}: {why}", param=field)
