"""How a report calls and paints the methods: one label and one colour each, in every figure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from incatalog.evaluation.finished import FinishedRun

Family = Literal["base", "teacher", "language"]
Shape = Literal["triangle", "square", "disc", "ring", "diamond", "cross"]


@dataclass(frozen=True)
class Look:
    """What a method looks like.

    Attributes:
        label: Its name for readers.
        family: The base line, a recommender without words, or a language model.
        light: Its colour on a light ground, which also stands for it in a figure's source.
        dark: Its colour on a dark ground.
    """

    label: str
    family: Family
    light: str
    dark: str


# Any two differ for readers who see less of red, green or blue too, and stand out from the ground.
LOOKS: Mapping[str, Look] = {
    "popularity": Look("popularity", "base", "#696964", "#a5aaa3"),
    "sasrec": Look("SASRec", "teacher", "#8c2d04", "#d9480f"),
    "blend": Look("blend", "teacher", "#1d4ed8", "#4a86f7"),
    "cgen": Look("cgen", "language", "#09a557", "#20e38a"),
    "token": Look("token", "language", "#e049c0", "#d06fc8"),
    "ret": Look("ret", "language", "#ad7f00", "#f3c620"),
    "knn": Look("kNN", "teacher", "#113445", "#c0e8fc"),
    "ease": Look("EASE", "teacher", "#38301e", "#8b6b4b"),
    "words": Look("words", "teacher", "#9b0883", "#cb0b8b"),
    "gru4rec": Look("GRU4Rec", "teacher", "#52089b", "#8147f5"),
    "untrained": Look("untrained", "language", "#396a39", "#2bab40"),
    "plain titles": Look("plain titles", "language", "#1685f3", "#47bbf5"),
}
GROUNDS = ("#ffffff", "#1d201e")

_UNKNOWN = ("#5d5f5a", "#b5bab4")  # A method that is in no map, such as a teacher made elsewhere.
# Light and dark of every method.
COLOURS = (*((one.light, one.dark) for one in LOOKS.values()), _UNKNOWN)


def look_of(run: FinishedRun) -> Look:
    """The look of a run's method."""
    if run.method in LOOKS:
        return LOOKS[run.method]
    family: Family = "language" if run.is_language_model else "teacher"
    return Look(run.method, family, *_UNKNOWN)


def label_of(run: FinishedRun) -> str:
    """The name of a run for readers."""
    if run.name == run.method or run.name.startswith(f"{run.method} ("):
        return run.name.replace(run.method, look_of(run).label, 1)
    return run.name


def shape_of(run: FinishedRun) -> Shape:
    """The mark of a run: methods of one colour differ by how they were asked."""
    family = look_of(run).family
    if family != "language":
        return "triangle" if family == "base" else "square"
    if run.guided:
        return "diamond"
    if run.is_free:
        return "cross"
    return "ring" if run.form else "disc"


def variable(colour: str) -> str:
    """The CSS variable that holds a method's colour, by its colour on a light ground."""
    return f"--method-{colour.removeprefix('#')}"


def colour_rules() -> tuple[str, str]:
    """The CSS declarations of all methods' colours, on a light ground and on a dark one."""
    declared = [[f"{variable(pair[0])}: {colour};" for colour in pair] for pair in COLOURS]
    light, dark = (" ".join(rules) for rules in zip(*declared, strict=True))
    return light, dark
