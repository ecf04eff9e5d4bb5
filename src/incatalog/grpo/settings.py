"""Settings of the commands of `grpo`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import (
    AtLeastTwo,
    Fraction,
    Headings,
    MostSamples,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Temperature,
)
from incatalog.training.settings import TrainerSettings


@dataclass(frozen=True)
class GrpoSettings(TrainerSettings):
    """Train a finished model further by reinforcement learning on its own answers (GRPO).

    Example:
        incatalog train grpo --model runs/merged --data data --reward ndcg teacher \
--teacher runs/teacher --out runs/grpo
    """

    headings: ClassVar[Headings] = {
        "data": "revision",
        "answers and rewards": (
            "reward reward_weights teacher rollout list_length next_items exclude_seen "
            "num_generations max_samples temperature"
        ),
        "loss": "beta epsilon epsilon_high loss importance scale_rewards num_iterations",
        "LoRA": "",
        "optimiser": "",
        "validation": "validation_users checkpoint_every",
        "run": "seed",
    }

    model: Path
    """Folder of a trained model, or its name on the Hugging Face hub (org/name); an adapter has to
    be merged first."""
    data: Path
    """Folder of prepared data, the catalog of which is the model's own."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub; its main branch if not given."""
    reward: tuple[str, ...] = ("rule", "ndcg")
    """What an answer is rewarded for, one or more of: rule (it names a right item), ndcg (and how
    early), ranking-aware (wrong answers lose the more the likelier they are), teacher (the teacher
    ranks its items high), diversity (of their categories), format (it names as many different items
    as asked for)."""
    reward_weights: tuple[float, ...] = ()
    """Factor of each reward, in the same order; 1 each if empty."""
    teacher: str = ""
    """Run folder or URL of the teacher that the reward `teacher` asks."""
    rollout: Literal["sample", "beam"] = "sample"
    """Sample the answers to a prompt, or take the likeliest different items (beam); beams are no
    samples, and need `--list-length 1`."""
    list_length: NonNegative = 1
    """Items an answer names; 0 for as many as the model was trained with. The prompt asks for those
    in either case."""
    next_items: Positive = 1
    """Training items after the history that count as right."""
    exclude_seen: bool = False
    """Never name items of the user's history."""
    num_generations: AtLeastTwo = 16
    """Answers to each prompt, which are compared with one another."""
    max_samples: MostSamples = 10_000
    """Prompts in all, made of training interactions; users come in turn."""
    temperature: Temperature = 1.0
    """Divides the scores before sampling, and in the policy that is trained."""
    beta: NonNegativeFloat = 1e-3
    """Weight of the divergence from the model it starts with; 0 lets it go."""
    epsilon: NonNegativeFloat = 0.2
    """Clipping of the probability ratio."""
    epsilon_high: NonNegativeFloat = 0.0
    """Its upper bound, where that differs (DAPO); 0 for the same."""
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "grpo"
    """How the losses of tokens are averaged: within answers (grpo), over all of them (dapo, bnpo),
    or by the longest possible answer (dr_grpo)."""
    importance: Literal["token", "sequence"] = "token"
    """Clip the ratio of each token, or of whole answers (GSPO)."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Divide advantages by the deviation in the group, in the batch, or not."""
    num_iterations: Positive = 1
    """Passes over the answers before new ones are sampled."""
    title_field: str = ""
    """Field by which the model knows the items; the one of its training, which it remembers, and
    another one is refused."""
    lora_alpha: float = 32.0
    batch_size: Positive = 64
    """Answers per process and batch."""
    learning_rate: PositiveFloat = 1e-5
    warmup_ratio: Fraction = 0.03
    scheduler: Literal["linear", "cosine", "constant"] = "constant"
    """Learning-rate schedule of transformers."""
    weight_decay: NonNegativeFloat = 0.0
    validation_users: NonNegative = 320
    """Users whose validation item says which checkpoint is best; 0 keeps the last one."""
    checkpoint_every: Positive = 50
    """Steps between checkpoints, each of which is validated."""
    seed: NonNegative = 0
    """Seed of prompts, answers and adapters."""
