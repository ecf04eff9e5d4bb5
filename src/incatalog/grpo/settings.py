"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class GrpoConfig:
    """Train a finished model further by reinforcement learning on its own answers (GRPO).

    Attributes:
        model: Folder of a trained model; an adapter has to be merged first.
        data: Folder of prepared data, the catalog of which is the model's own.
        out: Run folder; checkpoints and the final model or adapter go here.
        reward: What an answer is rewarded for, one or more of: rule (it names a right item), ndcg
            (and how early), ranking (wrong answers lose the more the likelier they are),
            teacher (the teacher ranks its items high), diversity (of their categories), format
            (it names as many different items as asked for).
        reward_weights: Factor of each reward, in the same order; 1 each if empty.
        teacher: Run folder or URL of the teacher that the reward `teacher` asks.
        rollout: Sample the answers to a prompt, or take the likeliest different items (beam); beams
            are no samples, and need `--list-length 1`.
        list_length: Items an answer names; 0 for as many as the model was trained with. The prompt
            asks for those in either case.
        next_items: Training items after the history that count as right.
        exclude_seen: Never name items of the user's history.
        num_generations: Answers to each prompt, which are compared with one another.
        max_samples: Prompts in all, made of training interactions; users come in turn.
        max_steps: Stop after this many steps; 0 for no limit.
        temperature: Divides the scores before sampling, and in the policy that is trained.
        beta: Weight of the divergence from the model it starts with; 0 lets it go.
        epsilon: Clipping of the probability ratio.
        epsilon_high: Its upper bound, where that differs (DAPO); 0 for the same.
        loss: How the losses of tokens are averaged: within answers (grpo), over all of them (dapo,
            bnpo), or by the longest possible answer (dr_grpo).
        importance: Clip the ratio of each token, or of whole answers (GSPO).
        scale_rewards: Divide advantages by the deviation in the group, in the batch, or not.
        num_iterations: Passes over the answers before new ones are sampled.
        tune: Train LoRA adapters or all weights.
        lora_r: Rank of the adapters.
        lora_alpha: Scale of the adapters.
        lora_targets: Modules that get adapters; `all-linear` for every linear layer.
        batch_size: Answers per process and batch.
        gradient_accumulation: Batches per optimiser step.
        learning_rate: Peak learning rate.
        warmup_ratio: Share of steps with rising learning rate.
        scheduler: Learning-rate schedule of transformers.
        weight_decay: Weight decay of AdamW.
        clip_norm: Gradient norm limit; 0 for none.
        attention: Attention implementation passed to transformers.
        bf16: Train in bfloat16 mixed precision.
        validation_users: Users whose validation item says which checkpoint is best; 0 keeps the
            last one.
        checkpoint_every: Steps between checkpoints, each of which is validated.
        logging_steps: Steps between log lines.
        device: `cpu`, or auto for what accelerate finds.
        seed: Seed of prompts, answers and adapters.
    """

    model: Path
    data: Path
    out: Path
    reward: tuple[str, ...] = ("rule", "ranking")
    reward_weights: tuple[float, ...] = ()
    teacher: str = ""
    rollout: Literal["sample", "beam"] = "sample"
    list_length: int = 1
    next_items: int = 1
    exclude_seen: bool = False
    num_generations: int = 16
    max_samples: int = 10_000
    max_steps: int = 0
    temperature: float = 1.0
    beta: float = 1e-3
    epsilon: float = 0.2
    epsilon_high: float = 0.0
    loss: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "grpo"
    importance: Literal["token", "sequence"] = "token"
    scale_rewards: Literal["group", "batch", "none"] = "group"
    num_iterations: int = 1
    tune: Literal["lora", "full"] = "lora"
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_targets: str = "all-linear"
    batch_size: int = 64
    gradient_accumulation: int = 1
    learning_rate: float = 1e-5
    warmup_ratio: float = 0.03
    scheduler: Literal["linear", "cosine", "constant"] = "constant"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    attention: str = "sdpa"
    bf16: bool = False
    validation_users: int = 320
    checkpoint_every: int = 50
    logging_steps: int = 10
    device: str = "auto"
    seed: int = 0
