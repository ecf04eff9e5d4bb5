"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class QuantizeConfig:
    """Learn codes for item vectors.

    Attributes:
        vectors: A npy file with a row for each item, as `incatalog items embed` writes it.
        out: Run folder for the quantizer.
        method: RQ-VAE, or residual k-means: no network, done in seconds.
        codebooks: Codes at each level.
        layers: Widths of the encoder's hidden layers; the decoder has them in reverse.
        e_dim: Width of latent vectors and codes.
        beta: Weight of the commitment loss beside the codebook loss.
        quant_loss_weight: Weight of both beside the reconstruction loss.
        sinkhorn_eps: For each level, how far from the nearest code training may go to use all
            codes alike; 0 always takes the nearest.
        sinkhorn_iterations: Sinkhorn iterations per batch at most.
        batch_norm: Normalise hidden layers over the batch.
        dropout: Dropout before each layer.
        contrastive_weight: Weight of a loss that tells reconstructions of different items apart; 0
            for none.
        temperature: Temperature of that loss.
        standardise: Move vectors to mean 0 and divide them by one number to unit variance.
        kmeans_init: Start with codes from k-means of the first latent vectors.
        kmeans_iterations: Rounds of k-means at each level.
        kmeans_sample: Vectors k-means learns from at most.
        restart_after: Epochs after which an unused code starts anew from a residual; 0 for never.
        epochs: Passes over the vectors.
        batch_size: Vectors per step at most.
        learning_rate: Peak learning rate of AdamW.
        scheduler: Keep the learning rate after the warm-up, or let it fall to 0.
        warmup_epochs: Epochs with rising learning rate.
        weight_decay: Weight decay of AdamW.
        clip_norm: Gradient norm limit; 0 for none.
        validate_every: Epochs between validations, each of which is a checkpoint too.
        device: Device to train on; auto takes CUDA where there is one.
        seed: Seed of initialisation, batches and dropout.
    """

    vectors: Path
    out: Path
    method: Literal["rqvae", "rqkmeans"] = "rqvae"
    codebooks: tuple[int, ...] = (256, 256, 256, 256)
    layers: tuple[int, ...] = (512, 256, 128, 64)
    e_dim: int = 32
    beta: float = 0.25
    quant_loss_weight: float = 1.0
    sinkhorn_eps: tuple[float, ...] = (0.0, 0.0, 0.0, 0.003)
    sinkhorn_iterations: int = 50
    batch_norm: bool = False
    dropout: float = 0.0
    contrastive_weight: float = 0.0
    temperature: float = 0.1
    standardise: bool = True
    kmeans_init: bool = True
    kmeans_iterations: int = 25
    kmeans_sample: int = 65_536
    restart_after: int = 5
    epochs: int = 500
    batch_size: int = 1024
    learning_rate: float = 1e-3
    scheduler: Literal["constant", "linear"] = "constant"
    warmup_epochs: int = 10
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    validate_every: int = 10
    device: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class AssignConfig:
    """Give each item a semantic ID of its own.

    Attributes:
        data: Folder of prepared data.
        out: Run folder for `{dataset}.index.json`, `{dataset}.item2id` and the quality report.
        model: Run folder of `incatalog items quantize`; empty reads codes from `index`.
        best: Weights of an RQ-VAE to take: those with the fewest collisions, or with the best
            reconstruction.
        vectors: The npy file of item vectors; without it, items of an `index` that share their
            codes move to the lowest free last codes.
        index: A `.index.json` file made elsewhere, instead of `model`.
        item2id: Its item file; empty takes the one beside it, or else rows of the catalog.
        repair: Resolve collisions of such an index rather than refuse it.
        extra_level: Tell items with the same codes apart by one more code, rather than by another
            last code.
        sinkhorn_eps: Strength of the entropy when items are moved to free last codes.
        dataset: Name of the data set in file names; the name of the data folder if empty.
        neighbours: Nearest neighbours of an item in the quality report.
        device: Device to run on; auto takes CUDA where there is one.
        seed: Seed of the sample of items in the quality report.
    """

    data: Path
    out: Path
    model: str = ""
    best: Literal["collision", "reconstruction"] = "collision"
    vectors: Path | None = None
    index: Path | None = None
    item2id: Path | None = None
    repair: bool = False
    extra_level: bool = False
    sinkhorn_eps: float = 0.003
    dataset: str = ""
    neighbours: int = 10
    device: str = "auto"
    seed: int = 0
