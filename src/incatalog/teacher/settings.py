"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TeacherFitConfig:
    """Train a SASRec teacher (arXiv 1808.09781) with full-softmax loss.

    Attributes:
        data: Folder of prepared data.
        out: Run folder.
        max_length: Newest items of a history the network sees.
        hidden: Width of item embeddings and blocks.
        inner: Width of the feed-forward layers.
        layers: Number of blocks.
        heads: Number of attention heads.
        dropout: Dropout of embeddings, attention and feed-forward layers.
        batch_size: Sequences per step.
        learning_rate: Peak learning rate of AdamW.
        weight_decay: Weight decay of AdamW.
        epochs: Epochs at most.
        patience: Stop after this many validations without a better NDCG@10.
        validate_every: Epochs between validations.
        exclude_seen: Validate with items of the history left out of the ranking.
        max_minutes: Stop after this many minutes with the best weights; 0 for no limit. A run that
            hits the limit is not reproducible to the bit.
        device: Device to train on; auto takes CUDA where there is one.
        seed: Seed of initialisation, batches and dropout.
    """

    data: Path
    out: Path
    max_length: int = 50
    hidden: int = 64
    inner: int = 256
    layers: int = 2
    heads: int = 1
    dropout: float = 0.3
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    epochs: int = 100
    patience: int = 6
    validate_every: int = 1
    exclude_seen: bool = False
    max_minutes: float = 0.0
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class ImportUnirecConfig:
    """Import a SASRec teacher that UniRec trained.

    Attributes:
        weights: UniRec's checkpoint (.pth, read without running code), or .safetensors.
        data: Folder of prepared data.
        out: Run folder.
        item_numbers: Numbers of the items in the weights: row (as `incatalog data to-unirec` gives
            them), appearance (by first appearance in sequential.jsonl, as RecLM's preprocessing
            does), or a JSON or TSV file of item ids and numbers.
        heads: Attention heads; 0 takes the checkpoint's setting, 2 if it has none.
        activation: Function between the feed-forward layers (gelu, relu, swish, tanh, sigmoid);
            empty takes the checkpoint's setting, gelu if it has none.
        norm_eps: Term that keeps layer norms from dividing by zero; 0 takes the checkpoint's
            setting, 1e-12 if it has none.
        exclude_seen: Validate with items of the history left out of the ranking.
        device: Device of the validation; auto takes CUDA where there is one.
    """

    weights: Path
    data: Path
    out: Path
    item_numbers: str = "row"
    heads: int = 0
    activation: str = ""
    norm_eps: float = 0.0
    exclude_seen: bool = False
    device: str = "auto"
