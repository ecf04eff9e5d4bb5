"""Does a model recommend and stay a chat model? Conversations of three rounds with each method.

Every test user of MovieLens-100K with tiny models of the recipes, and some with SmolLM2-135M. It
goes on where it was stopped.

python -m benchmarks.chat [--jobs 2] [--smollm2-users 32]
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.report import markdown, publish, shared_data
from benchmarks.study import DOMAINS, RECIPES, Study, mixed_precision, side_by_side

from reclm.artifacts import read_json, write_json

_DOMAIN = DOMAINS["movielens"]
_SEED = 0
_MIXED = ("--chat-ratio", 0.2, "--multi-round-ratio", 0.2)
_METRICS = ("HR@10", "NDCG@10", "OOD@10")
_ROUNDS = ("ExactlyK", "NoControl", "Numbered", "Accuracy")


@dataclass(frozen=True)
class Talk:
    """A model to talk with.

    Attributes:
        name: Its name in the table, and of its runs.
        method: Its method.
        mixed: Whether its training had general conversations.
    """

    name: str
    method: str
    mixed: bool


_TINY = (
    Talk("cgen-chat", "cgen", mixed=True),
    Talk("token-chat", "token", mixed=True),
    Talk("ret-chat", "ret", mixed=True),
    Talk("cgen", "cgen", mixed=False),
)


def main() -> None:
    """Trains and talks as far as that is not done yet, and writes ``results/chat.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--users", type=int, default=0, help="Users of tiny models; 0 for all.")
    parser.add_argument("--smollm2-users", type=int, default=32, help="Conversations of SmolLM2.")
    parser.add_argument("--smollm2-steps", type=int, default=30, help="Steps of its training.")
    parser.add_argument("--jobs", type=int, default=2, help="Runs at a time.")
    parser.add_argument("--threads", type=int, default=1, help="Threads of each run.")
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    study.teacher(_DOMAIN, _SEED)
    learned, held_out = conversations(study)
    side_by_side(
        options.jobs,
        [
            partial(tiny, study, learned, held_out, options.users),
            partial(smollm2, study, learned, held_out, options),
        ],
    )
    publish("chat", "A recommender, and still a chat model?", report(study))


def conversations(study: Study) -> tuple[Path, Path]:
    """The general conversations, every fifth of them held out."""
    file = shared_data() / "chat" / "sharegpt_sample.json"
    every = json.loads(file.read_text(encoding="utf-8"))
    learned, held_out = study.folder / "chat-learned.json", study.folder / "chat-held-out.json"
    write_json(learned, [one for at, one in enumerate(every) if at % 5])
    write_json(held_out, every[::5])
    return learned, held_out


def tiny(study: Study, learned: Path, held_out: Path, users: int) -> None:
    """Trains the tiny models and has each talk with every user."""
    for talk in _TINY:
        extra = ("--chat", learned, *_MIXED) if talk.mixed else ()
        model = study.model(_DOMAIN, talk.method, _SEED, name=talk.name, extra=extra)
        talks(study, talk.name, model, held_out, "--users", users, "--max-new-tokens", 64)


def smollm2(study: Study, learned: Path, held_out: Path, options: argparse.Namespace) -> None:
    """Trains SmolLM2 for some steps, and has it talk with some users."""
    trained = study.reclm(
        study.of(_DOMAIN, _SEED) / "smollm2-adapter",
        *("train", "sft", "--config", RECIPES / "smollm2" / "cgen.yaml", "--seed", _SEED),
        *("--data", study.data(_DOMAIN), "--teacher", study.teacher(_DOMAIN, _SEED)),
        *("--chat", learned, "--batch-size", 4, "--max-steps", options.smollm2_steps),
        *mixed_precision(),
    )
    model = study.reclm(
        study.of(_DOMAIN, _SEED) / "smollm2", "train", "merge", "--run", trained
    )  # fmt: skip
    few = ("--users", options.smollm2_users, "--max-new-tokens", 96, "--batch-size", 8)
    talks(study, "smollm2", model, held_out, *few, "--before", "smollm2", "--chats", 40)


def talks(study: Study, name: str, model: Path, held_out: Path, *extra: object) -> Path:
    """Has a model hold conversations."""
    questions = shared_data() / "gsm8k"
    return study.reclm(
        folder(study, name),
        *("evaluate", "chat", "--model", model, "--data", study.data(_DOMAIN), "--exclude-seen"),
        *("--questions", questions / "test.jsonl", "--examples", questions / "train.jsonl"),
        *("--chat", held_out, "--seed", _SEED, *extra),
    )


def folder(study: Study, name: str) -> Path:
    """Where the conversations of a model lie."""
    return study.of(_DOMAIN, _SEED) / "conversations" / name


def report(study: Study) -> str:
    """The tables, and what a conversation looks like."""
    names = [*(talk.name for talk in _TINY), "smollm2"]
    found = {name: read_json(folder(study, name) / "summary.json") for name in names}
    header = ("model", "users", *_METRICS, "exactly 10 items", "no control token", "some number",
              "right number", "titles in free text", "perplexity")  # fmt: skip
    rows = []
    for name, summary in found.items():
        values = [summary["metrics"].get(metric) for metric in _METRICS]
        values += [summary["rounds"].get(metric) for metric in _ROUNDS]
        perplexity = summary["perplexity"]
        shown = f"{perplexity['after']['value']:.1f}"
        if "before" in perplexity:
            shown += f" (before training {perplexity['before']['value']:.1f})"
        rows.append(
            (name, summary["users"], *map(_cell, values), summary["free_text"]["titles"], shown)
        )
    return f"{markdown(header, rows)}\n\n{_NOTES}"


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    if found["low"] == found["high"]:
        return f"{found['value']:g}"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


_NOTES = """\
MovieLens-100K, seen items excluded, in brackets 95 % of the bootstrap. Round 0 is a worked GSM8K
example, round 1 asks for ten items (`HR@10` to `exactly 10 items`, and titles named outside item
spans), round 2 asks a GSM8K test question (`no control token` to `right number`). Perplexity is
that of held-out general conversations."""


if __name__ == "__main__":
    main()
