from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from incatalog.dialogue.render import Message, Renderer, Text
from incatalog.evaluation.perplexity import answer_loss, perplexity
from incatalog.items.tokens import ItemTokens

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone


def test_loss_is_that_of_the_answers_tokens_one_by_one(
    tiny_backbone: Backbone, titles: tuple[str, ...]
) -> None:
    renderer = Renderer(
        tiny_backbone.tokenizer, ItemTokens.from_titles(titles, tiny_backbone.tokenizer)
    )
    messages = [
        Message(role, (Text(text),))
        for role, text in [("user", "Hello!"), ("assistant", "Sure, tell me more.")]
    ]
    rendered = renderer.conversation(messages)
    ids = torch.from_numpy(rendered.input_ids).long()
    expected = 0.0
    for position in np.flatnonzero(rendered.loss_mask).tolist():
        with torch.no_grad():
            logits = tiny_backbone.model(input_ids=ids[None, :position]).logits[0, -1]
        expected -= logits.log_softmax(0)[ids[position]].item()
    loss, tokens = answer_loss(tiny_backbone, renderer, messages)
    assert tokens == rendered.loss_mask.sum() > 0
    assert loss == pytest.approx(expected, rel=1e-4)


def test_perplexity_weighs_conversations_by_their_tokens() -> None:
    found = perplexity(np.array([2.0, 12.0]), np.array([2.0, 3.0]), 200, 0)
    assert found.value == pytest.approx(exp(14 / 5))
    # Resamples hold the first twice, both, or the second twice.
    assert (found.low, found.high) == (pytest.approx(exp(1)), pytest.approx(exp(4)))
