"""Conditions on items as the body of a request has them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

from incatalog.data.where import OPS, Where
from incatalog.errors import ConfigError


def _conditions(given: dict[str, Any]) -> dict[str, Any]:
    """Refuses what are no conditions; whether the catalog has the fields is another question."""
    try:
        Where.parse(given)
    except ConfigError as error:
        why = str(error).removeprefix("where: ")
        raise PydanticCustomError("where", "{why}", {"why": why}) from error
    return given


_SCALAR = {"type": ["boolean", "number", "string"]}
_SCALARS = {"type": "array", "items": _SCALAR, "minItems": 1}
_VALUES = {"in": _SCALARS, "not_in": _SCALARS, "words": {"anyOf": [_SCALAR, _SCALARS]}}
_COMPARISONS = {
    "type": "object",
    "properties": {op: _VALUES.get(op, _SCALAR) for op in OPS},
    "additionalProperties": False,
    "minProperties": 1,
}
Conditions = Annotated[
    dict[str, Any],
    AfterValidator(_conditions),
    WithJsonSchema(
        {"type": "object", "additionalProperties": {"anyOf": [_SCALAR, _SCALARS, _COMPARISONS]}}
    ),
]
