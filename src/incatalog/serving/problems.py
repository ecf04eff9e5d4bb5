"""Errors of the service, in the form OpenAI's clients understand."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from incatalog import errors
from incatalog.flags import near
from incatalog.serving.body_values import LIST, NUMBER, TEXT
from incatalog.serving.catalogs import Domain
from incatalog.serving.error_schemas import ErrorAnswer
from incatalog.serving.unused_values import UNSUPPORTED
from incatalog.web.app import QueueFullError, first_fault

_log = logging.getLogger(__name__)
_LONGEST_NAME = 256
_OF_THE_CLIENT = (
    errors.CatalogError,
    errors.ConfigError,
    errors.DataError,
    errors.SemanticIdError,
    errors.TokenizerError,
    errors.VectorError,
)


class ApiError(Exception):
    """What a client gets in place of an answer; `code` is a word by which programs can tell it."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's form."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = {401: "authentication_error", 429: "rate_limit_error"}.get(self.status, kind)
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def response(self) -> JSONResponse:
        """The answer to send."""
        return JSONResponse(self.body(), self.status, headers=self.headers)


def api_error(error: BaseException) -> ApiError:
    """What a client is told about an error; faults of the service are told to the log only."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(429, str(error), code="queue_full", headers=headers)
    if isinstance(error, errors.NoItemLeftError):
        return ApiError(400, str(error), param="exclude", code="no_item_left")
    if isinstance(error, TimeoutError):
        return ApiError(504, "no answer in time; ask for fewer tokens", code="deadline")
    if isinstance(error, _OF_THE_CLIENT):
        param = str(error).split(":")[0]
        param_of = param if param.isidentifier() else None
        code = "context_length_exceeded" if isinstance(error, errors.ContextLengthError) else None
        return ApiError(400, str(error), param=param_of, code=code)
    if isinstance(error, errors.StateError):
        # The client is not told where the state is.
        _log.warning("%s", error)
        why, code = "what the service keeps cannot be reached; nothing was changed", "unavailable"
        if isinstance(error, errors.OutcomeError):
            why = "the connection broke while this was being kept: it may hold, and may not"
            code = "unknown"
        headers = {"Retry-After": "1"}
        return ApiError(503, f"{why}; ask again", code=f"state_{code}", headers=headers)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "the service failed; its log tells more", code="internal")


def add_problems(app: FastAPI) -> None:
    """Has every error of an application answered in OpenAI's form."""
    for kind in (ApiError, errors.IncatalogError, TimeoutError, Exception):
        app.add_exception_handler(kind, _respond_to_error)
    app.add_exception_handler(HTTPException, _respond_to_http)
    app.add_exception_handler(RequestValidationError, _respond_to_form)


async def _respond_to_error(_request: Request, error: Exception) -> JSONResponse:
    return api_error(error).response()


async def _respond_to_http(_request: Request, error: Exception) -> JSONResponse:
    """Answers what the framework refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    status, headers = error.status_code, error.headers
    code = {404: "not_found", 405: "method_not_allowed"}.get(status)
    return ApiError(status, str(error.detail), code=code, headers=headers).response()


async def _respond_to_form(_request: Request, error: Exception) -> JSONResponse:
    """Answers a body of another form: one line about the first thing wrong."""
    assert isinstance(error, RequestValidationError)
    kind = error.errors()[0]["type"]
    if kind == "json_invalid":
        return ApiError(400, "body: expected JSON", param="body", code="json").response()
    name, message = first_fault(error.errors(), 1, (TEXT, LIST, NUMBER))
    if not name:
        name, message = "body", "expected a JSON object with Content-Type: application/json"
    if kind == "extra_forbidden":
        message = "no such field; see /docs"
    code = UNSUPPORTED if kind == UNSUPPORTED else "form"
    return ApiError(400, f"{name}: {message}", param=name, code=code).response()


_ABOUT = {
    400: "The request cannot be answered.",
    401: "No valid API key.",
    403: "The key may not do this.",
    404: "There is no such model, catalog, item or session.",
    409: "Another turn of the session came first, or the version asked for is not there.",
    413: "The body is too large.",
    429: "Too many requests; see `Retry-After`.",
    503: "The teacher that guides the answers failed, or what the service keeps is out of reach.",
    504: "The answer took too long.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": about} for status, about in _ABOUT.items()
}


def find_domain(domains: Mapping[str, Domain], name: str, param: str = "domain") -> Domain:
    """The domain of a name that was given in the field `param`."""
    try:
        return domains[name]
    except KeyError:
        known = ", ".join(domains)
        message = f"{param}: no such catalog; expected one of {known}"
        raise ApiError(404, message, param=param, code="domain_not_found") from None


def unknown_model(name: str, known: Iterable[str]) -> ApiError:
    """What is said of a name that is not one of the `known` ones."""
    name = name[:_LONGEST_NAME]
    why = f"model: no model {name!r}{near(name, known)}; see /v1/models"
    return ApiError(404, why, param="model", code="model_not_found")
