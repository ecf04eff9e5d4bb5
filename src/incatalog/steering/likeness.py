"""How alike a text is to each item: by vectors of sentences, and by words.

Items that come later are put behind those that are there, in arrays that all versions of a catalog
share; a version knows which places are its rows.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64
from rich.console import Console

from incatalog.steering.sentences import Sentences
from incatalog.steering.stems import stems

Alike = Float64[np.ndarray, " items"]


class Memory:
    """Texts of items with their vectors and words; only grows."""

    def __init__(self, sentences: Sentences | None, console: Console | None = None) -> None:
        self.sentences, self._console = sentences, console
        self.place_of: dict[str, int] = {}
        self.texts: list[str] = []
        self._vectors = np.empty((0, 0), np.float32)
        self._postings: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        self._ready: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Texts that are there."""
        return len(self.place_of)

    def places(self, texts: Sequence[str]) -> Int64[np.ndarray, " texts"]:
        """Where texts are; those that are new are read and put behind the others."""
        with self._lock:
            new = list(dict.fromkeys(text for text in texts if text not in self.place_of))
            if new:
                self._add(new)
            return np.array([self.place_of[text] for text in texts], dtype=np.int64)

    def vectors(self, count: int) -> Float32[np.ndarray, "count hidden"]:
        """The vectors of the first texts."""
        return self._vectors[:count]

    def _add(self, new: list[str]) -> None:
        start = len(self.place_of)
        if self.sentences is not None:
            vectors = self.sentences.items(new, self._console)
            if start + len(new) > len(self._vectors):
                room = np.empty((max(start + len(new), 5 * start // 4), vectors.shape[1]), "f4")
                room[:start] = self._vectors[:start].reshape(start, vectors.shape[1])
                self._vectors = room
            self._vectors[start : start + len(new)] = vectors
        for place, text in enumerate(new, start):
            for word, weight in _tf(text).items():
                self._postings[word].append((place, weight))
                self._ready.pop(word, None)
        self.texts += new
        self.place_of.update((text, place) for place, text in enumerate(new, start))

    def count(self, word: str) -> int:
        """How many texts have a stem."""
        return len(self._postings.get(word, ()))

    def rarity(self, word: str) -> float:
        """Inverse document frequency of a word, from 0 (in every text) to 1 (in one)."""
        count = self.count(word)
        total = max(len(self), 2)
        return float(np.log(total / count) / np.log(total)) if count else 1.0

    def by_words(self, weights: dict[str, float]) -> Float64[np.ndarray, " texts"]:
        """Cosine of weighted words and each text."""
        found = np.zeros(len(self))
        for word, weight in weights.items():
            places, values = self._posting(word)
            np.add.at(found, places[: len(found)], weight * values)
        return found

    def _posting(self, word: str) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            if word not in self._ready:
                pairs = self._postings.get(word, ())
                places = np.array([place for place, _ in pairs], dtype=np.int64)
                self._ready[word] = places, np.array([weight for _, weight in pairs])
            return self._ready[word]


@dataclass(frozen=True, eq=False)
class Likeness:
    """Compares texts with the items of one version of a catalog."""

    memory: Memory
    places: Int64[np.ndarray, " items"]

    @classmethod
    def of(
        cls, texts: Sequence[str], sentences: Sentences | None, console: Console | None = None
    ) -> Likeness:
        """Reads the texts of all items."""
        memory = Memory(sentences, console)
        return cls(memory, memory.places(texts))

    def with_texts(self, texts: dict[int, str], total: int) -> Likeness:
        """The same where some rows have other texts, of ``total`` rows in all."""
        if not texts:
            return self
        places = np.zeros(total, dtype=np.int64)
        places[: len(self.places)] = self.places
        rows = list(texts)
        places[rows] = self.memory.places([texts[row] for row in rows])
        return replace(self, places=places)

    def by_vectors(self, vector: Float32[np.ndarray, " hidden"]) -> Alike:
        """Cosine of a vector and each item."""
        count = int(self.places.max()) + 1
        found: Alike = (self.memory.vectors(count) @ vector)[self.places].astype(np.float64)
        return found

    def all_vectors(self) -> Float32[np.ndarray, "items hidden"]:
        """The vectors of all items."""
        found: np.ndarray = self.memory.vectors(int(self.places.max()) + 1)[self.places]
        return found

    def by_words(self, words: Sequence[tuple[str, float]]) -> Alike:
        """Cosine of words, with what each counts, and each item; rare words count more."""
        memory = self.memory
        counts: dict[str, float] = {}
        for word, count in words:
            counts[word] = max(count, counts.get(word, 0.0))
        rare = {word: count * memory.rarity(word) for word, count in counts.items()}
        found: Alike = memory.by_words(_of_length_one(rare))[self.places]
        return found

    def to_items(self, rows: Sequence[int]) -> Alike:
        """Likeness to some items: by vectors, or by words where there are none."""
        places = self.places[list(rows)]
        if self.memory.sentences is None:
            words = Counter(word for place in places for word in stems(self.memory.texts[place]))
            return self.by_words([(word, float(count)) for word, count in words.items()])
        joined = self.memory.vectors(int(places.max()) + 1)[places].sum(axis=0)
        return self.by_vectors(joined / max(float(np.linalg.norm(joined)), 1e-9))


def _of_length_one(weights: Mapping[str, float]) -> dict[str, float]:
    length = sum(weight**2 for weight in weights.values()) ** 0.5
    return {word: weight / length for word, weight in weights.items()} if length else {}


def _tf(text: str) -> dict[str, float]:
    """Weights of a text's words: the first use of a word counts most."""
    counts = Counter(stems(text))
    return _of_length_one({word: 1 + float(np.log(count)) for word, count in counts.items()})
