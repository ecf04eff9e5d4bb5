"""Settings of the commands of `evaluation`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import (
    EmptyHistory,
    EvaluationDecode,
    Fraction,
    FractionBelowOne,
    Headings,
    Likeness,
    NonNegative,
    Positive,
    Resamples,
    Settings,
)


@dataclass(frozen=True)
class HeldOutSettings(Settings):
    """What all evaluations on the held-out item of each user have in common."""

    headings: ClassVar[Headings] = {
        "data": "model revision data out title_field vectors split users",
        "question": "k max_history wording system first_share exclude_seen",
        "run": "batch_size bootstrap device verify seed",
    }

    model: str
    """Folder of a trained model, or its name on the Hugging Face hub (org/name)."""
    data: Path
    """Folder of prepared data; another domain's data for a cross-domain run."""
    out: Path
    """Run folder for summary.json and users.parquet."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""
    title_field: str = ""
    """Field of metas.jsonl by which the model knows the items of `data`: that of its training,
    which it remembers; only another domain's data may have another one."""
    vectors: str = ""
    """Item vectors (npy) of another domain's data, for a model that retrieves."""
    split: Literal["valid", "test"] = "test"
    """Held-out item to score."""
    k: Positive = 10
    """Items per answer."""
    users: NonNegative = 0
    """Users to score at most, sampled by `seed`; 0 scores all."""
    max_history: NonNegative = 0
    """Newest items of a history the model sees; 0 for as many as in its training."""
    wording: str | None = None
    """Name of the wording to ask with, such as `test-two-turns-mention` (docs/evaluation.md lists
    them); the model's own if not given."""
    system: str | None = None
    """What a system message says in front, an empty one for none; the model's own if not given."""
    first_share: FractionBelowOne | None = None
    """How much the ranking of a list's first place counts at the places behind it, in lists and
    chats that no guide weighs; 0 for not at all. The model's own if not given: 0.5 once trained."""
    exclude_seen: bool = False
    """Never recommend items of the user's history."""
    batch_size: Positive = 64
    """Users per batch; results do not depend on it."""
    bootstrap: Resamples = 1000
    """Resamples of the confidence intervals."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
    seed: NonNegative = 0
    """Seed of the bootstrap and of the user sample."""


@dataclass(frozen=True)
class EvaluateRecommendSettings(HeldOutSettings):
    """Score recommendations on the held-out items.

    Example:
        incatalog evaluate recommend --model runs/tiny --data data --exclude-seen \
--out runs/evaluation/tiny
        incatalog evaluate recommend --model popularity --data data --exclude-seen \
