"""vLLM, started for a recommender whose weights stay where vLLM has them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from incatalog.constraint.control import ControlTokens
from incatalog.model.pretrained import source_of
from incatalog.recommender.recommender import Recommender
from incatalog.vllm.async_engine import RunningEngine, start_engine


def engine_of(
    recommender: Recommender,
    model: str | Path,
    *,
    rows: int,
    arguments: Sequence[str] = (),
    device: str = "auto",
) -> RunningEngine:
    """Starts vLLM on the model of a recommender.

    Args:
        recommender: Loaded without weights.
        model: Folder of the same model, or smollm2.
        rows: Answers that grow side by side at most.
        arguments: Arguments of vLLM's engine as NAME=VALUE.
        device: ``auto``, or the device that vLLM is built for.

    Raises:
        BackboneError: vLLM does not start.
        ConfigError: An argument cannot work.
        MissingExtraError: vLLM is not installed.
    """
    backbone, prompts = recommender.backbone, recommender.prompts
    control = ControlTokens(
        backbone.soi_token_id, backbone.eoi_token_id, frozenset(prompts.stop_token_ids)
    )
    engine = start_engine(
        source_of(model),
        control,
        backbone.code_token_ids,
        rows=rows,
        names_items=recommender.spec.trained,
        arguments=arguments,
        device=device,
    )
    # Prompts are made for what vLLM was started with, where that is less than the model could.
    config, longest = backbone.model.config, prompts.context_length
    config.max_position_embeddings = min(longest or engine.context_length, engine.context_length)
    return engine
