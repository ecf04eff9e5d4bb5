"""The command that made a run, from its manifest."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from typing import Any

from reclm import config

_SETTINGS: dict[str, type] = {
    "evaluate recommend": config.EvaluateRecommendConfig,
    "evaluate chat": config.EvaluateChatConfig,
    "evaluate compare": config.EvaluateCompareConfig,
    "train sft": config.SftConfig,
    "teacher fit": config.TeacherFitConfig,
}


def command(manifest: Mapping[str, Any]) -> str:
    """The command line of a run: every setting that is not the default, quoted for a shell."""
    stage, settings = str(manifest["stage"]), manifest["config"]
    known = _SETTINGS.get(stage)
    defaults = {}
    if known is not None:
        defaults = {field.name: field.default for field in dataclasses.fields(known)}
    words = ["reclm", *stage.split()]
    for name, value in settings.items():
        default = defaults.get(name, dataclasses.MISSING)
        if value == (list(default) if isinstance(default, tuple) else default) or value is None:
            continue
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            words.append(flag if value else flag.replace("--", "--no-", 1))
        elif isinstance(value, list):
            words += [flag, *map(str, value)]
        # A path by default is a string in the manifest.
        elif str(value) != str(default):
            words += [flag, str(value)]
    return shlex.join(words)