--out runs/evaluation/popularity
    """

    headings: ClassVar[Headings] = {
        "data": "index",
        "question": "decode max_new_tokens",
        "guide": "guide guide_weight",
    }

    model: str
    """Folder of a trained model or of a teacher run, the name of one on the Hugging Face hub
    (org/name), the URL of a served teacher, the word popularity, or a plain chat model that was
    never trained: a Hugging Face folder or smollm2."""
    index: str = ""
    """Folder of the index files of another domain's data, for a model that writes codes; the data
    folder if empty."""
    decode: EvaluationDecode | None = None
    """How a language model answers: beam ranks the items it would write first, list has it write a
    list of items, each searched as a whole, greedy the same token by token, unconstrained without
    the catalog, to show what grounding buys. If not given, beam; unconstrained for models that name
    items in plain text, untrained or trained without control tokens."""
    max_new_tokens: Positive | None = None
    """Tokens of an unconstrained answer at most; if not given, as many as k of the longest titles
    take."""
    guide: str = "own"
    """Teacher that guides a language model: a run folder, the URL of a served one, own (the guide
    in the model's folder, if one lies there) or off."""
    guide_weight: Fraction | None = None
    """How much the guide counts, from 0 (the model alone) to 1 (the guide alone); as fitted if not
    given, 0.7 (1 for an untrained model) where nothing was fitted."""


@dataclass(frozen=True)
class GuideFitSettings(Settings):
    """Fit how much a teacher should count in a model's answers, and keep both with the model.

    Example:
        incatalog guide fit --model runs/tiny --teacher runs/teacher --data data --exclude-seen
    """

    model: Path
    """Folder of a trained model; its guide.json and guide/ are written."""
    teacher: str
    """Run folder of a teacher, which is copied, or the URL of a served one, which is kept."""
    data: Path
    """Folder of the prepared data that both were made with; only validation items are looked at."""
    title_field: str = ""
    """Field by which the model knows the items; the one of its training, which it remembers, and
    another one is refused."""
    users: Positive = 300
    """Users to fit on at most, sampled by `seed`."""
    refinements: NonNegative = 2
    """How often the best weight's neighbours are tried at half the distance, after a grid of
    quarters."""
    exclude_seen: bool = False
    """Never recommend items of the user's history."""
    guide_empty: EmptyHistory | None = None
    """What the guide says of a user without history: popularity, or nothing (the model answers
    alone); if not given, popularity where the teacher knows it."""
    batch_size: Positive = 64
    """Users per batch; results do not depend on it."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
    seed: NonNegative = 0
    """Seed of the user sample and of the bootstrap."""


@dataclass(frozen=True)
class EvaluateChatSettings(HeldOutSettings):
    """Score conversations of three rounds: a worked question, a recommendation, a question.

    Example:
        incatalog evaluate chat --model runs/tiny --data data --questions gsm8k.jsonl \
--out runs/evaluation/chat
    """

    headings: ClassVar[Headings] = {
        "data": "questions examples chat before index chats",
        "question": "grounded max_new_tokens max_length likeness",
    }

    out: Path
    """Run folder for summary.json, users.parquet and conversations.jsonl."""
    questions: Path = field(kw_only=True)
    """Questions with answers, such as GSM8K: JSON lines with `question` and `answer`, or a ShareGPT
    file."""
    examples: Path | None = None
    """Worked questions of the first round; other ones of `questions` if not given."""
    chat: Path | None = None
    """Held-out general conversations (ShareGPT) for the perplexity; none if not given."""
    before: str = ""
    """The backbone before training (hub name, folder, or smollm2), for its perplexity on the same
    conversations; needs `chat`."""
    index: str = ""
    """Folder of the index files of another domain's data, for a model that writes codes; the data
    folder if empty."""
    users: NonNegative = 64
    """Conversations, each with another user, sampled by `seed`; 0 takes all users."""
    chats: NonNegative = 100
    """General conversations of the perplexity at most, the first of the file; 0 takes all."""
    max_history: Positive = 10
    """Newest items of a history the model sees."""
    grounded: bool = True
    """Hold items to the catalog; without it, to show what that buys."""
    max_new_tokens: Positive = 256
    """Tokens of an answer at most, beside those of k items in the second round."""
    max_length: Positive = 1024
    """Tokens of a general conversation at most; its newest exchanges are cut."""
    likeness: Likeness = 88.0
    """Likeness, from 0 to 100, at which a name in free text counts as a title."""
    batch_size: Positive = 16
    """Conversations per batch; results do not depend on it."""
    seed: NonNegative = 0
    """Seed of the bootstrap, and of the users and questions drawn."""


@dataclass(frozen=True)
class EvaluateRetrievalSettings(HeldOutSettings):
    """Score the retrieval head at each place of an answer.

    Example:
        incatalog evaluate retrieval --model runs/ret --data data --out runs/evaluation/retrieval
    """

    headings: ClassVar[Headings] = {
        "question": "cutoff",
    }

    model: str
    """Folder of a model trained with `--method ret`, or its name on the Hugging Face hub."""
    out: Path
    """Run folder for summary.json, places.parquet, and the similarity of the states."""
    cutoff: Positive = 10
    """The held-out item counts as found among this many best ones."""


@dataclass(frozen=True)
class EvaluateGeneralSettings(Settings):
    """Score general ability by tasks of lm-eval, before and after training.

    Example:
        incatalog evaluate general --model runs/merged --tasks arc_easy piqa \
--out runs/evaluation/general
    """

    headings: ClassVar[Headings] = {
        "data": "model revision tasks out before task_path only_local",
        "question": "few_shot limit chat_template",
        "run": "batch_size device verify seed",
    }

    model: str
    """Folder of a trained model, or its name on the Hugging Face hub (org/name)."""
    tasks: tuple[str, ...]
    """Tasks by their names in lm-eval."""
    out: Path
    """Run folder for summary.json."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""
    before: str = ""
    """The backbone before training (hub name, folder, or smollm2); empty for none."""
    task_path: Path | None = None
    """Folder with task files (YAML) of your own."""
    only_local: bool = False
    """Know these tasks only, which also starts faster."""
    few_shot: int = -1
    """Worked examples in the prompt; -1 takes what the task says."""
    limit: NonNegative = 0
    """Questions of a task at most; 0 takes all."""
    chat_template: bool = False
    """Put questions as messages of a chat."""
    batch_size: Positive = 8
    """Questions per batch."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    verify: bool = True
    """Check the model's files against the checksums recorded when it was trained; false loads huge
    models sooner."""
    seed: NonNegative = 0
    """Seed of the examples drawn."""


@dataclass(frozen=True)
class EvaluateCompareSettings(Settings):
    """Test whether runs differ, user by user.

    Example:
        incatalog evaluate compare runs/evaluation/tiny runs/evaluation/popularity
    """

    runs: tuple[str, ...]
    """Two or more run folders of `incatalog evaluate recommend`, scored on the same users."""
    out: Path | None = None
    """Run folder for comparison.json; without it the table is only printed."""
    metrics: tuple[str, ...] = ()
    """Metrics to compare; hit rate and NDCG of the whole answer if none are given."""
    resamples: Resamples = 10_000
    """Resamples of the intervals, and random permutations of the test."""
    seed: NonNegative = 0
    """Seed of both."""


@dataclass(frozen=True)
class EvaluateReportSettings(Settings):
    """Write one HTML page about evaluation runs.

    Example:
        incatalog evaluate report runs/evaluation/tiny runs/evaluation/popularity --out runs/report
    """

    runs: tuple[str, ...]
    """Run folders of `incatalog evaluate recommend` and `incatalog evaluate chat`."""
    out: Path
    """Run folder for report.html."""
    title: str = "Evaluation"
    """Heading of the page."""
    examples: NonNegative = 2
    """Users whose lists are shown, and conversations shown of each run."""
    resamples: Resamples = 2000
    """Resamples and permutations of the tests between runs."""
    seed: NonNegative = 0
    """Seed of both."""
