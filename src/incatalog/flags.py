"""Settings from flags and YAML files: each field of a dataclass is a flag.

Imported before anything runs, so nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentParser, DefaultHelpFormatter

from incatalog.errors import ConfigError
from incatalog.recipe_files import with_recipes

QUIET = "--quiet"
_EXAMPLES = "examples:"
_METAVARS = {
    int: "N",
    float: "X",
    float | None: "X",
    str: "TEXT",
    str | None: "TEXT",
    Path: "PATH",
    Path | None: "PATH",
}


def parse(name: str, settings: type, flags: Sequence[str]) -> Any:
    """The settings of a command, from the flags behind its name.

    Raises:
        ConfigError: A flag, a value or the YAML file cannot be used; names the flag.
    """
    parser, words = build_parser(name, settings), _gathered(settings, with_recipes(list(flags)))
    try:
        parser.set_defaults(_implied(settings, parser, words))
        values = parser.parse_args(words)
    except argparse.ArgumentError as error:
        raise ConfigError(_explain(str(error), name, settings, flags)) from error
    given = {field.name: values[field.name] for field in dataclasses.fields(settings)}
    return settings(**{k: tuple(v) if isinstance(v, list) else v for k, v in given.items()})


def _implied(settings: Any, parser: ArgumentParser, words: Sequence[str]) -> dict[str, Any]:
    """The defaults that a command line brings with it, beside those that stand in the settings."""
    given = parser.parse_args([word for word in words if not word.startswith("--print-config")])
    found: dict[str, Any] = settings.implied(vars(given))
    return found


def build_parser(name: str, settings: type) -> ArgumentParser:
    """Makes the parser of a command from its settings.

    Every field is a flag (``exclude_seen`` is ``--exclude-seen`` and ``--no-exclude-seen``) and a
    key of the YAML file named by ``--config``; the text below it is its help.
    """
    parser = _Parser(
        prog=f"incatalog {name}",
        description=summary(settings),
        epilog=_epilog(settings),
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=_HelpFormatter,
        print_config="--print-config",
        usage=_usage(name, settings),
    )
    parser.add_argument(
        "--config",
        action="config",
        metavar="FILE",
        help="YAML file with any of these settings, or recipes:NAME for one of `incatalog "
        "recipes`; flags behind it win over it.",
    )
    parser.add_argument(
        QUIET, action=_Quiet, help="Say nothing at the end of what was written and what is next."
    )
    for action in parser._actions:
        if action.dest == "print_config":
            action.help, action.metavar = "Print these settings as YAML, and exit.", ""
    group_of: dict[str, Any] = {}
    for heading, members in grouped(settings).items():
        group_of |= dict.fromkeys(members, parser.add_argument_group(heading))
    for setting in _flags_of(settings):
        text = setting.help
        if setting.required:
            text += " (required)"
        elif setting.default not in ("", None):
            text += f" (default: {_as_typed(setting.default)})"
        options: dict[str, Any] = {"help": text, "required": setting.required}
        if not setting.required:
            options["default"] = setting.default
        if setting.type is bool:
            options["action"] = ActionYesNo(yes_prefix="", no_prefix="no-")
        elif (member := _member(setting.type)) is not None:
            options |= {"type": member, "nargs": "+", "metavar": _METAVARS[member]}
            if not setting.required:
                options["default"] = list(setting.default)
        else:
            options["type"] = setting.type
            if setting.type in _METAVARS:
                options["metavar"] = _METAVARS[setting.type]
        group_of.get(setting.name, parser).add_argument(_flag(setting.name), **options)
    return parser


def grouped(settings: type) -> dict[str, list[str]]:
    """The headings of a command's help, each with the settings that stand below it."""
    found: dict[str, list[str]] = {}
    for one in settings.__mro__:
        for heading, members in vars(one).get("headings", {}).items():
            found.setdefault(heading, [])[:0] = members.split()
    return found


def summary(settings: type) -> str:
    """First line of a settings class's docstring, which is the help of its command."""
    return docstring_parser.parse(settings.__doc__ or "").short_description or ""


