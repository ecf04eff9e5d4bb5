"""Perplexity on general conversations: what is left of the chat model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64
from torch.nn.functional import cross_entropy

from reclm.backbone import Backbone
from reclm.dialogue.render import Message, Renderer
from reclm.evaluation.metrics import RESAMPLES_AT_ONCE, Interval


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
