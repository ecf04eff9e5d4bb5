"""The version of a catalog that a client has seen, and that an answer may not fall behind."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from incatalog.serving.body_values import WHOLE
from incatalog.web.bodies import Form

# What a database keeps as a whole number.
NEWEST = 2**63 - 1


class SeenVersion(Form):
    """The version that an answer is to be written with, or a later one."""

    model_config = ConfigDict(strict=True, extra="forbid")

    at_least: Annotated[int, Field(ge=0, le=NEWEST), WHOLE]
    """As a change of the catalog, or an earlier answer, has named it."""