def _usage(name: str, settings: type) -> str:
    """What a command cannot do without; the rest stands below."""
    needed = (s for s in _flags_of(settings) if s.required)
    told = [f"{_flag(s.name)} {_METAVARS.get(_member(s.type) or s.type, 'TEXT')}" for s in needed]
    return " ".join(["incatalog", name, "[--config FILE]", *told, "[--flag value ...]"])


def examples(settings: type) -> list[str]:
    """The commands below "Example:" in a settings class's docstring."""
    found = docstring_parser.parse(settings.__doc__ or "").examples
    lines = [line for example in found for line in (example.description or "").splitlines()]
    return [line.strip() for line in lines if line.strip()]


def _epilog(settings: type) -> str | None:
    """The end of a command's help: its examples."""
    lines = examples(settings)
    return "\n".join([_EXAMPLES, *(f"  {line}" for line in lines)]) if lines else None


def field_help(settings: type) -> dict[str, str]:
    """Help text of each field: the text below it in the class or a class it extends."""
    found = {
        entry.arg_name: " ".join((entry.description or "").split())
        for one in reversed(settings.__mro__)
        if dataclasses.is_dataclass(one)
        for entry in docstring_parser.parse_from_object(one).params
    }
    return {field.name: found.get(field.name, "") for field in dataclasses.fields(settings)}


def near(word: str, known: Iterable[str]) -> str:
    """What a mistyped word may have meant, as the end of a message; empty if nothing is alike."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f", did you mean {close[0]}?" if close else ""


def _gathered(settings: type, flags: Sequence[str]) -> list[str]:
    """The command line with the values of a flag of several, given more than once, in one place."""
    several = {_flag(s.name) for s in _flags_of(settings) if _member(s.type) is not None}
    named = [flag.partition("=")[0] for flag in flags if flag.partition("=")[0] in several]
    if len(set(named)) == len(named):
        # Flags and the YAML file win over what stands in front of them.
        return list(flags)
    gathered: dict[str, list[str]] = {}
    others: list[str] = []
    into = others
    for flag in flags:
        name, equals, value = flag.partition("=")
        if name in several:
            into = gathered.setdefault(name, [])
            into += [value] if equals else []
        elif flag.startswith("--"):
            into = others
            into.append(flag)
        else:
            into.append(flag)
    return others + [part for name, values in gathered.items() for part in (name, *values)]


class _Parser(ArgumentParser):  # type: ignore[misc]
    """Takes one value where a YAML file may give several, and a bare ``off`` as the word."""

    def _check_value_key(self, action: argparse.Action, value: Any, *args: Any, **kw: Any) -> Any:
        if value is False and "off" in typing.get_args(getattr(action, "_typehint", None)):
            # To YAML it means false.
            value = "off"
        if action.nargs == "+" and not isinstance(value, list):
            value = [] if value is None else [value]
        return super()._check_value_key(action, value, *args, **kw)


class _Quiet(argparse.Action):
    """A flag of every command that is no setting: `cli.py` looks for it."""

    def __init__(self, option_strings: Sequence[str], dest: str = "", **options: Any) -> None:  # noqa: ARG002
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=options.get("help"))
        self.default = argparse.SUPPRESS

    def __call__(self, *_: Any) -> None:
        """Leaves it to the command line."""


class _HelpFormatter(DefaultHelpFormatter):  # type: ignore[misc]
    """Shows the help of a field as written; types and defaults are already in it."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # A command line is copied from here: it is not broken.
        if text.startswith(_EXAMPLES):
            return text
        return str(super()._fill_text(text, width, indent))

    def _expand_help(self, action: argparse.Action) -> str:
        # It holds no templates; a percent sign in it is one.
        return action.help or ""


class _Setting(NamedTuple):
    """One flag."""

    name: str
    type: Any
    help: str
    required: bool
    default: Any


def _flags_of(settings: type) -> Iterator[_Setting]:
    help_of, types = field_help(settings), typing.get_type_hints(settings)
    for field in dataclasses.fields(settings):
        required = field.default is dataclasses.MISSING
        yield _Setting(field.name, types[field.name], help_of[field.name], required, field.default)


