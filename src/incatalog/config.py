"""A setting: a field of a frozen dataclass, its bounds in its type, its help below it.

Each stage has its own in its `settings.py`; flags, ``--help`` and YAML files are made from them.
Nothing heavy is imported here: ``incatalog --help`` reads this module.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from incatalog.errors import ConfigError

Method = Literal["cgen", "token", "ret"]
ItemForm = Literal["titles", "codes"]
HistoryForm = Literal["title", "span"]
AnswerForm = Literal["span", "title"]
ListForm = Literal["numbered", "plain", "indented"]
Decode = Literal["beam", "list", "greedy"]
ListFormat = Literal["auto", "table", "json", "csv"]
EmptyHistory = Literal["popularity", "nothing"]
Quote = Literal["double", "none"]
# What two ids may differ in and be one.
IdForm = Literal["exact", "trimmed", "folded", "number"]
# How an item is written into its span: found by exact search, or token by token.
ItemDecode = Literal["search", "token"]
EvaluationDecode = Literal["beam", "list", "greedy", "unconstrained"]
ScopeType = Literal["branching", "open", "every", "off"]
LossType = Literal["focal-items", "focal", "plain"]
# From the hidden state to the query of a retrieval: one layer, or two with GELU between.
Projection = Literal["linear", "mlp"]
LoraInit = Literal["kaiming", "orthogonal"]
ParaphrasePlace = Literal["history", "targets", "both"]
# Headings of `--help`, each with the names of the settings below it, between spaces.
Headings = Mapping[str, str]
# What makes a folder that of a trained model; the second since before the package was renamed.
SPEC_FILES = ("incatalog.json", "reclm.json")
RewardName = Literal["rule", "ndcg", "ranking-aware", "teacher", "diversity", "format"]


class Bounds(typing.NamedTuple):
    """Numbers a setting may have; an open end leaves out the number itself."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def hold(self, value: float) -> bool:
        """Whether a number is within them; not a number never is."""
        above = self.low < value if self.open_low else self.low <= value
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        """As the end of "expected ..."."""
        low = f"{'more than' if self.open_low else 'at least'} {self.low:g}"
        if self.high == math.inf:
            return low
        if not self.open_low and not self.open_high:
            return f"{self.low:.10g} to {self.high:.10g}"
        return f"{low} and {'less than' if self.open_high else 'at most'} {self.high:g}"


Positive = Annotated[int, Bounds(1)]
AtLeastTwo = Annotated[int, Bounds(2)]
NonNegative = Annotated[int, Bounds(0)]
Port = Annotated[int, Bounds(0, 65_535)]
MostSamples = Annotated[int, Bounds(1, 10_000_000)]
Temperature = Annotated[float, Bounds(0.001, 1000)]
Likeness = Annotated[float, Bounds(0, 100, open_low=True)]
Resamples = Annotated[int, Bounds(1, 100_000)]
PositiveFloat = Annotated[float, Bounds(0, open_low=True)]
NonNegativeFloat = Annotated[float, Bounds(0)]
Fraction = Annotated[float, Bounds(0, 1)]
PositiveFraction = Annotated[float, Bounds(0, 1, open_low=True)]
FractionBelowOne = Annotated[float, Bounds(0, 1, open_high=True)]


@dataclass(frozen=True)
class Settings:
    """Settings of one command, checked when they are made, from flags, a file or Python alike.

    ``headings`` says below which heading of ``--help`` a setting stands. Those of a class that is
    extended come first there, and the order of the headings is that of the class itself.
    """

    headings: ClassVar[Headings] = {}

    def __post_init__(self) -> None:
        """Holds every number to the bounds of its type.

        Raises:
            ConfigError: Names the flag.
        """
        kind: Any = type(self)
        for name, bounds in _bounds(kind).items():
            value = getattr(self, name)
            if value is None:
                continue
            for number in value if isinstance(value, tuple) else (value,):
                if not bounds.hold(number):
                    flag = name.replace("_", "-")
                    raise ConfigError(f"--{flag} {number}: expected {bounds}")

    @classmethod
    def implied(cls, given: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Defaults that other settings bring with them where flags or a file give them; none here.

        Args:
            given: All settings with what flags, file and defaults say, by name.
        """
        return {}

    def named(self, *names: str) -> dict[str, Any]:
        """Some of the settings, for what takes them under the same names."""
        return {name: getattr(self, name) for name in names}

    def refuse_first(self, problems: Iterable[tuple[bool, str, str]]) -> None:
        """Raises the first problem there is, told of a setting with its value, or of flags alone.

        Raises:
            ConfigError: There is one.
        """
        for found, name, text in problems:
            if found:
                flag = name.replace("_", "-")
                told = f"--{flag} {getattr(self, name)}" if hasattr(self, name) else name
                raise ConfigError(f"{told}: {text}")


def reward_problems(
    names: Sequence[str], weights: Sequence[float], known: Collection[str]
) -> list[tuple[bool, str, str]]:
    """What can be wrong with the rewards of a training, for `Settings.refuse_first`."""
    unknown = [name for name in names if name not in known]
    some = f"expected some of {', '.join(known)}"
    return [
        (not names, "--reward", f"names no reward; {some}"),
        (bool(unknown), f"--reward {' '.join(unknown)}", f"no such reward; {some}"),
        (len(set(names)) < len(names),
         f"--reward {' '.join(names)}", "names one twice; weigh it by --reward-weights"),
        (bool(weights) and len(weights) != len(names),
         "--reward-weights", f"{len(weights)} of them for {len(names)} rewards"),
    ]  # fmt: skip


def control_token_problems(soi: str, eoi: str) -> list[tuple[bool, str, str]]:
    """What can be wrong with the names of the control tokens, for `Settings.refuse_first`."""
    flags = (("--soi-token", soi), ("--eoi-token", eoi))
    return [
        *((not name or name != name.strip(), f"{flag} {name!r}",
           "expected the text of a token, without white space around it") for flag, name in flags),
        (soi == eoi, f"--eoi-token {eoi}", "is that of --soi-token too; expected two tokens"),
    ]  # fmt: skip


@functools.cache
def _bounds(settings: Any) -> dict[str, Bounds]:
    """Bounds of the fields that have some."""
    hints = typing.get_type_hints(settings, include_extras=True)
    found = {}
    for field in dataclasses.fields(settings):
        hint = hints[field.name]
        for one in (hint, *typing.get_args(hint)):
            for extra in getattr(one, "__metadata__", ()):
                if isinstance(extra, Bounds):
                    found[field.name] = extra
    return found
