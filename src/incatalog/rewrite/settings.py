"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class RewriteDataConfig:
    """Make the data on which titles are learned to be rewritten.

    Attributes:
        data: Folder of prepared data.
        vectors: A npy file with a vector of each item, best of titles (`--wording t`).
        out: Run folder for `rewrite.jsonl`.
        groups: Users whose histories are rewritten as a whole, at most.
        max_history: Newest items of a history that are shown.
        seed: Seed of the users, the histories and the order.
    """

    data: Path
    vectors: Path
    out: Path
    groups: int = 5000
    max_history: int = 10
    seed: int = 0


@dataclass(frozen=True)
class RewriteTrainConfig:
    """Train a chat model to rewrite titles, by GRPO with five rewards.

    Attributes:
        data: Folder of `incatalog rewrite data`.
        model: Hub name or folder of a chat model, or `smollm2`.
        scorers: YAML file that names who judges: perplexity, tokens, judge, retrieval.
        out: Run folder for the model.
        reward: Rewards to train on.
        reward_weights: Factor of each reward, in the same order; 1 each if none are given.
        num_generations: Rewrites of one row that are compared with one another.
        batch_size: Rewrites per step; a multiple of --num-generations.
        max_steps: Steps.
        max_tokens: Tokens of a rewrite at most.
        learning_rate: Peak learning rate.
        temperature: Temperature of the samples.
        beta: Weight of the divergence from the model it started from.
        tune: Train LoRA adapters, which are merged at the end, or all weights.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters.
        checkpoint_every: Steps between checkpoints.
        device: Device to train on; auto takes CUDA where there is one.
        seed: Seed of the samples and the order.
    """

    data: Path
    model: str
    scorers: Path
    out: Path
    reward: tuple[str, ...] = ("average_ppl", "length", "discriminative", "item2item", "user2item")
    reward_weights: tuple[float, ...] = ()
    num_generations: int = 8
    batch_size: int = 8
    max_steps: int = 1000
    max_tokens: int = 64
    learning_rate: float = 1e-6
    temperature: float = 1.0
    beta: float = 0.001
    tune: Literal["lora", "full"] = "lora"
    lora_r: int = 16
    lora_alpha: int = 8
    checkpoint_every: int = 100
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class RewriteApplyConfig:
    """Write paraphrases of every title with a model that rewrites.

    Attributes:
        data: Folder of prepared data.
        rows: Folder of `incatalog rewrite data` for it.
        model: Folder of `incatalog rewrite train`, or any chat model.
        out: Run folder for `paraphrases.jsonl`.
        per_item: Rewrites that are sampled for each title.
        scorers: YAML file of scorers, needed by --reward.
        reward: Rewards that a rewrite has to reach; none takes every rewrite that differs.
        least: What each of them has to be at least.
        temperature: Temperature of the samples.
        max_tokens: Tokens of a rewrite at most.
        batch_size: Titles that are rewritten side by side.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the samples.
    """

    data: Path
    rows: Path
    model: str
    out: Path
    per_item: int = 4
    scorers: Path | None = None
    reward: tuple[str, ...] = ()
    least: float = 0.5
    temperature: float = 1.0
    max_tokens: int = 48
    batch_size: int = 16
    device: str = "auto"
    seed: int = 0
