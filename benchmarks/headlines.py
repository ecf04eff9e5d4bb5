"""One question and one figure of each file of results, taken from its tables."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Headline(NamedTuple):
    """What a file of results answers, and the cell that says it in one figure.

    The cell stands in the first row that begins with `row`, under `column`; `what` names it.
    """

    question: str
    row: tuple[str, ...]
    column: str
    what: str


HEADLINES = {
    "ablation": Headline(
        "What does each part of the published method buy?",
        ("without the constraint",), "OOD@10", "outside the catalog without the constraint",
    ),
    "accuracy": Headline(
        "How accurate are the three methods beside their teacher?",
        ("cgen",), "HR@10", "HR@10 of cgen, MovieLens-100K",
    ),
    "amazon": Headline(
        "What does preparing a million Amazon reviews cost?",
        ("5-core",), "seconds", "seconds, 5-core",
    ),
    "answer": Headline(
        "How long does an answer of ten items take?",
        ("office", "cgen", "8", "engine"), "against generate", "of the time of `generate`, batch 8",
    ),
    "assistant": Headline(
        "Does a chat model that was never trained recommend, and name nothing but items?",
        ("names outside spans that are no items",), "found", "names that are no items",
    ),
    "batch_lists": Headline(
        "Lists for everybody: how fast, and what do kills leave?",
        ("incatalog batch",), "of recommend_batch", "of the speed of `recommend_batch`",
    ),
    "beam": Headline(
        "How long does the search for the best items of one place take?",
        ("50",), "in all, ms", "ms, width 50, a million items",
    ),
    "chat": Headline(
        "Is it still a chat model?",
        ("smollm2",), "exactly 10 items", "of SmolLM2's lists have exactly ten items",
    ),
    "constraint": Headline(
        "What does the constraint cost?",
        ("SpanBatch (engine)",), "of a step", "of a step, batch 64",
    ),
    "distill": Headline(
        "What do soft targets of a teacher cost in a training step?",
        ("with",), "of without", "of a step without, the teacher's calls apart",
    ),
    "door": Headline(
        "What do people get over HTTP, beside the teacher alone?",
        ("smollm2, guided", "chat"), "NDCG@10", "NDCG@10 of chats with SmolLM2, guided",
    ),
    "faults": Headline(
        "What is left after kills, full disks and damaged files?",
        ("`train sft`",), "otherwise", "repeats of `train sft` that ended otherwise",
    ),
    "guided_streams": Headline(
        "What does a guide cost a service of 64 streams?",
        ("guided",), "ratio", "of the answers a second without",
    ),
    "growth": Headline(
        "How much memory does a catalog take?",
        ("tree of semantic IDs", "10,000,000"), "measured, GB", "GB, the tree of ten million IDs",
    ),
    "grpo": Headline(
        "Is the policy that is trained the one that is sampled from?",
        ("cgen",), "scoped - engine, largest", "nats between the two at most",
    ),
    "grpo_training": Headline(
        "Does GRPO improve the study's model?",
        ("test, all users", "0"), "difference", "NDCG@10 after less before",
    ),
    "loss": Headline(
        "What does the loss cost?",
        ("49k", "frozen", "scoped"), "of masked", "of the time of masked scores, 49k tokens",
    ),
    "minionerec": Headline(
        "How good are the teachers on the test rows of MiniOneRec?",
        ("**blend**",), "NDCG@10", "NDCG@10 of the blend",
    ),
    "nearest": Headline(
        "How long does finding the nearest of 100,000 vectors take?",
        ("1", "index"), "of exact", "of the exact search, one query",
    ),
    "office-token": Headline(
        "How accurate is token on the office catalog?",
        ("token, 20 epochs",), "HR@10", "HR@10",
    ),
    "paraphrases": Headline(
        "What do paraphrases of titles add to cgen?",
        ("both",), "NDCG@10 less that without", "NDCG@10 less that without",
    ),
    "prepare": Headline(
        "What does preparing ten million interactions cost?",
        ("Parquet to Parquet",), "peak memory, MB", "MB at the peak, from Parquet to Parquet",
    ),
    "products": Headline(
        "What do laid-out copies of the weights gain?",
        ("576 x 576", "1"), "of plain", "of the plain product, one row",
    ),
    "quantizers": Headline(
        "How good and how fast are the quantizers?",
        ("RQ-VAE, nearest codes",), "against ResidualVQ", "of the time of ResidualVQ",
    ),
    "quickstart": Headline(
        "How long from two files to the first answer, and how good are the answers?",
        ("chat over HTTP",), "HR@10", "HR@10 of chats about a shop of two files",
    ),
    "ranking": Headline(
        "Is it better to rank items or to write a list?",
        ("--decode beam",), "HR@10", "HR@10 of ranking",
    ),
    "remedies": Headline(
        "What helps the methods against their teacher?",
        ("ret", "trained vectors"), "less the method as it was", "NDCG@10 by trained vectors",
    ),
    "replicas": Headline(
        "Do services that share a state keep what they confirm, whichever is killed?",
        ("what was confirmed and does not hold",), "postgres", "confirmed things lost",
    ),
    "retrieval": Headline(
        "How long does an answer of ten retrieved items take?",
        ("smollm2", "office", "retrieval"), "against generate", "of `generate`'s time, batch 8",
    ),
    "scale": Headline(
        "How does time grow with the catalog?",
        ("8", "1,000,000"), "of the smallest", "times that of a thousand items, a million items",
    ),
    "serving": Headline(
        "What does the service bear?",
        ("answers a second",), "value", "answers a second to 64 streams",
    ),
    "sft": Headline(
        "What does a step of LoRA training cost?",
        ("scoped",), "of labels", "of the step with the model's own loss",
    ),
    "study": Headline("What does the study reach?", ("cgen",), "HR@10", "HR@10 of cgen"),
    "study-hour": Headline(
        "What does an hour of training reach?", ("ret",), "HR@10", "HR@10 of ret"
    ),
    "teacher_service": Headline(
        "What does the teacher's service bear?",
        ("requests a second",), "value", "requests a second from 64 clients",
    ),
    "steering": Headline(
        "Do people get what they ask for?",
        ("all films",), "meant", "of five films are what a phrase means without naming it",
    ),
    "trie": Headline(
        "What does the prefix tree cost?",
        ("1,000,000 x 4 random codes", "ItemTrie"), "build, ms", "ms to build, a million items",
    ),
    "vllm_constraint": Headline(
        "What holds titles in vLLM, and at what price?",
        ("grammar", "16,859"), "another user, s", "s to the first token of a user, 16,859 titles",
    ),
}  # fmt: skip


def cell(text: str, headline: Headline) -> str:
    """The figure of a headline.

    Raises:
        ValueError: The tables have no such row or column.
    """
    header: list[str] = []
    for line in text.splitlines():
        if not line.startswith("| "):
            header = []
            continue
        cells = [part.strip() for part in line.strip().strip("|").split("|")]
        header = header or cells
        if headline.column in header and tuple(cells[: len(headline.row)]) == headline.row:
            return cells[header.index(headline.column)]
    raise ValueError(f"no row {headline.row} with a column {headline.column!r}")


def page(results: Path) -> str:
    """A table with a row for each file of results."""
    lines = [
        "# All figures",
        "",
        "One question a line. The file behind it has all figures, and the command that made them; "
        "`python -m benchmarks NAME` measures anew.",
        "",
        "| question | figure | |",
        "| --- | --- | --- |",
    ]
    for path in sorted(results.glob("*.md")):
        if path.name != "README.md":
            headline = HEADLINES[path.stem]
            figure = cell(path.read_text(encoding="utf-8"), headline).split(", seeds")[0]
            link = f"[{path.stem}]({path.name})"
            lines.append(f"| {headline.question} | **{figure}** {headline.what} | {link} |")
    return "\n".join(lines) + "\n"
