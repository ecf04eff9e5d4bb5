from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import math
import re
import typing
from pathlib import Path

import pytest

import incatalog
from incatalog.cli import COMMANDS
from incatalog.codes.settings import QuantizeSettings
from incatalog.config import Bounds, Settings
from incatalog.errors import ConfigError
from incatalog.flags import field_help, parse
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.training.settings import SftSettings

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


def test_every_settings_class_belongs_to_a_command() -> None:
    used = [command.settings for command in COMMANDS.values()]
    assert len(set(used)) == len(used)
    # What several commands have in common stands in a class that theirs extend.
    assert set(SETTINGS) <= {base for settings in used for base in settings.__mro__}


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


def test_flags_are_those_of_the_first_version() -> None:
    """`flags.json` lists each flag with its type, its default and whether it is required."""
    listed = json.loads(Path(__file__).with_name("flags.json").read_text(encoding="utf-8"))
    assert {name: _listed(command.settings) for name, command in COMMANDS.items()} == listed


def _listed(settings: type) -> dict[str, list[object]]:
    types = typing.get_type_hints(settings)
    listed: dict[str, list[object]] = {}
    for field in dataclasses.fields(settings):
        declared = types[field.name]
        literal = typing.get_origin(declared) is typing.Literal
        plain = isinstance(declared, type) and typing.get_origin(declared) is None
        words = "|".join(typing.get_args(declared)) if literal else str(declared)
        kind = declared.__name__ if plain else words.replace("pathlib.", "")
        required = field.default is dataclasses.MISSING
        default = None if required else json.loads(json.dumps(field.default, default=str))
        listed["--" + field.name.replace("_", "-")] = [kind, default, required]
    return listed


@pytest.mark.parametrize(
    ("settings", "field", "value", "expected"),
    [
        (TeacherFitSettings, "epochs", 0, "--epochs 0: expected at least 1"),
        (TeacherFitSettings, "dropout", 1.0, "--dropout 1.0: expected at least 0 and less than 1"),
        (TeacherFitSettings, "dropout", math.nan, "--dropout nan: expected at least 0 and less"),
        (TeacherFitSettings, "learning_rate", 0.0, "--learning-rate 0.0: expected more than 0"),
        (QuantizeSettings, "codebooks", (4, 0), "--codebooks 0: expected at least 1"),
        (SftSettings, "warmup_ratio", 1.5, "--warmup-ratio 1.5: expected 0 to 1"),
    ],
)
def test_bounds_are_held_when_settings_are_made(
    settings: type, field: str, value: object, expected: str
) -> None:
    required = {
        one.name: "x" for one in dataclasses.fields(settings) if one.default is dataclasses.MISSING
    }
    with pytest.raises(ConfigError, match=re.escape(expected)):
        settings(**{**required, field: value})


@pytest.mark.parametrize(
    "name", [n for n, c in COMMANDS.items() if "seed" in field_help(c.settings)]
)
def test_a_seed_that_generators_refuse_is_refused_by_name(name: str) -> None:
    settings = COMMANDS[name].settings
    types = typing.get_type_hints(settings)
    required = {
        one.name: MADE[types[one.name]]
        for one in dataclasses.fields(settings)
        if one.default is dataclasses.MISSING
    }
    with pytest.raises(ConfigError, match="--seed -1: expected at least 0"):
        settings(**required, seed=-1)
