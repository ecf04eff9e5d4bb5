"""Values that bodies of requests hold: ids, names, factors, whole numbers, and nothing."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from incatalog.web.bodies import Form

Id = Annotated[str, Field(min_length=1, max_length=512)]
# Fails at the first wrong entry: a list of a million of them would be a million error records.
FIRST = Field(fail_fast=True)
Ids = Annotated[list[Id], FIRST]
Names = Annotated[list[Annotated[str, Field(max_length=512)]], FIRST]
# The numbers that `factor_problem` lets pass.
Factor = Annotated[float, Field(ge=1e-9, le=1e9)]
Boosts = dict[Id, Factor]


def _whole(value: Any) -> Any:
    """A whole number that some languages write as 64.0; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
Place = Annotated[int, Field(ge=0), WHOLE]
Positive = Annotated[int, Field(ge=1), WHOLE]

# Names of the two forms a value may have; an error is then about the form that was sent.
TEXT, LIST, NUMBER = "[text]", "[list]", "[number]"


def _form(value: Any) -> str | None:
    return TEXT if isinstance(value, str) else LIST if isinstance(value, list) else None


def text_or(kinds: str) -> Discriminator:
    """Tells texts from lists; `kinds` says what lists are expected."""
    return Discriminator(_form, "two_forms", f"Expected text or {kinds}")


class StrictForm(Form):
    """A body of which every field is known, and of its type."""

    model_config = ConfigDict(strict=True, extra="forbid")


class LenientForm(StrictForm):
    """A body in which null says that a field is not used, as if it were left out.

    So it is of fields that nobody knows: clients print what they have no value for, also fields
    that OpenAI's API will have.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        needed = {name for name, one in cls.model_fields.items() if one.is_required()}
        return {name: one for name, one in given.items() if one is not None or name in needed}

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Lets null be every field that may be left out."""
        found = handler(core_schema)
        schema = handler.resolve_ref_schema(found)
        for name, one in schema["properties"].items():
            if name not in schema.get("required", ()) and not _takes_null(one):
                about = {
                    key: one.pop(key) for key in ("title", "description", "default") & one.keys()
                }
                schema["properties"][name] = {"anyOf": [one, {"type": "null"}]} | about
        return found


def _takes_null(schema: JsonSchemaValue) -> bool:
    kinds = [one.get("type") for one in schema.get("anyOf", [schema])]
    # Without any of these words it takes everything.
    anything = not schema.keys() & {"type", "anyOf", "oneOf", "$ref", "const", "enum"}
    return anything or "null" in kinds
