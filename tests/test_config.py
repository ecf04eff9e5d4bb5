from __future__ import annotations

import dataclasses
import importlib
import inspect
import typing
from pathlib import Path

import pytest

import incatalog
from incatalog.cli import COMMANDS
from incatalog.config import Bounds, Settings
from incatalog.flags import field_help, parse

_HOMES = sorted(
    ".".join(path.relative_to(Path(incatalog.__file__).parents[1]).with_suffix("").parts)
    for path in Path(incatalog.__file__).parent.rglob("*.py")
    if path.name in {"settings.py", "config.py"}
)
SETTINGS = [
    member
    for home in map(importlib.import_module, _HOMES)
    for _, member in inspect.getmembers(home, inspect.isclass)
    if member.__module__ == home.__name__ and member not in {Bounds, Settings}
]
VALUES = {str: "word", Path: "some/where", tuple[str, ...]: "word"}
MADE = {str: "word", Path: Path("some/where"), tuple[str, ...]: ("word",)}


@pytest.mark.parametrize("settings", SETTINGS)
def test_every_field_has_help_and_no_help_is_left_over(settings: type) -> None:
    described = field_help(settings)
    assert list(described) == [field.name for field in dataclasses.fields(settings)]
    assert all(text.endswith(".") for text in described.values())


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_are_frozen_dataclasses(settings: type) -> None:
    assert dataclasses.is_dataclass(settings)
    required = {
        field.name: "x"
        for field in dataclasses.fields(settings)
        if field.default is dataclasses.MISSING
    }
    made = settings(**required)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(made, dataclasses.fields(settings)[0].name, "y")


def test_every_settings_class_belongs_to_one_command() -> None:
    nested = [
        hint
        for settings in SETTINGS
        for hint in typing.get_type_hints(settings).values()
        if dataclasses.is_dataclass(hint)
    ]
    used = [*(command.settings for command in COMMANDS.values()), *nested]
    shared = {base for settings in SETTINGS for base in settings.__mro__[1:]}
    own = [settings for settings in SETTINGS if settings not in shared]
    assert sorted(map(repr, used)) == sorted(map(repr, own))


@pytest.mark.parametrize(("name", "command"), COMMANDS.items())
def test_defaults_survive_the_command_line(name: str, command: object) -> None:
    settings = COMMANDS[name].settings
    types = typing.get_type_hints(settings)
    required = [f for f in dataclasses.fields(settings) if f.default is dataclasses.MISSING]
    flags = [
        part
        for field in required
        for part in ("--" + field.name.replace("_", "-"), VALUES[types[field.name]])
    ]
    parsed = parse(name, settings, flags)
    assert parsed == settings(**{f.name: MADE[types[f.name]] for f in required})


@pytest.mark.parametrize("settings", SETTINGS)
def test_defaults_are_of_their_declared_type(settings: type) -> None:
    types = typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        if field.default is dataclasses.MISSING:
            continue
        declared = types[field.name]
        if dataclasses.is_dataclass(declared):
            assert field.default == declared()
        elif typing.get_origin(declared) is tuple:
            assert all(type(one) is typing.get_args(declared)[0] for one in field.default)
        elif choices := typing.get_args(declared):
            assert field.default in choices or (field.default is None and type(None) in choices)
        else:
            # `type` rather than isinstance: True is no default for a whole number, 1 none for 1.0.
            assert type(field.default) is declared or isinstance(field.default, Path)
