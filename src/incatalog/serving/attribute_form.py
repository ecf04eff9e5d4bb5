"""An attribute of an item, as answers and catalogs tell it."""

from __future__ import annotations

from incatalog.web.bodies import Form


class Attribute(Form):
    """What is known of an item, with a name for people and the value in words."""

    name: str
    label: str
    value: bool | int | float | str | list[str]
    shown: str
