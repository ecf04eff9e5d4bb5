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
from incatalog.metrics import Interval, Users, parts
from incatalog.model.backbone import Backbone, load_backbone

if TYPE_CHECKING:
    from incatalog.recommender.recommender import Recommender


@torch.no_grad()
def answer_loss(
    backbone: Backbone, renderer: Renderer, messages: Sequence[Message]
) -> tuple[float, int]:
    """Loss (in nats) of what the assistant says, with the ends of its turns, and its tokens."""
    rendered = renderer.conversation(messages)
    ids = torch.from_numpy(rendered.input_ids).long().to(backbone.model.device)
    wanted = torch.from_numpy(rendered.loss_mask)[1:].to(ids.device)
    logits = backbone.model(input_ids=ids[None], use_cache=False).logits[0, :-1]
    loss = cross_entropy(logits[wanted].float(), ids[1:][wanted], reduction="sum")
    return float(loss), int(wanted.sum())


def perplexity(losses: Users, tokens: Users, resamples: int, seed: int) -> Interval:
    """``exp(sum of losses / sum of tokens)`` with its 95 % interval over conversations."""
    random, count = np.random.default_rng(seed), len(losses)
    drawn = (random.integers(count, size=(rows, count)) for rows in parts(resamples, count))
    values = [np.exp(losses[own].sum(axis=1) / tokens[own].sum(axis=1)) for own in drawn]
    low, high = np.quantile(np.concatenate(values), [0.025, 0.975])
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
        messages = map(general_messages, batch)
        fitting = [fit_turns(renderer, one, settings.max_length)[0] for one in messages]
        return [answer_loss(backbone, renderer, one) if one else (0.0, 0) for one in fitting]

    found = {}
    for name in ("after", "before") if settings.before else ("after",):
        if name == "before":
            control, verify = backbone.control, settings.verify
            backbone = load_backbone(
                settings.before, device=run.device, verify=verify, control=control
            )
            titles = recommender.catalog.titles
            items = ItemTokens.from_titles(titles, backbone.tokenizer, control)
            renderer = Renderer(backbone.tokenizer, items, recommender.spec.system)
        what = f"perplexity {name}"
        losses = run.in_batches(conversations, measure, what, f"perplexity-{name}")
        if not run.shards.is_main:
            continue
        known = np.array([pair for pair in losses if pair[1]], dtype=np.float64)
        if not len(known):
            most = f"an exchange of at most {settings.max_length} tokens"
            fault = f"no conversation opens with {most}; raise --max-length"
            raise DataError.at(settings.chat, fault)
        nats, tokens = known.T
        of_model = perplexity(nats, tokens, settings.bootstrap, settings.seed)
        counts = {"conversations": len(known), "tokens": int(tokens.sum())}
        found[name] = of_model._asdict() | counts
    return found
