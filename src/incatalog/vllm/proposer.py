"""What is forced, as drafts: vLLM verifies them in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from incatalog.errors import ConfigError
from incatalog.vllm.engine_plan import PROPOSER, plan_of


class ForcedRuns:
    """Drafts of an engine whose speculative method is `custom_class`, with `PROPOSER` as its model.

    A worker knows neither what a request asks for nor what it has excluded; the scheduler has the
    grammar of each answer. So the worker proposes nothing, and where the scheduler looks through
    the proposals of a step it puts in their place what is forced (`plugin.py`).
    """

    def __init__(self, vllm_config: Any) -> None:
        """Takes the configuration of an engine whose answers are held to items."""
        plan = plan_of(vllm_config)
        if plan is None:
            found = f"{PROPOSER} with {vllm_config.model_config.model}"
            expected = "the folder of a model that was trained on a catalog"
            raise ConfigError(f"speculative_config: found {found}; expected {expected}")

    def load_model(self, *_: Any, **__: Any) -> None:
        """Has no weights."""

    def propose(self, sampled: Sequence[Sequence[int]], *_: Any, **__: Any) -> list[list[int]]:
        """Leaves it to the scheduler: an empty draft for each answer."""
        return [[] for _ in sampled]
