"""Bodies of errors."""

from __future__ import annotations

from incatalog.web.bodies import Form


class ErrorBody(Form):
    """What went wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Form):
    """What is sent in place of an answer."""

    error: ErrorBody
