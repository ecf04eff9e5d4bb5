"""The rewards of rewritten titles for ms-swift.

    PLUGIN=$(python -c "import incatalog.rewrite.swift_plugin as plugin; print(plugin.__file__)")
    export INCATALOG_SCORERS=scorers.yaml
    swift rlhf --rlhf_type grpo --external_plugins $PLUGIN --reward_funcs average_ppl length …

The file that the variable names is that of `incatalog rewrite train --scorers`.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from incatalog.errors import ConfigError, MissingExtraError
from incatalog.rewrite.rewrite_rewards import REWRITE_REWARDS, Rewards
from incatalog.rewrite.scoring import RewriteScoring

VARIABLE = "INCATALOG_SCORERS"

try:
    from swift.rewards import ORM, orms  # ms-swift 4
except ImportError:
    try:
        from swift.plugin import ORM, orms  # ms-swift 3
    except ImportError as error:
        raise MissingExtraError(
            "ms-swift is not installed; in an environment of its own run: pip install ms-swift "
            "'transformers<5.20' 'trl<1' 'peft<0.21' msgspec"
        ) from error


@lru_cache(maxsize=1)
def scoring() -> RewriteScoring:
    """The scorers of the file that the environment names, loaded once for all rewards."""
    if VARIABLE not in os.environ:
        raise ConfigError(f"{VARIABLE}: not set; expected the path of a YAML file of scorers")
    return RewriteScoring.load(Path(os.environ[VARIABLE]))


def _orm(name: Any) -> type:
    class Reward(ORM):  # type: ignore[misc]
        def __call__(self, completions: Any, **columns: Any) -> Rewards:
            return scoring().rewards(name, completions, columns)

    Reward.__name__ = Reward.__qualname__ = f"Incatalog_{name}"
    return Reward


for _name in REWRITE_REWARDS:
    orms[_name] = _orm(_name)
