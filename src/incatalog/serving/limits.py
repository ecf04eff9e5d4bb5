"""What a request may ask for: the names it may give, and how much of everything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from incatalog.serving.catalogs import Domain, Version
from incatalog.serving.problems import ApiError, find_domain
from incatalog.serving.schemas import ChatRequest, ItemQuestion
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
)


@dataclass(frozen=True)
class Limits:
    """Refuses a request beyond the settings of the service, by an ApiError that names the field."""

    settings: ServeSettings
    domains: Mapping[str, Domain]

    def version(self, body: ChatRequest) -> Version | None:
        """The catalog version that a conversation sees; None for plain text."""
        name, _, of_model = body.model.partition("/")
        if name != self.settings.name:
            why = f"model: no model {body.model!r}; see /v1/models"
            raise ApiError(404, why, param="model", code="model_not_found")
        if of_model and body.domain not in (None, of_model):
            raise ApiError(400, "domain: the model's name says another", param="domain")
        if of_model:
            return find_domain(self.domains, of_model, "model").version
        if body.domain is not None:
            return find_domain(self.domains, body.domain).version
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
        """Checks what is said of items, and the length of the answer."""
        settings = self.settings
        self.check_question(body, body.k if isinstance(body.k, int) else None)
        for field in ("max_tokens", "max_completion_tokens"):
            if (getattr(body, field) or 0) > settings.max_tokens:
                _refuse(field, f"expected {settings.max_tokens} at most")

    def check_conversation(self, body: ChatRequest) -> None:
        """Checks the messages that are looked at."""
        settings = self.settings
        if (count := len(body.messages)) > settings.max_messages:
            _refuse("messages", f"{count}; expected {settings.max_messages} at most")
        if (count := body.characters) > settings.max_characters:
            _refuse("messages", f"{count} characters; expected {settings.max_characters} at most")


def _refuse(field: str, why: str) -> NoReturn:
    raise ApiError(400, f"{field}: {why}", param=field)
