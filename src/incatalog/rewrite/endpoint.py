"""OpenAI-compatible endpoints (vLLM, TEI, incatalog serve) as scorers of rewritten titles.

Several addresses stand in for one another. If none of them answers after all tries, that is an
error: a reward of 0 in its place would teach the model about the outage.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import httpx
import numpy as np
from jaxtyping import Float, Float32

from incatalog.data.vectors import unit_rows
from incatalog.errors import ConfigError, ScorerError
from incatalog.recent import RecentlyUsed
from incatalog.rewrite.rewrite_rewards import LETTERS

_T = TypeVar("_T")
_REMEMBERED = 100_000


@dataclass(frozen=True)
class EndpointSettings:
    """Where and how an endpoint is asked."""

    urls: tuple[str, ...]  # Up to and including /v1, each as good as the others.
    model: str
    key: str = ""
    tries: int = 3  # Rounds over all addresses.
    timeout: float = 30.0  # Seconds of a request.
    pause: float = 0.5  # Seconds before the second round; doubled before each further one.
    parallel: int = 8  # Requests that are under way at a time.

    def __post_init__(self) -> None:
        """Checks the numbers and addresses."""
        if not self.urls or not all(url.startswith(("http://", "https://")) for url in self.urls):
            raise ConfigError(f"urls: found {list(self.urls)}; expected at least one http address")
        if self.tries < 1 or self.parallel < 1 or not self.timeout > 0 or self.pause < 0:
            wanted = "tries and parallel of at least 1, timeout above 0, pause of 0 or more"
            raise ConfigError(f"endpoint: expected {wanted}")


class Endpoint:
    """Asks the addresses in turn until one answers in the form that is asked for."""

    def __init__(self, settings: EndpointSettings) -> None:
        """Prepares the client."""
        self._settings = settings
        self._first = 0
        self._known: RecentlyUsed[str, Any] = RecentlyUsed(_REMEMBERED)
        headers = {"Authorization": f"Bearer {settings.key}"} if settings.key else {}
        # Proxies that the environment names are not used for these addresses.
        self._client = httpx.Client(timeout=settings.timeout, headers=headers, trust_env=False)

    def ask_all(
        self, path: str, bodies: Sequence[dict[str, Any]], read: Callable[[Any], _T]
    ) -> list[_T]:
        """Answers to several questions, asked side by side; the same question is asked once."""

        def ask(body: dict[str, Any]) -> _T:
            found: _T = self._known.get(f"{path} {body!r}", lambda: self._ask(path, body, read))
            return found

        with ThreadPoolExecutor(self._settings.parallel) as pool:
            return list(pool.map(ask, bodies))

    def _ask(self, path: str, body: dict[str, Any], read: Callable[[Any], _T]) -> _T:
        """What `read` makes of an answer; an address whose answer it cannot read has failed."""
        urls, tries, problem = self._settings.urls, self._settings.tries, ""
        for attempt, turn in product(range(tries), range(len(urls))):
            if attempt and not turn:
                time.sleep(self._settings.pause * 2 ** (attempt - 1))
            place = (self._first + turn) % len(urls)
            url = urls[place] + path
            try:
                response = self._client.post(url, json={"model": self._settings.model, **body})
                if response.status_code == 200:
                    found = read(response.json())
                    # The address that answered last is asked first.
                    self._first = place
                    return found
                problem = f"{url}: status {response.status_code}"
            except httpx.HTTPError as error:
                problem = f"{url}: {type(error).__name__}"
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                reason = f"not the answer expected ({type(error).__name__}: {error})"
                problem = f"{url}: {reason}"[:300]
        asked = f"no answer from {len(urls)} addresses in {tries} tries"
        raise ScorerError(f"{path}: {asked}; the last said: {problem}")


class EndpointPerplexity(Endpoint):
    """Perplexities from ``/completions``, which can return log-probabilities of its prompt."""

    def perplexities(self, prompts: Sequence[str], texts: Sequence[str]) -> list[float]:
        """Perplexity of each text behind its prompt, per token of the text."""
        bodies = [
            {"prompt": prompt + text, "max_tokens": 0, "echo": True, "logprobs": 0}
            for prompt, text in zip(prompts, texts, strict=True)
        ]
        told = self.ask_all("/completions", bodies, _echoed)
        return [_perplexity(*one, len(prompt)) for one, prompt in zip(told, prompts, strict=True)]


class EndpointJudge(Endpoint):
    """Choices of a chat model."""

    def choices(self, questions: Sequence[str], options: Sequence[Sequence[str]]) -> list[int]:
        """Which option is chosen; -1 where the answer begins with none of the letters."""
        bodies = [
            {"messages": [{"role": "user", "content": prompt}], "max_tokens": 2, "temperature": 0}
            for prompt in map(judge_prompt, questions, options)
        ]
        answers = self.ask_all("/chat/completions", bodies, _content)
        return list(map(letter_choice, answers, map(len, options)))


class EndpointRetriever(Endpoint):
    """Similarities by the vectors of ``/embeddings``; those of the items are of the same model."""

    def __init__(self, settings: EndpointSettings, vectors: Float32[np.ndarray, "items dim"]):
        """Takes the vector of each item row."""
        super().__init__(settings)
        self._vectors = unit_rows(vectors)

    def similarities(self, texts: Sequence[str]) -> Float[np.ndarray, "texts items"]:
        """Cosine of each text and each item."""
        dim = self._vectors.shape[1]

        def read(answer: Any) -> np.ndarray:
            vector = np.array(answer["data"][0]["embedding"], dtype=np.float32)
            if vector.shape != (dim,) or not np.isfinite(vector).all():
                raise ValueError(f"a vector of shape {vector.shape}, expected {dim} finite numbers")
            return vector

        found = self.ask_all("/embeddings", [{"input": [text]} for text in texts], read)
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
    ends = zip(logprobs, [*offsets[1:], math.inf], strict=True)
    own = [logprob for logprob, end in ends if end > begin and logprob is not None]
    if not own:
        raise ScorerError("/completions: told no log-probability of the text; is it empty?")
    return math.exp(-math.fsum(own) / len(own))