def _explain(message: str, name: str, settings: type, flags: Sequence[str]) -> str:
    """Rewrites a message of the argument parser into one line that names the flag."""
    types = {setting.name: setting.type for setting in _flags_of(settings)}
    config_flag = _config_flag(flags)
    see = f"see incatalog {name} --help"
    if published := _published(name, types, flags):
        return published
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        given = found[1].split("=")[0]
        if not given.startswith("-"):
            return f"{given}: unexpected argument, values stand behind a flag; {see}"
        return f"{given}: no such flag{near(given, [*map(_flag, types), '--config'])}; {see}"
    if found := re.match(r"Option '(.+)' is not accepted", message):
        return f"{config_flag}: no setting {found[1]!r}{near(found[1], types)}; {see}"
    if found := re.match(r"the following arguments are required: (.+)", message):
        missing = ", ".join(_flag(key) for key in found[1].split(", "))
        return f"{missing}: required, but not given; {see}"
    if found := re.match(r"(?s)Parser key \"config\":\s*(.+)", message):
        return f"{config_flag}: {_one_line(found[1])}"
    if found := re.match(r"(?s)(?:Problems parsing|Unexpected) config:(.+)", message):
        return f"{config_flag}: not a YAML mapping of settings: {_one_line(found[1])}"
    pattern = r"(?s)Parser key \"([\w.]+)\"(?: element \d+)?:.*Got value: (.*)"
    if found := re.match(pattern, message):
        annotation = types.get(found[1])
        # Flags are always text, so only an unquoted value in a YAML file can fail to be that.
        text = annotation in (str, str | None) or _member(annotation) is str
        hint = "; in YAML, put it in quotes" if text else ""
        got = found[2].strip()
        return f"{_flag(found[1])}: expected {_type_name(annotation)}, got {got!r}{hint}"
    if found := re.match(r"(?s)Parser key \"([\w.]+)\":\s*(.+)", message):
        return f"{_flag(found[1])}: {_one_line(found[2])}; {see}"
    if found := re.match(r"Value not boolean: (.*)\.$", message):
        return f"{config_flag}: expected true or false for a switch, got {found[1]!r}"
    if found := re.match(r"argument (--[\w.-]+)\S*: (.+)", message):
        return f"{found[1]}: {found[2]}; {see}"
    return f"{_one_line(message)}; {see}"


def _published(name: str, types: Iterable[str], flags: Sequence[str]) -> str:
    """What to say of flags that are those of a published system; empty if none is."""
    known = {*map(_flag, types), "--config"}
    given = [flag.partition("=")[0] for flag in flags if flag.startswith("--")]
    foreign = [flag for flag in given if flag.replace("--no-", "--", 1) not in known]
    if not foreign:
        return ""
    # A table of hundreds of flags, which nobody else needs.
    from incatalog.translation import translated

    return translated(name, foreign)


def _config_flag(flags: Sequence[str]) -> str:
    for flag, value in zip(flags, [*flags[1:], ""], strict=True):
        if flag == "--config":
            return f"--config {value}"
        if flag.startswith("--config="):
            return flag.replace("=", " ", 1)
    return "--config"


def _member(annotation: Any) -> Any:
    """Type of the values of a `tuple[type, ...]`, which is a flag of several; else None."""
    return typing.get_args(annotation)[0] if typing.get_origin(annotation) is tuple else None


def _as_typed(default: Any) -> str:
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def _type_name(annotation: Any) -> str:
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        float | None: "a number",
        bool: "true or false",
        str: "text",
        str | None: "text",
    }
    if (member := _member(annotation)) is not None:
        return f"{names[member].removeprefix('a ')}s"
    if choices := [choice for choice in typing.get_args(annotation) if isinstance(choice, str)]:
        return "one of " + ", ".join(choices)
    return names.get(annotation, "a path")


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _one_line(text: str) -> str:
    return " ".join(text.split())
