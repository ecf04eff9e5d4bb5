from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from incatalog.config import Method
from incatalog.evaluation.looks import (
    COLOURS,
    GROUNDS,
    LOOKS,
    colour_rules,
    label_of,
    look_of,
    shape_of,
)
from incatalog.teacher.settings import TeacherKind
from scored import scored_run

# How colours look to eyes without one kind of cones (Machado, Oliveira and Fernandes, 2009).
EYES = {
    "all": np.eye(3),
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                 [-0.011820, 0.042940, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(light: np.ndarray) -> np.ndarray:
    """CIE L*a*b*, in which distances are about those that people see."""
    ratio = np.clip(light, 0, 1) @ TO_XYZ.T / TO_XYZ.sum(axis=1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, two: str) -> float:
    """The ratio of WCAG 2."""
    dark, bright = sorted(float(linear(colour) @ TO_XYZ[1]) for colour in (one, two))
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("ground", range(2), ids=["light", "dark"])
def test_no_two_methods_look_alike_to_anybody(ground: int) -> None:
    colours = [(look.light, look.dark)[ground] for look in LOOKS.values()]
    for matrix in map(np.array, EYES.values()):
        seen = [lab(linear(colour) @ matrix.T) for colour in colours]
        apart = [float(np.linalg.norm(one - two)) for one, two in combinations(seen, 2)]
        assert min(apart) > 15
    assert min(contrast(pair[ground], GROUNDS[ground]) for pair in COLOURS) >= 3


def test_every_method_has_a_look_and_a_colour_of_its_own() -> None:
    assert {*get_args(TeacherKind), *get_args(Method), "untrained", "plain titles"} == set(LOOKS)
    light, dark = colour_rules()
    for one, other in COLOURS:
        assert f": {one};" in light
        assert f": {other};" in dark
    assert len({light for light, _ in COLOURS}) == len(COLOURS)


def test_marks_say_how_a_method_was_asked(tmp_path: Path) -> None:
    for name, method, summary, label, shape in (
        ("a", "popularity", {}, "popularity", "triangle"),
        ("b", "sasrec", {}, "SASRec", "square"),
        ("c", "cgen", {"decode": "beam"}, "cgen", "disc"),
        ("d", "cgen", {"decode": "list"}, "cgen (list)", "ring"),
        ("e", "cgen, guided", {"decode": "list", "guide_weight": 0.5}, "cgen (guided list)",
         "diamond"),
        ("f", "untrained", {"decode": "free text"}, "untrained", "cross"),
        ("g", "made elsewhere", {}, "made elsewhere", "square"),
    ):  # fmt: skip
        run = scored_run(tmp_path / name, method, [1], **summary)
        assert (label_of(run), shape_of(run)) == (label, shape)
        known = LOOKS.get(method.removesuffix(", guided"))
        assert known in (None, look_of(run))
