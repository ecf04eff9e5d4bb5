"""Fuzzing: `pytest -m fuzz`, with a fresh seed that is printed, for as long as one says."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

# How the time is divided; generation in plain transformers has the most modes.
SHARES = {"generate": 0.4, "engine": 0.2, "search": 0.15, "service": 0.25}
_drawn: list[int] = []


@dataclass
class Fuzz:
    """One part of the fuzzing: cases until its time is over, and what they came to.

    Attributes:
        seed: Seed of all cases.
        seconds: Time that is left to this part.
        counts: Spans, cases and refusals.
    """

    seed: int
    seconds: float
    counts: Counter[str] = field(default_factory=Counter)

    def cases(self) -> Iterator[tuple[int, np.random.Generator]]:
        """Number of each case, and its own source of randomness."""
        end = time.monotonic() + self.seconds
        number = 0
        while time.monotonic() < end or number < 3:
            self.counts["cases"] += 1
            yield number, np.random.default_rng([self.seed, number])
            number += 1

    def refuse(self, error: Exception) -> None:
        """Counts a refusal."""
        self.counts[f"refused: {type(error).__name__}"] += 1


@pytest.fixture
def fuzz(request: pytest.FixtureRequest) -> Iterator[Fuzz]:
    part = request.node.path.stem.removeprefix("test_")
    seed = request.config.getoption("--fuzz-seed")
    if seed is None:
        if not _drawn:
            _drawn.append(int.from_bytes(os.urandom(4), "little"))
        seed = _drawn[0]
    found = Fuzz(seed, request.config.getoption("--fuzz-seconds") * SHARES[part])
    yield found
    # Properties of a test find their way out of a process of its own.
    told = (f"{part} (seed {seed})", dict(found.counts))
    request.node.user_properties.append(("fuzz", told))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    totals: dict[str, Counter[str]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "teardown":
                for name, (part, counts) in report.user_properties:
                    if name == "fuzz":
                        totals.setdefault(part, Counter()).update(counts)
    if not totals:
        return
    terminalreporter.section("fuzzing")
    for part, counts in totals.items():
        told = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
        terminalreporter.write_line(f"{part}: {told}")
    spans = sum(counts["spans"] for counts in totals.values())
    terminalreporter.write_line(f"in all: {spans:,} spans, each an item that was allowed")
