"""Settings of the commands of `teacher`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.config import (
    FractionBelowOne,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Settings,
)


@dataclass(frozen=True)
class TeacherFitSettings(Settings):
    """Train a SASRec teacher (arXiv 1808.09781) with full-softmax loss."""

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder."""
    max_length: Positive = 50
    """Newest items of a history the network sees."""
    hidden: Positive = 64
    """Width of item embeddings and blocks."""
    inner: Positive = 256
    """Width of the feed-forward layers."""
    layers: Positive = 2
    """Number of blocks."""
    heads: Positive = 1
    """Number of attention heads."""
    dropout: FractionBelowOne = 0.3
    """Dropout of embeddings, attention and feed-forward layers."""
    batch_size: Positive = 128
    """Sequences per step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak learning rate of AdamW."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    epochs: Positive = 100
    """Epochs at most."""
    patience: Positive = 6
    """Stop after this many validations without a better NDCG@10."""
    validate_every: Positive = 1
    """Epochs between validations."""
    exclude_seen: bool = False
    """Validate with items of the history left out of the ranking."""
    max_minutes: NonNegativeFloat = 0.0
    """Stop after this many minutes with the best weights; 0 for no limit. A run that hits the limit
    is not reproducible to the bit."""
    device: str = "auto"
    """Device to train on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of initialisation, batches and dropout."""


@dataclass(frozen=True)
class ImportUnirecSettings(Settings):
    """Import a SASRec teacher that UniRec trained."""

    weights: Path
    """UniRec's checkpoint (.pth, read without running code), or .safetensors."""
    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder."""
    item_numbers: str = "row"
    """Numbers of the items in the weights: row (as `incatalog data to-unirec` gives them),
    appearance (by first appearance in sequential.jsonl, as RecLM's preprocessing does), or a JSON
    or TSV file of item ids and numbers."""
    heads: NonNegative = 0
    """Attention heads; 0 takes the checkpoint's setting, 2 if it has none."""
    activation: str = ""
    """Function between the feed-forward layers (gelu, relu, swish, tanh, sigmoid); empty takes the
    checkpoint's setting, gelu if it has none."""
    norm_eps: float = 0.0
    """Term that keeps layer norms from dividing by zero; 0 takes the checkpoint's setting, 1e-12 if
    it has none."""
    exclude_seen: bool = False
    """Validate with items of the history left out of the ranking."""
    device: str = "auto"
    """Device of the validation; auto takes CUDA where there is one."""
