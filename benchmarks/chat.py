"""Does a model recommend and stay a chat model? Conversations of three rounds with each method.

Every test user of MovieLens-100K with tiny models of the recipes, and some with SmolLM2-135M. It
goes on where it was stopped.

python -m benchmarks.chat [--models cgen token ret smollm2] [--steps 300]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.report import markdown, publish, shared_data
from benchmarks.study import DOMAINS, RECIPES, Study, mixed_precision

from incatalog.artifacts import read_json, write_json

_DOMAIN = DOMAINS["movielens"]
_SEED = 0
_TINY = ("cgen", "token", "ret")
_SMOLLM2 = "smollm2"
_ALL = [*_TINY, _SMOLLM2]
_MIXED = ("--chat-ratio", 0.2, "--multi-round-ratio", 0.2)
# As many questions as there are general conversations.
_QUESTIONS = 500
# Marks of a calculator in the answers of GSM8K.
_CALCULATOR = re.compile(r"<<.*?>>")
_METRICS = ("HR@10", "NDCG@10", "OOD@10")
_ROUNDS = ("ExactlyK", "NoControl", "Numbered", "Accuracy")


def main() -> None:
    """Trains and talks as far as that is not done yet, and writes ``results/chat.md``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/study"), help="Folder of all runs.")
    parser.add_argument("--models", nargs="+", choices=(*_TINY, _SMOLLM2), default=_ALL)
    parser.add_argument("--users", type=int, default=0, help="Users of tiny models; 0 for all.")
    parser.add_argument("--steps", type=int, default=0, help="Their steps; 0 for the recipe's.")
    parser.add_argument("--smollm2-users", type=int, default=32, help="Conversations of SmolLM2.")
    parser.add_argument("--smollm2-steps", type=int, default=150, help="Steps of its training.")
    parser.add_argument(
        "--smollm2-mix",
        nargs=2,
        type=float,
        default=(0.2, 0.3),
        metavar=("CHAT", "ROUNDS"),
        help="Conversations per sample of its training, and share of samples with a turn of one.",
    )
    parser.add_argument("--threads", type=int, default=1, help="Threads of each run.")
    options = parser.parse_args()
    study = Study(options.out.resolve(), options.threads)
    study.folder.mkdir(parents=True, exist_ok=True)
    learned, held_out = conversations(study)
    found = {}
    for name in options.models:
        talk = smollm2 if name == _SMOLLM2 else partial(tiny, method=name)
        found[name] = read_json(talk(study, learned, held_out, options) / "summary.json")
    publish("chat", "A recommender, and still a chat model?", report(study, found))


def conversations(study: Study) -> tuple[Path, Path]:
    """General conversations and questions with their answers, every fifth of them held out."""
    file = shared_data() / "chat" / "sharegpt_sample.json"
    every = json.loads(file.read_text(encoding="utf-8"))
    with (shared_data() / "gsm8k" / "train.jsonl").open(encoding="utf-8") as lines:
        every += [question_and_answer(json.loads(line)) for line in islice(lines, _QUESTIONS)]
    learned, held_out = study.folder / "chat-learned.json", study.folder / "chat-held-out.json"
    write_json(learned, [one for at, one in enumerate(every) if at % 5])
    write_json(held_out, every[::5])
    return learned, held_out


def question_and_answer(row: Mapping[str, str]) -> dict[str, Any]:
    """A row of GSM8K in the format of ShareGPT."""
    answer = _CALCULATOR.sub("", row["answer"])
    said = (("human", row["question"]), ("gpt", answer))
    return {"conversations": [{"from": speaker, "value": text} for speaker, text in said]}


def tiny(
    study: Study, learned: Path, held_out: Path, options: argparse.Namespace, method: str
) -> Path:
    """Trains a tiny model, general conversations among its samples, and has it talk."""
    extra = ("--chat", learned, *_MIXED, "--max-steps", options.steps)
    name = f"{method}-chat"
    model = study.model(_DOMAIN, method, _SEED, name=name, extra=extra)
    many = ("--users", options.users, "--max-new-tokens", 64, "--batch-size", 64)
    return talks(study, name, model, held_out, *many)


