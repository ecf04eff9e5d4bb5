"""Settings of the commands of `rewrite`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from incatalog.config import (
    AtLeastTwo,
    Bounds,
    Headings,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Settings,
    Temperature,
)


@dataclass(frozen=True)
class RewriteDataSettings(Settings):
    """Make the data on which titles are learned to be rewritten.

    Example:
        incatalog rewrite data --data data --vectors runs/vectors/data.emb-minilm-t.npy \
--out runs/rows
    """

    data: Path
    """Folder of prepared data."""
    vectors: Path
    """A npy file with a vector of each item, best of titles (`--wording t`)."""
    out: Path
    """Run folder for `rewrite.jsonl`."""
    title_field: str = "title"
    """Text field of metas.jsonl that is to be rewritten."""
    groups: NonNegative = 5000
    """Users whose histories are rewritten as a whole, at most."""
    max_history: Positive = 10
    """Newest items of a history that are shown."""
    seed: NonNegative = 0
    """Seed of the users, the histories and the order."""


@dataclass(frozen=True)
class RewriteTrainSettings(Settings):
    """Train a chat model to rewrite titles, by GRPO with five rewards.

    Example:
        incatalog rewrite train --data runs/rows --model smollm2 --scorers scorers.yaml \
--out runs/rewriter
    """

    headings: ClassVar[Headings] = {
        "data": "data model scorers out",
        "rewards": "reward reward_weights num_generations max_tokens temperature beta",
        "LoRA": "tune lora_r lora_alpha",
        "optimiser": "batch_size max_steps learning_rate",
        "run": "checkpoint_every report_to device seed",
    }

    data: Path
    """Folder of `incatalog rewrite data`."""
    model: str
    """Hub name or folder of a chat model, or `smollm2`."""
    scorers: Path
    """YAML file that names who judges: perplexity, tokens, judge, retrieval."""
    out: Path
    """Run folder for the model."""
    reward: tuple[str, ...] = ("average_ppl", "length", "discriminative", "item2item", "user2item")
    """Rewards to train on."""
    reward_weights: tuple[float, ...] = ()
    """Factor of each reward, in the same order; 1 each if none are given."""
    num_generations: AtLeastTwo = 8
    """Rewrites of one row that are compared with one another."""
    batch_size: Positive = 8
    """Rewrites per step; a multiple of --num-generations."""
    max_steps: Positive = 1000
    """Steps."""
    max_tokens: Positive = 64
    """Tokens of a rewrite at most."""
    learning_rate: PositiveFloat = 1e-6
    """Peak learning rate."""
    temperature: Temperature = 1.0
    """Temperature of the samples."""
    beta: NonNegativeFloat = 0.001
    """Weight of the divergence from the model it started from."""
    tune: Literal["lora", "full"] = "lora"
    """Train LoRA adapters, which are merged at the end, or all weights."""
    lora_r: Positive = 16
    """Rank of the adapters."""
    lora_alpha: int = 8
    """Scale of the adapters."""
    checkpoint_every: Positive = 100
    """Steps between checkpoints."""
    report_to: tuple[str, ...] = ("tensorboard",)
    """Who is told the log, one or more of: tensorboard (in the run folder), mlflow, wandb, trackio;
    or none."""
    device: str = "auto"
    """Device to train on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of the samples and the order."""


@dataclass(frozen=True)
class RewriteApplySettings(Settings):
    """Write paraphrases of every title with a model that rewrites.

    Example:
        incatalog rewrite apply --data data --rows runs/rows --model runs/rewriter --out runs/names
    """

    headings: ClassVar[Headings] = {
        "data": "data rows model out title_field",
        "rewrites": "per_item temperature max_tokens",
        "rewards": "scorers reward least",
        "run": "batch_size device seed",
    }

    data: Path
    """Folder of prepared data."""
    rows: Path
    """Folder of `incatalog rewrite data` for it."""
    model: str
    """Folder of `incatalog rewrite train`, or any chat model."""
    out: Path
    """Run folder for `paraphrases.jsonl`."""
    title_field: str = "title"
    """Text field of metas.jsonl that is rewritten, the one of the rows."""
    per_item: Annotated[int, Bounds(1, 1000)] = 4
    """Rewrites that are sampled for each title."""
    scorers: Path | None = None
    """YAML file of scorers, needed by --reward."""
    reward: tuple[str, ...] = ()
    """Rewards that a rewrite has to reach; none takes every rewrite that differs."""
    least: float = 0.5
    """What each of them has to be at least."""
    temperature: Temperature = 1.0
    """Temperature of the samples."""
    max_tokens: Positive = 48
    """Tokens of a rewrite at most."""
    batch_size: Positive = 16
    """Titles that are rewritten side by side."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of the samples."""


@dataclass(frozen=True)
class RewriteCatalogSettings(Settings):
    """Write prepared data whose items are named by their paraphrases.

    Example:
        incatalog rewrite catalog --paraphrases runs/names/paraphrases.jsonl --data data \
--out renamed
    """

    paraphrases: Path
    """File of `incatalog rewrite apply` for the data; of each item the first that can be used
    counts."""
    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder for the same data, where `title_t` of each item is its new name."""
    title_field: str = "title"
    """Text field of metas.jsonl that was rewritten; an item without a usable paraphrase keeps
    it."""
