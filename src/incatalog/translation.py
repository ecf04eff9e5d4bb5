"""What stands here for the flags of published systems: read when a flag is not known, never before.

The table is ``translation.toml`` beside this file.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

PAGES = {"RecLM-uni": "docs/from-reclm-uni.md", "MiniOneRec": "docs/from-minionerec.md"}
_TABLE = Path(__file__).with_name("translation.toml")
_BETWEEN = " | "


@dataclass(frozen=True)
class Translation:
    """A flag of a published script.

    Attributes:
        flag: The flag, as it is written there.
        here: Commands with a flag each that stand for it; empty if nothing does.
        note: What differs, or why there is nothing.
    """

    flag: str
    here: tuple[str, ...]
    note: str

    def told(self, command: str) -> str:
        """What to say of it to someone who gave it to `command`."""
        own = [part.removeprefix(f"{command} ") for part in self.here if _is_of(part, command)]
        here = ", ".join(own or [f"`incatalog {part}`" for part in self.here])
        if not here:
            return f"nothing here: {self.note}"
        return f"here: {here}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class PublishedScript:
    """Flags of scripts that go together.

    Attributes:
        system: Name of the published system.
        names: The scripts, as their repository has them.
        commands: Commands of ours that do what they do.
        flags: Their flags.
    """

    system: str
    names: tuple[str, ...]
    commands: tuple[str, ...]
    flags: tuple[Translation, ...]


@functools.cache
def published_scripts() -> tuple[PublishedScript, ...]:
    """The whole table."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return tuple(
        PublishedScript(
            script["system"],
            tuple(script["names"]),
            tuple(script["commands"]),
            tuple(
                Translation(flag, tuple(here.split(_BETWEEN)) if here else (), note)
                for flag, (here, note) in script["flags"].items()
            ),
        )
        for script in table["script"]
    )


def translated(command: str, flags: Sequence[str]) -> str:
    """One line about the first of some flags that a published system has; empty if none is.

    Args:
        command: The command that the flags were given to.
        flags: Flags that it does not have.
    """
    found = {flag: known for flag in flags if (known := _known(command, flag))}
    if not found:
        return ""
    flag, (script, translation) = next(iter(found.items()))
    others = list(found)[1:]
    more = f"; {', '.join(others)} likewise" if others else ""
    page = PAGES[script.system]
    return f"{flag} is {script.system}'s; {translation.told(command)}{more}; see {page}"


def _known(command: str, flag: str) -> tuple[PublishedScript, Translation] | None:
    """A flag of that name, best one of a script that does what the command does.

    A plain word, which may be a slip of ours, counts only if such a script has it.
    """
    every = [(script, one) for script in published_scripts() for one in script.flags]
    same = [pair for pair in every if pair[1].flag == flag]
    near = [
        *(pair for pair in same if any(_is_of(part, command) for part in pair[1].here)),
        *(pair for pair in same if command in pair[0].commands),
    ]
    if not near and flag.islower() and "_" not in flag:
        return None
    return next(iter(near + same), None)


def _is_of(part: str, command: str) -> bool:
    return part.startswith(f"{command} --")
