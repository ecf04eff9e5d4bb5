"""Values of OpenAI's fields that say that the field is not used, and refusals of all others."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NoReturn

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from incatalog.serving.body_values import WHOLE

_LONGEST = 60
UNSUPPORTED = "unsupported_value"  # the code of such a refusal, which is OpenAI's word for it


def refuse(why: str) -> NoReturn:
    """Refuses a value that has its form and that this service cannot answer."""
    raise PydanticCustomError(UNSUPPORTED, "{why}", {"why": why})


def _shown(value: Any) -> str:
    """A value as a message shows it: not more than its beginning."""
    return repr(value[:_LONGEST]) if isinstance(value, str) else "another form"


def _without_calls(given: list[Any]) -> list[Any]:
    if given:
        found = f"found {len(given)}; expected none, as answers are text and items"
        refuse(f"{found}: leave the field out, and call tools in your own code")
    return given


NoCalls = Annotated[
    list[Any], AfterValidator(_without_calls), WithJsonSchema({"type": "array", "maxItems": 0})
]

Definitions = list[dict[str, Any]]
"""Tools that could be called; an answer needs none, so that they are read and not used."""


def _callable_or_not(given: Any) -> Any:
    """Lets a choice pass that an answer without a call fulfils."""
    choice, named = given, ""
    if isinstance(given, dict):
        choice = given.get("type")
        if choice == "allowed_tools":
            # Chat completions have one object more around it than responses have.
            inner = given.get("allowed_tools", given)
            choice = inner.get("mode") if isinstance(inner, dict) else None
        else:
            function = given.get("function", given)
            found = function.get("name") if isinstance(function, dict) else None
            named = f" {_shown(found)}" if isinstance(found, str) else ""
            choice = choice or "function"
    if isinstance(choice, str) and choice in ("none", "auto"):
        return given
    why = f"found {_shown(choice)}{named}; expected 'none' or 'auto', as no tool is called here"
    refuse(f"{why}: answers are text and items")


_ANSWERABLE = {"anyOf": [{"enum": ["none", "auto"]}, {"type": "object"}]}
ToolChoice = Annotated[Any, AfterValidator(_callable_or_not), WithJsonSchema(_ANSWERABLE)]


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    kind = given.get("type")
    if kind != "text":
        refuse(f"found {_shown(kind)}; expected 'text', as answers are text and items")
    return given


_PLAIN = {"type": "object", "properties": {"type": {"const": "text"}}, "required": ["type"]}
PlainText = Annotated[dict[str, Any], AfterValidator(_plain), WithJsonSchema(_PLAIN)]


def text_kinds(*known: str) -> tuple[AfterValidator, Any]:
    """Lets parts of a message pass that are text, by their types."""
    expected = " or ".join(map(repr, known))

    def checked(given: str) -> str:
        if given not in known:
            refuse(f"found {_shown(given)}; expected {expected}, as only text is understood")
        return given

    return AfterValidator(checked), Field(json_schema_extra={"enum": list(known)})


Zero = Annotated[float, Field(ge=0, le=0)]
NoMore = Annotated[Literal[0], WHOLE]
Once = Annotated[Literal[1], WHOLE]
NoBias = Annotated[dict[str, Any], Field(max_length=0)]
