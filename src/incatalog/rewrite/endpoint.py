"""OpenAI-compatible endpoints (vLLM, TEI, incatalog serve) as scorers of rewritten titles.

Several addresses stand in for one another. What none of them answers after all tries is an error:
a reward of 0 in its place would teach the model the outage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
import numpy as np
from jaxtyping import Float, Float32

from incatalog.data.vectors import unit_rows
from incatalog.errors import ConfigError, ScorerError
from incatalog.rewrite.rewrite_rewards import LETTERS

_T = TypeVar("_T")
_REMEMBERED = 100_000


@dataclass(frozen=True)
class EndpointSettings:
    """Where and how an endpoint is asked.

    Attributes:
        urls: Addresses up to and including ``/v1``, each as good as the others.
        model: Name of the model there.
        key: API key; empty for none.
        tries: Rounds over all addresses.
        timeout: Seconds a request may take.
        pause: Seconds before the second round; doubled before each further one.
        parallel: Requests that are under way at a time.
    """

    urls: tuple[str, ...]
    model: str
    key: str = ""
    tries: int = 3
    timeout: float = 30.0
    pause: float = 0.5
    parallel: int = 8

    def __post_init__(self) -> None:
        if not self.urls or not all(url.startswith(("http://", "https://")) for url in self.urls):
            raise ConfigError(f"urls: found {list(self.urls)}; expected at least one http address")
        if self.tries < 1 or self.parallel < 1 or not self.timeout > 0 or self.pause < 0:
            raise ConfigError(
                "endpoint: expected tries and parallel of at least 1, timeout above 0, pause of 0 "
                "or more"
            )


@dataclass(eq=False)
class Endpoint:
    """Sends requests to the first address that answers them in the form that is asked for.

    Attributes:
        settings: Where and how.
    """

    settings: EndpointSettings
    _first: int = 0
    _known: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        headers = {"Authorization": f"Bearer {self.settings.key}"} if self.settings.key else {}
        # Proxies of the environment are not for addresses that were named.
        self._client = httpx.Client(timeout=self.settings.timeout, headers=headers, trust_env=False)

    def ask(self, path: str, body: dict[str, Any], read: Callable[[Any], _T]) -> _T:
        """One answer; the same question is asked once.

        Args:
            path: What comes after the address.
            body: What is sent, beside the model's name.
            read: Takes what is wanted out of the answer; any error of it means the answer was of
                another form, and the next address is asked.

        Raises:
            ScorerError: No address gave an answer of that form in all tries.
        """
        question = f"{path} {body!r}"
        if question in self._known:
            known: _T = self._known[question]
            return known
        settings = self.settings
        problems: list[str] = []
        for attempt in range(settings.tries):
            if attempt:
                time.sleep(settings.pause * 2 ** (attempt - 1))
            for turn in range(len(settings.urls)):
                place = (self._first + turn) % len(settings.urls)
                found, problem = self._try(settings.urls[place] + path, body, read)
                if problem is None:
                    # Whoever answered last is asked first.
                    self._first = place
                    if len(self._known) < _REMEMBERED:
                        self._known[question] = found
                    assert found is not None
                    return found
                problems.append(problem)
        raise ScorerError(
            f"{path}: no answer from {len(settings.urls)} addresses in {settings.tries} tries; "
            f"the last said: {problems[-1]}"
        )

    def ask_all(
        self, path: str, bodies: Sequence[dict[str, Any]], read: Callable[[Any], _T]
    ) -> list[_T]:
        """Answers to several questions, asked side by side.

        Raises:
            ScorerError: See :meth:`ask`.
        """
        with ThreadPoolExecutor(self.settings.parallel) as pool:
            return list(pool.map(lambda body: self.ask(path, body, read), bodies))

    def _try(
        self, url: str, body: dict[str, Any], read: Callable[[Any], _T]
    ) -> tuple[_T | None, str | None]:
        try:
            response = self._client.post(url, json={"model": self.settings.model, **body})
        except httpx.HTTPError as error:
            return None, f"{url}: {type(error).__name__}"
        if response.status_code != 200:
            return None, f"{url}: status {response.status_code}"
        try:
            return read(response.json()), None
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            return None, f"{url}: not the answer expected ({type(error).__name__}: {error})"[:300]


class EndpointPerplexity:
    """Perplexities from ``/completions``, which tells the log-probabilities of its prompt back."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._endpoint = Endpoint(settings)

    def perplexities(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Perplexity of each text behind its prompt, per token of the text.

        Raises:
            ScorerError: No address answers.
        """
        bodies = [
            {"prompt": prompt + text, "max_tokens": 0, "echo": True, "logprobs": 0}
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        told = self._endpoint.ask_all("/completions", bodies, _echoed)
        return [
            _perplexity(logprobs, offsets, len(prompt))
            for (logprobs, offsets), prompt in zip(told, prompts, strict=True)
        ]


class EndpointJudge:
    """Choices of a chat model."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._endpoint = Endpoint(settings)

    def choices(self, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[int]:
        """Which option is chosen; -1 where the answer begins with none of the letters.

        Raises:
            ScorerError: No address answers.
        """
        bodies = [
            {
                "messages": [{"role": "user", "content": judge_prompt(question, among)}],
                "max_tokens": 2,
                "temperature": 0,
            }
            for question, among in zip(questions, options, strict=True)
        ]
        answers = self._endpoint.ask_all("/chat/completions", bodies, _content)
        counts = map(len, options)
        return [letter_choice(answer, count) for answer, count in zip(answers, counts, strict=True)]


class EndpointRetriever:
    """Similarities by the vectors of ``/embeddings``.

    Args:
        settings: Where and how.
        vectors: Vector of each item row, from the same model.
    """

    def __init__(
        self, settings: EndpointSettings, vectors: Float32[np.ndarray, "items dim"]
    ) -> None:
        self._endpoint = Endpoint(settings)
        self._vectors = unit_rows(vectors)

    def similarities(self, texts: Sequence[str]) -> Float[np.ndarray, "texts items"]:
        """Cosine of each text and each item.

        Raises:
            ScorerError: No address answers, or the vectors are of another width.
        """
        dim = self._vectors.shape[1]

        def read(answer: Any) -> np.ndarray:
            vector = np.array(answer["data"][0]["embedding"], dtype=np.float32)
            if vector.shape != (dim,) or not np.isfinite(vector).all():
                raise ValueError(f"a vector of shape {vector.shape}, expected {dim} finite numbers")
            return vector

        found = self._endpoint.ask_all("/embeddings", [{"input": [text]} for text in texts], read)
        cosines: np.ndarray = unit_rows(np.stack(found)) @ self._vectors.T
        return cosines


def judge_prompt(question: str, options: Sequence[str]) -> str:
    """A question with lettered options, to be answered by a letter."""
    lines = (f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))
    return "\n".join((question, *lines, "Answer with the letter only."))


def letter_choice(answer: str, options: int) -> int:
    """The option an answer names by its first letter; -1 if it names none."""
    named = answer.strip().strip("*(\"'“")[:1].upper()
    place = LETTERS.find(named) if named else -1
    return place if place < options else -1


def _echoed(answer: Any) -> tuple[list[float | None], list[int]]:
    told = answer["choices"][0]["logprobs"]
    logprobs, offsets = told["token_logprobs"], told["text_offset"]
    if len(logprobs) != len(offsets) or not offsets:
        raise ValueError("logprobs of another number of tokens than offsets")
    return logprobs, offsets


def _content(answer: Any) -> str:
    content = answer["choices"][0]["message"]["content"]
    if not isinstance(content, str):
        raise TypeError("the content is not text")
    return content


def _perplexity(logprobs: Sequence[float | None], offsets: Sequence[int], begin: int) -> float:
    """Perplexity of the tokens that end behind the prompt."""
    ends = [*offsets[1:], math.inf]
    own = [
        logprob
        for logprob, end in zip(logprobs, ends, strict=True)
        if end > begin and logprob is not None
    ]
    if not own:
        raise ScorerError("/completions: told no log-probability of the text; is it empty?")
    return math.exp(-math.fsum(own) / len(own))
