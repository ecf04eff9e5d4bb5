"""Perplexity on general conversations: what is left of the chat model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float64
from torch.nn.functional import cross_entropy

from incatalog.data.conversations import load_conversations
from incatalog.dialogue.render import Message, Renderer
from incatalog.errors import DataError
from incatalog.evaluation.batchlog import BatchLog, Shards, in_batches
from incatalog.evaluation.settings import EvaluateChatSettings
from incatalog.metrics import RESAMPLES_AT_ONCE, Interval
from incatalog.model.backbone import Backbone

if TYPE_CHECKING:
    from incatalog.data.conversations import Conversation
    from incatalog.recommender.recommender import Recommender


@torch.no_grad()
def answer_loss(
    backbone: Backbone, renderer: Renderer, messages: Sequence[Message]
) -> tuple[float, int]:
    """Negative log-likelihood of what the assistant says in one conversation, in nats.

    Returns:
        The sum over its tokens, those that end turns included, and how many there are.
    """
    rendered = renderer.conversation(messages)
    ids = torch.from_numpy(rendered.input_ids).long().to(backbone.model.device)
    wanted = torch.from_numpy(rendered.loss_mask)[1:].to(ids.device)
    logits = backbone.model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    loss = cross_entropy(logits[wanted].float(), ids[1:][wanted], reduction="sum")
    return float(loss), int(wanted.sum())


def perplexity(
    losses: Float64[np.ndarray, " conversations"],
    tokens: Float64[np.ndarray, " conversations"],
    resamples: int,
    seed: int,
) -> Interval:
    """``exp(sum of losses / sum of tokens)`` with its 95 % bootstrap interval over conversations.

    Args:
        losses: Negative log-likelihood of each conversation, in nats.
        tokens: Tokens it is the sum over.
        resamples: Resamples of the bootstrap.
        seed: Their seed.
    """
    random = np.random.default_rng(seed)
    values = np.empty(resamples)
    step = max(1, RESAMPLES_AT_ONCE // len(losses))
    for start in range(0, resamples, step):
        size = (min(step, resamples - start), len(losses))
        drawn = random.integers(len(losses), size=size)
        ratio = losses[drawn].sum(axis=1) / tokens[drawn].sum(axis=1)
        values[start : start + step] = np.exp(ratio)
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(float(np.exp(losses.sum() / tokens.sum())), float(low), float(high))


def perplexities(
    settings: EvaluateChatSettings, recommender: Recommender, shards: Shards, device: str
) -> tuple[dict[str, Any], list[BatchLog]]:
    """Perplexity of the model, and of the one it was before; empty where there is no chat file."""
    if settings.chat is None:
        return {}, []
    from incatalog.dialogue.render import Renderer

    conversations = load_conversations(settings.chat)[: settings.chats or None]
    found: dict[str, Any] = {}
    logs = []
    for name in ("after", "before") if settings.before else ("after",):
        backbone, renderer = recommender.backbone, recommender.renderer
        if name == "before":
            from incatalog.items.tokens import ItemTokens
            from incatalog.model.backbone import load_backbone

            backbone = load_backbone(settings.before, device=device, verify=settings.verify)
            titles = recommender.catalog.titles
            renderer = Renderer(
                backbone.tokenizer, ItemTokens.from_titles(titles, backbone.tokenizer)
            )
        log = BatchLog(settings.out, shards, f"perplexity-{name}")
        logs.append(log)
        losses = _losses(backbone, renderer, conversations, settings, log, name, shards)
        if shards.is_main:
            found[name] = _perplexity(losses, settings)
    return found, logs


def _losses(
    backbone: Backbone,
    renderer: Renderer,
    conversations: Sequence[Conversation],
    settings: EvaluateChatSettings,
    log: BatchLog,
    name: str,
    shards: Shards,
) -> list[Any]:
    from incatalog.dialogue.tasks import fit_turns, general_messages

    def measure(positions: Sequence[int]) -> list[tuple[float, int]]:
        measured = []
        for position in positions:
            messages = general_messages(conversations[position])
            fitting, _ = fit_turns(renderer, messages, settings.max_length)
            measured.append(answer_loss(backbone, renderer, fitting) if fitting else (0.0, 0))
        return measured

    what = f"perplexity {name}"
    return in_batches(len(conversations), settings.batch_size, measure, log, what, shards)


def _perplexity(
    losses: Sequence[Sequence[float]], settings: EvaluateChatSettings
) -> dict[str, Any]:
    values = np.array([pair for pair in losses if pair[1]], dtype=np.float64)
    if not len(values):
        raise DataError.at(
            settings.chat or "--chat",
            f"no conversation opens with an exchange of at most {settings.max_length} tokens; "
            "raise --max-length",
        )
    found = perplexity(values[:, 0], values[:, 1], settings.bootstrap, settings.seed)
    return {**found._asdict(), "conversations": len(values), "tokens": int(values[:, 1].sum())}
