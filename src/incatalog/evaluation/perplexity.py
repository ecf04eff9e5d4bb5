"""Perplexity on general conversations: what is left of the chat model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from incatalog.data.conversations import Conversation, load_conversations
from incatalog.dialogue.render import Message, Renderer
from incatalog.errors import DataError
from incatalog.evaluation.run import EvaluationRun
from incatalog.evaluation.settings import EvaluateChatSettings
from incatalog.items.tokens import ItemTokens
from incatalog.metrics import RESAMPLES_AT_ONCE, Interval, Users
from incatalog.model.backbone import Backbone, load_backbone

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender


@torch.no_grad()
def answer_loss(
    backbone: Backbone, renderer: Renderer, messages: Sequence[Message]
) -> tuple[float, int]:
    """Negative log-likelihood (nats) of what the assistant says in a conversation, and its tokens.

    The tokens that end its turns count.
    """
    rendered = renderer.conversation(messages)
    ids = torch.from_numpy(rendered.input_ids).long().to(backbone.model.device)
    wanted = torch.from_numpy(rendered.loss_mask)[1:].to(ids.device)
    logits = backbone.model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    loss = cross_entropy(logits[wanted].float(), ids[1:][wanted], reduction="sum")
    return float(loss), int(wanted.sum())


def perplexity(losses: Users, tokens: Users, resamples: int, seed: int) -> Interval:
    """``exp(sum of losses / sum of tokens)`` with its 95 % interval over conversations."""
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
    run: EvaluationRun, settings: EvaluateChatSettings, recommender: Recommender
) -> dict[str, Any]:
    """Perplexity of the model, and of the one it was before; empty where there is no chat file."""
    from incatalog.dialogue.tasks import fit_turns, general_messages

    if settings.chat is None:
        return {}
    conversations = load_conversations(settings.chat)[: settings.chats or None]
    backbone, renderer = recommender.backbone, recommender.renderer

    def measure(batch: Sequence[Conversation]) -> list[tuple[float, int]]:
        measured = []
        for conversation in batch:
            messages = general_messages(conversation)
            fitting, _ = fit_turns(renderer, messages, settings.max_length)
            measured.append(answer_loss(backbone, renderer, fitting) if fitting else (0.0, 0))
        return measured

    found = {}
    for name in ("after", "before") if settings.before else ("after",):
        if name == "before":
            backbone = load_backbone(settings.before, device=run.device, verify=settings.verify)
            titles = recommender.catalog.titles
            renderer = Renderer(
                backbone.tokenizer, ItemTokens.from_titles(titles, backbone.tokenizer)
            )
        what = f"perplexity {name}"
        losses = run.in_batches(conversations, measure, what, f"perplexity-{name}")
        if run.shards.is_main:
            found[name] = _perplexity(losses, settings)
    return found


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
