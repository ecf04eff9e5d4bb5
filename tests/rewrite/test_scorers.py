from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from incatalog.errors import ScorerError
from incatalog.model.backbone import Backbone
from incatalog.rewrite.scorers import LocalModel, LocalRetriever


def test_perplexity_is_that_of_the_models_own_loss(tiny_backbone: Backbone) -> None:
    model: Any = tiny_backbone.model
    tokenizer: Any = tiny_backbone.tokenizer
    prompts = ["Please recommend a film: ", "", "One more: "]
    texts = ["Harbour Lights", "Night Train to Lisbon", "Zebra"]
    expected = []
    for prompt, text in zip(prompts, texts, strict=True):
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        after = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([before + after])
        labels = ids.clone()
        labels[0, : len(before)] = -100
        with torch.no_grad():
            expected.append(math.exp(float(model(input_ids=ids, labels=labels).loss)))
    scorer = LocalModel(tiny_backbone, batch_size=2)
    assert scorer.perplexities(prompts, texts) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ScorerError, match="has no token"):
        scorer.perplexities(["a"], [""])


def test_counts_and_choices(tiny_backbone: Backbone) -> None:
    scorer = LocalModel(tiny_backbone)
    tokenizer: Any = tiny_backbone.tokenizer
    texts = ["Harbour Lights (1991)", ""]
    counts = [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]
    assert scorer.token_counts(texts) == counts
    chosen = scorer.choices(["Which?", "And?"], [["a", "b", "c", "d"], ["a", "b"]])
    assert 0 <= chosen[0] < 4
    assert 0 <= chosen[1] < 2
    assert chosen == scorer.choices(["Which?", "And?"], [["a", "b", "c", "d"], ["a", "b"]])


def test_similarities_are_cosines_with_the_items() -> None:
    vectors = np.array([[2, 0], [0, 1]], dtype=np.float32)
    scorer = LocalRetriever(lambda texts: np.array([[1.0, 1.0]] * len(texts), np.float32), vectors)
    assert scorer.similarities(["x"])[0] == pytest.approx([math.sqrt(0.5)] * 2)
    narrow = LocalRetriever(lambda texts: np.ones((len(texts), 3), np.float32), vectors)
    with pytest.raises(ScorerError, match="make both with the same"):
        narrow.similarities(["x"])
