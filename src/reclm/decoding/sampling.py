"""Choosing one of several scored tokens."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from reclm.errors import BackboneError

NOT_NUMBERS = "the model's scores are not numbers; expected finite ones (try float32 or bfloat16)"


def log_softmax(scores: Float[np.ndarray, " choices"]) -> Float[np.ndarray, " choices"]:
    """Log-probabilities in float64.

    Raises:
        BackboneError: A score is not a number, or none is finite.
    """
    shifted = scores.astype(np.float64) - scores.max()
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    if np.isnan(result).any():
        raise BackboneError(NOT_NUMBERS)
    return result


def choose(
    logprobs: Float[np.ndarray, " choices"],
    *,
    temperature: float,
    top_k: int,
    top_p: float,
    random: np.random.Generator,
) -> int:
    """Index of a choice: the best one at temperature 0, else a sample.

    Temperature, top-k and top-p apply in this order, as in transformers. One uniform number is
    drawn a sample, so that the choices depend on the seed and the scores only.
    """
    if temperature == 0:
        return int(logprobs.argmax())
    weights = logprobs / temperature
    order = np.argsort(-weights, kind="stable")
    if top_k:
        order = order[:top_k]
    probabilities = np.exp(weights[order] - weights[order[0]])
    probabilities /= probabilities.sum()
    cumulative = probabilities.cumsum()
    if top_p < 1:
        # The token that crosses the border belongs to the smallest set.
        kept = int(np.searchsorted(cumulative, top_p)) + 1
        cumulative = cumulative[:kept]
    chosen = np.searchsorted(cumulative, random.random() * cumulative[-1], side="right")
    return int(order[min(int(chosen), len(cumulative) - 1)])
