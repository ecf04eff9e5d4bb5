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
        rows = []
        for prompt, text, name in zip(*map(self._encode, (prompts, texts)), texts, strict=True):
            if not text:
                raise ScorerError(f"rewrite {name!r}: has no token; expected text")
            # Without a prompt, nothing stands before the first token, so it is not scored.
            rows.append((prompt, text) if prompt else (text[:1], text[1:]))
        batches = [rows[at : at + self._batch_size] for at in range(0, len(rows), self._batch_size)]
        return [ppl for batch in batches for ppl in self._perplexities(batch)]

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

    @torch.no_grad()
    def _perplexities(self, rows: Sequence[tuple[list[int], list[int]]]) -> list[float]:
        """Perplexity of the second part of each row."""
        width = max(len(prompt) + len(text) for prompt, text in rows)
        whole = [(prompt + text + [0] * width)[:width] for prompt, text in rows]
        ids = torch.tensor(whole, device=self._model.device)
        lengths = torch.tensor([len(prompt) + len(text) for prompt, text in rows])
        seen = (torch.arange(width) < lengths[:, None]).long().to(ids.device)
        given = {"input_ids": ids, "attention_mask": seen}
        logits = self._model(**given, use_cache=False).logits[:, :-1].float()
        wanted = ids[:, 1:]
        flat = (logits.flatten(0, 1), wanted.flatten())
        losses = functional.cross_entropy(*flat, reduction="none").view(wanted.shape)
        found = []
        for (prompt, text), own in zip(rows, losses, strict=True):
            mean = float(own[len(prompt) - 1 :][: len(text)].mean()) if text else 0.0
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
