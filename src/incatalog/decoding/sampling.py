"""Choosing one of several scored tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from incatalog.errors import NOT_NUMBERS, BackboneError, ConfigError


def log_softmax(scores: Float[np.ndarray, " choices"]) -> Float[np.ndarray, " choices"]:
    """Log-probabilities in float64."""
    shifted = scores.astype(np.float64) - scores.max()
    result: np.ndarray = shifted - np.log(np.exp(shifted).sum())
    if np.isnan(result).any():
        raise BackboneError(NOT_NUMBERS)
    return result


def check_temperature(temperature: float) -> None:
    """Refuses what scores cannot be divided by; 0 and denormal numbers can."""
    if not 0 <= temperature < math.inf:
        raise ConfigError(
            f"temperature: found {temperature}; expected a finite number of at least 0 "
            "(0 takes the best)"
        )


@dataclass(frozen=True)
class Sampling:
    """How one of several scored choices is taken."""

    temperature: float  # divides the scores before sampling; 0 takes the best
    top_p: float  # sample from the smallest set of choices with this probability
    random: np.random.Generator

    def choose(self, logprobs: Float[np.ndarray, " choices"]) -> int:
        """Index of a choice: the best one at temperature 0, else a sample.

        Temperature and top-p apply in this order, as in transformers. One uniform number is
        drawn a sample, so that the choices depend on the seed and the scores only. A choice of
        log-probability minus infinity is never taken.
        """
        check_temperature(self.temperature)
        best = logprobs.max()
        if not np.isfinite(best):
            raise BackboneError(NOT_NUMBERS)
        if self.temperature == 0:
            return int(logprobs.argmax())
        # The difference to the best comes first: however small the temperature is, the best stays
        # at 0 and the others go to minus infinity.
        behind = logprobs.astype(np.float64) - best
        order = np.argsort(-behind, kind="stable")
        with np.errstate(over="ignore"):
            probabilities = np.exp(behind[order] / self.temperature)
        possible = probabilities > 0
        order, probabilities = order[possible], probabilities[possible]
        cumulative = (probabilities / probabilities.sum()).cumsum()
        if self.top_p < 1:
            # The token that crosses the border belongs to the smallest set.
            cumulative = cumulative[: int(np.searchsorted(cumulative, self.top_p)) + 1]
        drawn = self.random.random() * cumulative[-1]
        chosen = int(np.searchsorted(cumulative, drawn, side="right"))
        return int(order[min(chosen, len(cumulative) - 1)])
