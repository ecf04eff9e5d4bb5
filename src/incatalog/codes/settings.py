"""Settings of the commands of `codes`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import (
    FractionBelowOne,
    Headings,
    NonNegative,
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Settings,
)


@dataclass(frozen=True)
class QuantizeSettings(Settings):
    """Learn codes for item vectors.

    Example:
        incatalog items quantize --vectors runs/vectors/data.emb-minilm-td.npy --out runs/codebooks
    """

    headings: ClassVar[Headings] = {
        "data": "vectors out standardise",
        "codes": (
            "method codebooks kmeans_init kmeans_iterations kmeans_sample restart_after "
            "sinkhorn_eps sinkhorn_iterations"
        ),
        "network (rqvae)": "layers e_dim batch_norm dropout",
        "loss": "beta quant_loss_weight contrastive_weight temperature",
        "optimiser": (
            "epochs batch_size learning_rate scheduler warmup_epochs weight_decay clip_norm"
        ),
        "run": "validate_every device seed",
    }

    vectors: Path
    """A npy file with a row for each item, as `incatalog items embed` writes it."""
    out: Path
    """Run folder for the quantizer."""
    method: Literal["rqvae", "rqkmeans"] = "rqvae"
    """RQ-VAE, or residual k-means: no network, done in seconds."""
    codebooks: tuple[Positive, ...] = (256, 256, 256, 256)
    """Codes at each level."""
    layers: tuple[Positive, ...] = (512, 256, 128, 64)
    """Widths of the encoder's hidden layers; the decoder has them in reverse."""
    e_dim: Positive = 32
    """Width of latent vectors and codes."""
    beta: NonNegativeFloat = 0.25
    """Weight of the commitment loss beside the codebook loss."""
    quant_loss_weight: NonNegativeFloat = 1.0
    """Weight of both beside the reconstruction loss."""
    sinkhorn_eps: tuple[NonNegativeFloat, ...] = (0.0, 0.0, 0.0, 0.003)
    """For each level, how far from the nearest code training may go to use all codes alike; 0
    always takes the nearest."""
    sinkhorn_iterations: Positive = 50
    """Sinkhorn iterations per batch at most."""
    batch_norm: bool = False
    """Normalise hidden layers over the batch."""
    dropout: FractionBelowOne = 0.0
    """Dropout before each layer."""
    contrastive_weight: NonNegativeFloat = 0.0
    """Weight of a loss that tells reconstructions of different items apart; 0 for none."""
    temperature: PositiveFloat = 0.1
    """Temperature of that loss."""
    standardise: bool = True
    """Move vectors to mean 0 and divide them by one number to unit variance."""
    kmeans_init: bool = True
    """Start with codes from k-means of the first latent vectors."""
    kmeans_iterations: Positive = 25
    """Rounds of k-means at each level."""
    kmeans_sample: int = 65_536
    """Vectors k-means learns from at most."""
    restart_after: NonNegative = 5
    """Epochs after which an unused code starts anew from a residual; 0 for never."""
    epochs: Positive = 500
    """Passes over the vectors."""
    batch_size: Positive = 1024
    """Vectors per step at most."""
    learning_rate: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    scheduler: Literal["constant", "linear"] = "constant"
    """Keep the learning rate after the warm-up, or let it fall to 0."""
    warmup_epochs: NonNegative = 10
    """Epochs with rising learning rate."""
    weight_decay: NonNegativeFloat = 0.0
    """Weight decay of AdamW."""
    clip_norm: NonNegativeFloat = 1.0
    """Gradient norm limit; 0 for none."""
    validate_every: Positive = 10
    """Epochs between validations, each of which is a checkpoint too."""
    device: str = "auto"
    """Device to train on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of initialisation, batches and dropout."""


@dataclass(frozen=True)
class AssignSettings(Settings):
    """Give each item a semantic ID of its own.

    Example:
        incatalog items assign --data data --model runs/codebooks \
--vectors runs/vectors/data.emb-minilm-td.npy --out runs/codes
    """

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder for `{dataset}.index.json`, `{dataset}.item2id` and the quality report."""
    model: str = ""
    """Run folder of `incatalog items quantize`; empty reads codes from `index`."""
    best: Literal["collision", "reconstruction"] = "collision"
    """Weights of an RQ-VAE to take: those with the fewest collisions, or with the best
    reconstruction."""
    vectors: Path | None = None
    """The npy file of item vectors; without it, items of an `index` that share their codes move to
    the lowest free last codes."""
    index: Path | None = None
    """A `.index.json` file made elsewhere, instead of `model`."""
    item2id: Path | None = None
    """Its item file; empty takes the one beside it, or else rows of the catalog."""
    repair: bool = False
    """Resolve collisions of such an index rather than refuse it."""
    extra_level: bool = False
    """Tell items with the same codes apart by one more code, rather than by another last code."""
    sinkhorn_eps: PositiveFloat = 0.003
    """Strength of the entropy when items are moved to free last codes."""
    dataset: str = ""
    """Name of the data set in file names; the name of the data folder if empty."""
    neighbours: Positive = 10
    """Nearest neighbours of an item in the quality report."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of the sample of items in the quality report."""