def smollm2(study: Study, learned: Path, held_out: Path, options: argparse.Namespace) -> Path:
    """Trains SmolLM2 for some steps, and has it talk with some users."""
    trained = study.incatalog(
        study.of(_DOMAIN, _SEED) / "smollm2-adapter",
        *("train", "sft", "--config", RECIPES / "smollm2" / "cgen.yaml", "--seed", _SEED),
        *("--data", study.data(_DOMAIN), "--teacher", study.teacher(_DOMAIN, _SEED)),
        *("--chat", learned, "--batch-size", 4, "--max-steps", options.smollm2_steps),
        *("--chat-ratio", options.smollm2_mix[0], "--multi-round-ratio", options.smollm2_mix[1]),
        *mixed_precision(),
    )
    merged = study.of(_DOMAIN, _SEED) / "smollm2"
    model = study.incatalog(merged, "train", "merge", "--run", trained)
    few = ("--users", options.smollm2_users, "--max-new-tokens", 128, "--batch-size", 8)
    return talks(study, _SMOLLM2, model, held_out, *few, "--before", "smollm2", "--chats", 20)


def talks(study: Study, name: str, model: Path, held_out: Path, *extra: object) -> Path:
    """Has a model hold conversations."""
    questions = shared_data() / "gsm8k"
    return study.incatalog(
        study.of(_DOMAIN, _SEED) / "conversations" / name,
        *("evaluate", "chat", "--model", model, "--data", study.data(_DOMAIN), "--exclude-seen"),
        *("--questions", questions / "test.jsonl", "--examples", questions / "train.jsonl"),
        *("--chat", held_out, "--seed", _SEED, *extra),
    )


def report(study: Study, found: Mapping[str, Mapping[str, Any]]) -> str:
    """The tables of some summaries."""
    recommended, talked = [], []
    for name, summary in found.items():
        trained = "smollm2-adapter" if name == _SMOLLM2 else f"{name}-chat"
        run = read_json(study.of(_DOMAIN, _SEED) / trained / "manifest.json")["results"]
        minutes = study.minutes(_DOMAIN, trained, [_SEED])
        metrics, rounds = summary["metrics"], summary["rounds"]
        training = (run["steps"], f"{minutes:.1f}")
        lists = [_cell(metrics.get(metric)) for metric in _METRICS] + [_cell(rounds["ExactlyK"])]
        outside = summary["free_text"]["titles"]
        recommended.append([name, *training, summary["users"], *lists, outside])
        perplexities = [_cell(summary["perplexity"].get(when)) for when in ("before", "after")]
        talked.append([name, *(_cell(rounds.get(metric)) for metric in _ROUNDS[1:]), *perplexities])
    first = ("model", "steps", "minutes of training", "users", *_METRICS, "exactly 10 items",
             "titles outside spans")  # fmt: skip
    second = ("model", "no control token", "some number", "right number", "perplexity before",
              "after")  # fmt: skip
    return "\n\n".join(
        ["Round 1, ten movies:", markdown(first, recommended), "Round 2, a GSM8K question:",
         markdown(second, talked), _NOTES]
    )  # fmt: skip


def _cell(found: dict[str, float] | None) -> str:
    if found is None:
        return "–"
    if found["low"] == found["high"]:
        return f"{found['value']:g}"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


_NOTES = """\
MovieLens-100K, seen items excluded, in brackets 95 % of the bootstrap over conversations. Round 0
is a worked GSM8K example in the same conversation. Mixed in are 400 general conversations and 400
questions of the training set of GSM8K; those of round 2 are of its test set. Tiny models start from
scratch: this and movies are all the language they meet, and nobody expects right numbers of them.
What counts is that no item is outside the catalog, whatever they are asked. Perplexity is that of
general conversations that were held out, which are much like those that were not: 500 with 20
different openings. Minutes are those of one processor core."""


if __name__ == "__main__":
    main()
