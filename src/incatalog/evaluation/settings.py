"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from incatalog.config import EvaluationDecode


@dataclass(frozen=True)
class EvaluateRecommendConfig:
    """Score recommendations on the held-out items.

    Attributes:
        model: Folder of a trained model or of a teacher run, the URL of a served teacher, or the
            word popularity.
        data: Folder of prepared data; another domain's data for a cross-domain run.
        out: Run folder for summary.json and users.parquet.
        index: Folder of the index files of another domain's data, for a model that writes codes;
            the data folder if empty.
        vectors: Item vectors (npy) of another domain's data, for a model that retrieves.
        split: Held-out item to score.
        k: Items per answer.
        users: Users to score at most, sampled by `seed`; 0 scores all.
        max_history: Newest items of a history the model sees; 0 for as many as in its training.
        exclude_seen: Never recommend items of the user's history.
        decode: How a language model answers: beam ranks the items it would write first, list has it
            write a list, unconstrained the same without the catalog, to show what grounding buys.
        batch_size: Users per batch; results do not depend on it.
        bootstrap: Resamples of the confidence intervals.
        device: Device to run on; auto takes CUDA where there is one.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
        seed: Seed of the bootstrap and of the user sample.
    """

    model: str
    data: Path
    out: Path
    index: str = ""
    vectors: str = ""
    split: Literal["valid", "test"] = "test"
    k: int = 10
    users: int = 0
    max_history: int = 0
    exclude_seen: bool = False
    decode: EvaluationDecode = "beam"
    batch_size: int = 64
    bootstrap: int = 1000
    device: str = "auto"
    verify: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EvaluateChatConfig:
    """Score conversations of three rounds: a worked question, a recommendation, a question.

    Attributes:
        model: Folder of a trained model.
        data: Folder of prepared data; another domain's data for a cross-domain run.
        questions: Questions with answers, such as GSM8K: JSON lines with `question` and `answer`,
            or a ShareGPT file.
        out: Run folder for summary.json, users.parquet and conversations.jsonl.
        examples: Worked questions of the first round; other ones of `questions` if not given.
        chat: Held-out general conversations (ShareGPT) for the perplexity; none if not given.
        before: The backbone before training (hub name, folder, or smollm2), for its perplexity on
            the same conversations; needs `chat`.
        index: Folder of the index files of another domain's data, for a model that writes codes;
            the data folder if empty.
        vectors: Item vectors (npy) of another domain's data, for a model that retrieves.
        split: Held-out item to score.
        k: Items asked for.
        users: Conversations, each with another user, sampled by `seed`; 0 takes all users.
        chats: General conversations of the perplexity at most, the first of the file; 0 takes all.
        max_history: Newest items of a history the model sees.
        exclude_seen: Never recommend items of the user's history.
        grounded: Hold items to the catalog; without it, to show what that buys.
        max_new_tokens: Tokens of an answer at most, beside those of k items in the second round.
        max_length: Tokens of a general conversation at most; its newest exchanges are cut.
        likeness: Likeness, from 0 to 100, at which a name in free text counts as a title.
        batch_size: Conversations per batch; results do not depend on it.
        bootstrap: Resamples of the confidence intervals.
        device: Device to run on; auto takes CUDA where there is one.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
        seed: Seed of the bootstrap, and of the users and questions drawn.
    """

    model: str
    data: Path
    questions: Path
    out: Path
    examples: Path | None = None
    chat: Path | None = None
    before: str = ""
    index: str = ""
    vectors: str = ""
    split: Literal["valid", "test"] = "test"
    k: int = 10
    users: int = 64
    chats: int = 100
    max_history: int = 10
    exclude_seen: bool = False
    grounded: bool = True
    max_new_tokens: int = 256
    max_length: int = 1024
    likeness: float = 88.0
    batch_size: int = 16
    bootstrap: int = 1000
    device: str = "auto"
    verify: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EvaluateRetrievalConfig:
    """Score the retrieval head at each place of an answer.

    Attributes:
        model: Folder of a model trained with `--method ret`.
        data: Folder of prepared data; another domain's data for a cross-domain run.
        out: Run folder for summary.json, places.parquet, and the similarity of the states.
        vectors: Item vectors (npy) of another domain's data.
        split: Held-out item to score.
        k: Items per answer.
        cutoff: The held-out item counts as found among this many best ones.
        users: Users to score at most, sampled by `seed`; 0 scores all.
        max_history: Newest items of a history the model sees; 0 for as many as in its training.
        exclude_seen: Never recommend items of the user's history.
        batch_size: Users per batch; results do not depend on it.
        bootstrap: Resamples of the confidence intervals.
        device: Device to run on; auto takes CUDA where there is one.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
        seed: Seed of the bootstrap and of the user sample.
    """

    model: str
    data: Path
    out: Path
    vectors: str = ""
    split: Literal["valid", "test"] = "test"
    k: int = 10
    cutoff: int = 10
    users: int = 0
    max_history: int = 0
    exclude_seen: bool = False
    batch_size: int = 64
    bootstrap: int = 1000
    device: str = "auto"
    verify: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EvaluateGeneralConfig:
    """Score general ability by tasks of lm-eval, before and after training.

    Attributes:
        model: Folder of a trained model.
        tasks: Tasks by their names in lm-eval.
        out: Run folder for summary.json.
        before: The backbone before training (hub name, folder, or smollm2); empty for none.
        task_path: Folder with task files (YAML) of your own.
        only_local: Know these tasks only, which also starts faster.
        few_shot: Worked examples in the prompt; -1 takes what the task says.
        limit: Questions of a task at most; 0 takes all.
        chat_template: Put questions as messages of a chat.
        batch_size: Questions per batch.
        device: Device to run on; auto takes CUDA where there is one.
        verify: Check the model's files against the checksums recorded when it was trained;
            false loads huge models sooner.
        seed: Seed of the examples drawn.
    """

    model: str
    tasks: tuple[str, ...]
    out: Path
    before: str = ""
    task_path: Path | None = None
    only_local: bool = False
    few_shot: int = -1
    limit: int = 0
    chat_template: bool = False
    batch_size: int = 8
    device: str = "auto"
    verify: bool = True
    seed: int = 0


@dataclass(frozen=True)
class EvaluateCompareConfig:
    """Test whether runs differ, user by user.

    Attributes:
        runs: Two or more run folders of `incatalog evaluate recommend`, scored on the same users.
        out: Run folder for comparison.json; without it the table is only printed.
        metrics: Metrics to compare; hit rate and NDCG of the whole answer if none are given.
        resamples: Resamples of the intervals, and random permutations of the test.
        seed: Seed of both.
    """

    runs: tuple[str, ...]
    out: Path | None = None
    metrics: tuple[str, ...] = ()
    resamples: int = 10_000
    seed: int = 0


@dataclass(frozen=True)
class EvaluateReportConfig:
    """Write one HTML page about evaluation runs.

    Attributes:
        runs: Run folders of `incatalog evaluate recommend` and `incatalog evaluate chat`.
        out: Run folder for report.html.
        title: Heading of the page.
        examples: Conversations or lists shown of each run.
        resamples: Resamples and permutations of the tests between runs.
        seed: Seed of both.
    """

    runs: tuple[str, ...]
    out: Path
    title: str = "Evaluation"
    examples: int = 2
    resamples: int = 2000
    seed: int = 0
