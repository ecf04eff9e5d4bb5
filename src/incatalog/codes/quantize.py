"""`incatalog items quantize`: learns codebooks for item vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int32

from incatalog.artifacts import open_run, write_json
from incatalog.codes.codebooks import residual_kmeans
from incatalog.codes.quality import Entry, code_use, draw_learning
from incatalog.codes.quantizer import CODEBOOKS_FILE, save_description, save_weights
from incatalog.codes.rqvae_fit import RqVaeFit, mean_and_scale
from incatalog.codes.settings import QuantizeConfig
from incatalog.data.vectors import load_vectors
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError, VectorError

HISTORY_FILE = "history.json"
PICTURE_FILE = "history.png"
_CHECKPOINT = "checkpoint.safetensors"


def quantize_items(config: QuantizeConfig) -> Path:
    """Trains a quantizer, or goes on with an interrupted training of the same configuration.

    Returns:
        The run folder: weights, `quantizer.json`, `history.json`, `history.png` and, for an RQ-VAE,
        TensorBoard's files. An RQ-VAE leaves the weights with the fewest collisions and those with
        the best reconstruction; on CPU with as many threads an interrupted run ends with the bits
        of an uninterrupted one.

    Raises:
        ConfigError: A value that cannot work.
        VectorError: Vectors that cannot be quantised: of another shape, not finite, too few.
        ArtifactError: The run folder holds something else, or a damaged checkpoint.
        SemanticIdError: The training diverges.
    """
    _check(config)
    device = resolve_device(config.device)
    vectors = load_vectors(config.vectors)
    most = max(config.codebooks)
    if len(vectors) < most:
        raise VectorError(
            f"{config.vectors}: {len(vectors)} items for {most} codes at a level; expected at "
            "least as many items as codes; give smaller --codebooks"
        )
    if config.batch_norm and len(vectors) < 2:
        raise VectorError(f"{config.vectors}: 1 item; expected at least 2 with --batch-norm")
    run = open_run(config.out, "items quantize", config, inputs={"vectors": config.vectors})
    if run.finished:
        return run.folder
    if config.method == "rqvae":
        results = _fit_rqvae(config, vectors, device)
    else:
        results = _fit_kmeans(config, vectors)
    run.finish(**results)
    for leftover in run.folder.glob(f"*{_CHECKPOINT}*"):
        leftover.unlink()
    return run.folder


def _fit_rqvae(
    config: QuantizeConfig, vectors: Float32[np.ndarray, "items width"], device: torch.device
) -> dict[str, Any]:
    checkpoint = config.out / _CHECKPOINT
    # Training draws from torch's global generator; callers keep theirs.
    with torch.random.fork_rng(enabled=True):
        fit = RqVaeFit(config, vectors, device)
        if checkpoint.exists():
            fit.restore(checkpoint)
        fit.run(config.out, checkpoint)
    write_json(config.out / HISTORY_FILE, fit.history)
    draw_learning(config.out / PICTURE_FILE, fit.history, config.codebooks, "epoch")
    best = {name: fit.best(name) for name in ("collision", "reconstruction")}
    save_description(config.out, fit.sizes, best=best)
    return {"seconds": round(fit.seconds, 1), "best": best}


def _fit_kmeans(
    config: QuantizeConfig, vectors: Float32[np.ndarray, "items width"]
) -> dict[str, Any]:
    rng = np.random.default_rng(config.seed)
    count = min(len(vectors), config.kmeans_sample)
    rows = np.sort(rng.choice(len(vectors), count, replace=False))
    sample = vectors[rows]
    variance = mean_and_scale(sample)[1] ** 2 * sample.size
    history: list[Entry] = []

    def after_level(codes: Int32[np.ndarray, "samples levels"], left: float) -> None:
        use = code_use(codes, config.codebooks[: codes.shape[1]])
        history.append({"level": codes.shape[1], "unexplained": left / variance, **use})

    codebooks = residual_kmeans(
        sample,
        config.codebooks,
        iterations=config.kmeans_iterations,
        seed=config.seed,
        after_level=after_level,
    )
    named = {str(level): codebook for level, codebook in enumerate(codebooks)}
    save_weights(config.out / CODEBOOKS_FILE, named)
    write_json(config.out / HISTORY_FILE, history)
    draw_learning(config.out / PICTURE_FILE, history, config.codebooks, "level")
    save_description(config.out, None, levels=len(codebooks), sample=count, last=history[-1])
    return {"sample": count, "last": history[-1]}


def _check(config: QuantizeConfig) -> None:
    levels = len(config.codebooks)
    if levels > 26:
        raise ConfigError(f"--codebooks: {levels} levels; expected at most 26, one letter each")
    if len(config.sinkhorn_eps) != levels and config.method == "rqvae":
        raise ConfigError(
            f"--sinkhorn-eps: {len(config.sinkhorn_eps)} values for {levels} levels of "
            f"--codebooks; expected one a level, such as {' '.join(['0'] * (levels - 1))} 0.003"
        )
    for field in (
        "codebooks",
        "layers",
        "e_dim",
        "sinkhorn_iterations",
        "kmeans_iterations",
        "epochs",
        "batch_size",
        "validate_every",
    ):
        _at_least(config, field, 1)
    for field in (
        "beta",
        "quant_loss_weight",
        "sinkhorn_eps",
        "contrastive_weight",
        "restart_after",
        "warmup_epochs",
        "weight_decay",
        "clip_norm",
        "seed",
    ):
        _at_least(config, field, 0)
    _at_least(config, "kmeans_sample", max(config.codebooks))
    if not 0 <= config.dropout < 1:
        raise ConfigError(f"--dropout {config.dropout}: expected at least 0 and less than 1")
    for field in ("learning_rate", "temperature"):
        value = getattr(config, field)
        if not value > 0:
            raise ConfigError(f"--{field.replace('_', '-')} {value}: expected more than 0")


def _at_least(config: QuantizeConfig, field: str, least: float) -> None:
    value = getattr(config, field)
    for number in value if isinstance(value, tuple) else (value,):
        if not number >= least:
            name = field.replace("_", "-")
            raise ConfigError(f"--{name} {number}: expected at least {least}")
