"""Scorers of rewritten titles that run in this process."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch.nn import functional

from incatalog.data.vectors import unit_rows
from incatalog.errors import ScorerError
from incatalog.model.backbone import Backbone
from incatalog.rewrite.endpoint import judge_prompt
from incatalog.rewrite.rewrite_rewards import LETTERS


class LocalModel:
    """Perplexities, token counts and choices of a model in this process."""

    def __init__(self, backbone: Backbone, batch_size: int = 16) -> None:
        """Takes the model, and how many texts are read side by side."""
        self._model: Any = backbone.model
        self._tokenizer: Any = backbone.tokenizer
        self._batch_size = batch_size

    def token_counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return [len(ids) for ids in self._encode(texts)]

    def perplexities(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Perplexity of each text behind its prompt, per token of the text."""
        before, after = self._encode(prompts), self._encode(texts)
        found: list[float] = []
        for start in range(0, len(texts), self._batch_size):
            part = slice(start, start + self._batch_size)
            found += self._perplexities(before[part], after[part], texts[part])
        return found

    def choices(self, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[int]:
        """The option whose letter is the likeliest start of the model's answer."""
        letters = [self._encode([letter])[0][-1] for letter in LETTERS]
        found = []
        for question, among in zip(questions, options, strict=True):
            conversation = [{"role": "user", "content": judge_prompt(question, among)}]
            ids = self._tokenizer.apply_chat_template(
                conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
            )["input_ids"].to(self._model.device)
            with torch.no_grad():
                scores = self._model(input_ids=ids, logits_to_keep=1).logits[0, -1]
            found.append(int(scores[letters[: len(among)]].argmax()))
        return found

    def _perplexities(
        self, prompts: Sequence[list[int]], texts: Sequence[list[int]], names: Sequence[str]
    ) -> list[float]:
        rows = []
        for prompt, text, name in zip(prompts, texts, names, strict=True):
            if not text:
                raise ScorerError(f"rewrite {name!r}: has no token; expected text")
            # Without a prompt, nothing stands before the first token, so it is not scored.
            rows.append((prompt or text[:1]) + (text if prompt else text[1:]))
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        seen = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        device = self._model.device
        given = {"input_ids": ids.to(device), "attention_mask": seen.to(device)}
        with torch.no_grad():
            logits = self._model(**given, use_cache=False).logits.float()
        losses = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten().to(device), reduction="none"
        ).view(len(rows), -1)
        found = []
        for number, (row, prompt) in enumerate(zip(rows, prompts, strict=True)):
            own = losses[number, max(len(prompt), 1) - 1 : len(row) - 1]
            mean = float(own.mean()) if len(own) else 0.0
            if not math.isfinite(mean):
                raise ScorerError("perplexity: the model's scores are not numbers")
            found.append(math.exp(mean))
        return found

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return ids


class LocalRetriever:
    """Similarities by the vectors of an encoder in this process."""

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Float32[np.ndarray, "texts dim"]],
        vectors: Float32[np.ndarray, "items dim"],
    ) -> None:
        """Takes the encoder, and the vector of each item row that it made."""
        self._encode = encode
        self._vectors = unit_rows(vectors)

    def similarities(self, texts: Sequence[str]) -> Float[np.ndarray, "texts items"]:
        """Cosine of each text and each item."""
        found = self._encode(texts)
        if found.shape[1] != self._vectors.shape[1]:
            raise ScorerError(
                f"item vectors: {self._vectors.shape[1]} numbers; the encoder makes "
                f"{found.shape[1]}; make both with the same"
            )
        cosines: np.ndarray = unit_rows(found) @ self._vectors.T
        return cosines
