"""Errors of the service, in the form OpenAI's clients understand."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from incatalog.errors import (
    CatalogError,
    ConfigError,
    ContextLengthError,
    DataError,
    NoItemLeftError,
    SemanticIdError,
    TokenizerError,
    VectorError,
)
from incatalog.serving.catalogs import Domain
from incatalog.serving.schemas import LIST, TEXT, Problem
from incatalog.serving.worker import QueueFullError

_log = logging.getLogger(__name__)
_LONGEST_NAME = 60
_OF_THE_CLIENT = (
    CatalogError,
    ConfigError,
    DataError,
    SemanticIdError,
    TokenizerError,
    VectorError,
)


class ApiError(Exception):
    """An answer that is none.

    Attributes:
        status: HTTP status.
        message: One line: the field, what was found, what was expected.
        param: The field.
        code: A word that programs can tell the error by.
        headers: Further headers.
    """

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
    """What a client is told about an error; what is not the client's is told the log only."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, QueueFullError):
        headers = {"Retry-After": str(error.retry_after)}
        return ApiError(429, str(error), code="queue_full", headers=headers)
    if isinstance(error, NoItemLeftError):
        return ApiError(400, str(error), param="exclude", code="no_item_left")
    if isinstance(error, TimeoutError):
        return ApiError(504, "no answer in time; ask for fewer tokens", code="deadline")
    if isinstance(error, _OF_THE_CLIENT):
        param = str(error).split(":")[0]
        param_of = param if param.isidentifier() else None
        code = "context_length_exceeded" if isinstance(error, ContextLengthError) else None
        return ApiError(400, str(error), param=param_of, code=code)
    _log.error("a request failed", exc_info=error)
    return ApiError(500, "the service failed; its log tells more", code="internal")


async def respond_to_error(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler of the application."""
    return api_error(error).response()


async def respond_to_http(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler for what the framework refuses: an unknown path, a wrong method."""
    assert isinstance(error, HTTPException)
    codes = {404: "not_found", 405: "method_not_allowed"}
    headers = error.headers
    code = codes.get(error.status_code)
    return ApiError(error.status_code, str(error.detail), code=code, headers=headers).response()


async def respond_to_form(_request: Request, error: Exception) -> JSONResponse:
    """Exception handler for a body of another form: one line about the first thing wrong."""
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = dict(error.errors()[0])
    if first["type"] == "json_invalid":
        return ApiError(400, "body: expected JSON", param="body", code="json").response()
    place = [str(part)[:_LONGEST_NAME] for part in first["loc"][1:] if part not in (TEXT, LIST)]
    name = ".".join(place) or "body"
    message = first["msg"][:1].lower() + first["msg"][1:]
    if name == "body":
        message = "expected a JSON object with Content-Type: application/json"
    if first["type"] == "extra_forbidden":
        message = "no such field; see /docs"
    return ApiError(400, f"{name}: {message}", param=name, code="form").response()


PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The request cannot be answered."},
    401: {"model": Problem, "description": "No valid API key."},
    403: {"model": Problem, "description": "The key may not do this."},
    404: {"model": Problem, "description": "There is no such model, catalog, item or session."},
    409: {"model": Problem, "description": "A turn of the session is still being answered."},
    413: {"model": Problem, "description": "The body is too large."},
    429: {"model": Problem, "description": "Too many requests; see `Retry-After`."},
    504: {"model": Problem, "description": "The answer took too long."},
}


def find_domain(domains: Mapping[str, Domain], name: str, param: str = "domain") -> Domain:
    """The domain of a name.

    Raises:
        ApiError: There is none (404).
    """
    try:
        return domains[name]
    except KeyError:
        known = ", ".join(domains)
        message = f"{param}: no such catalog; expected one of {known}"
        raise ApiError(404, message, param=param, code="domain_not_found") from None
