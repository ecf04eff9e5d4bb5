"""What does a guide cost a service? 64 streams of guided lists, and of lists of the model alone.

Two services of one tiny model over the Office catalog, one of them with a teacher in its process;
a crowd before one after the other. Every answer is a streamed list of five items after a history,
so that answers a second can be compared.

    python -m benchmarks.guided_streams [--clients 64] [--teacher RUN]
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, publish, shared_data
from benchmarks.serving import Crowd, Server, make_model

from incatalog.teacher.fit import fit_teacher
from incatalog.teacher.settings import TeacherFitSettings

K, ROUNDS, ROUND_SECONDS = 5, 4, 8.0


def main() -> None:
    """Measures and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--teacher", default="", help="Run folder; a kNN is fitted if empty.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        ids = [item.item_id for item in make_model(model).catalog.items]
        teacher = options.teacher or str(Path(folder) / "teacher")
        if not options.teacher:
            data = shared_data() / "office"
            fit_teacher(TeacherFitSettings(data=data, out=Path(teacher), kind="knn"))
        guide = ("--guide", teacher, "--guide-weight", "0.7")
        servers = {"the model alone": Server(model), "guided": Server(model, *guide)}
        rates: dict[str, list[float]] = defaultdict(list)
        first: dict[str, list[float]] = defaultdict(list)
        for _ in range(ROUNDS):
            for name, server in servers.items():
                answers, seconds = crowd(server.port, options.clients, ids)
                rates[name].append(len(answers) / seconds)
                first[name] += answers
        for server in servers.values():
            server.stop()
    ratio = statistics.median(
        one / other for one, other in zip(rates["guided"], rates["the model alone"], strict=True)
    )
    rows = [
        (
            name,
            f"{statistics.median(rates[name]):.1f}",
            f"{1e3 * statistics.median(first[name]):.0f} ms",
            f"{ratio:.2f}" if name == "guided" else "1",
        )
        for name in servers
    ]
    publish(
        "guided_streams",
        f"Lists of {K} items to {options.clients} streams, guided and not",
        markdown(("answers of", "answers a second", "first piece, p50", "ratio"), rows),
    )


def crowd(port: int, clients: int, ids: Sequence[str]) -> tuple[list[float], float]:
    """Seconds to the first piece of each answer, and the seconds all took."""

    def ask(rng: random.Random) -> tuple[Any, dict[str, Any]]:
        history = rng.sample(ids, 5)
        messages = [{"role": "user", "content": "Something for my desk, please."}]
        return None, {"messages": messages, "domain": "office", "history": history, "k": K}

    asking = Crowd(port, clients, ask)
    time.sleep(ROUND_SECONDS)
    seconds = asking.stop()
    answers = [answer for _, answer in asking.answers]
    if wrong := [answer.error for answer in answers if answer.error or len(answer.items) != K]:
        sys.exit(wrong[0] or "a list is not whole")
    return [answer.first for answer in answers], seconds


if __name__ == "__main__":
    main()
