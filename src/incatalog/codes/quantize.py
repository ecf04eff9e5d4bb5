"""`incatalog items quantize`: learns codebooks for item vectors."""

from __future__ import annotations

import typing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from incatalog.artifacts import open_run, write_json
from incatalog.codes.codebooks import Vectors, residual_kmeans, sample_rows
from incatalog.codes.plots import draw_learning
from incatalog.codes.quality import code_use
from incatalog.codes.quantizer import CODEBOOKS_FILE, Best, save_description
from incatalog.codes.rqvae_fit import RqVaeFit, mean_and_scale
from incatalog.codes.semantic_ids import Codes
from incatalog.codes.settings import QuantizeSettings
from incatalog.data.vectors import load_vectors
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError, VectorError, require
from incatalog.fitting import Epoch, remove_checkpoint, save_weights

HISTORY_FILE = "history.json"
PICTURE_FILE = "history.png"


def quantize_items(settings: QuantizeSettings) -> Path:
    """Trains a quantizer, or goes on with an interrupted training of the same settings.

    An RQ-VAE leaves the weights with the fewest collisions and those with the best reconstruction;
    on CPU with as many threads an interrupted run ends with the bits of an uninterrupted one.

    Returns:
        The run folder: weights, `quantizer.json`, `history.json`, `history.png` and, for an RQ-VAE,
        TensorBoard's files.

    Raises:
        ConfigError: A value that cannot work.
        VectorError: Vectors that cannot be quantised: of another shape, not finite, too few.
        ArtifactError: The run folder holds something else, or a damaged checkpoint.
        SemanticIdError: The training diverges.
        MissingExtraError: TensorBoard, faiss or matplotlib is not installed.
    """
    levels, most = len(settings.codebooks), max(settings.codebooks)
    if levels > 26:
        raise ConfigError(f"--codebooks: {levels} levels; expected at most 26, one letter each")
    if len(settings.sinkhorn_eps) != levels and settings.method == "rqvae":
        raise ConfigError(
            f"--sinkhorn-eps: {len(settings.sinkhorn_eps)} values for {levels} levels of "
            f"--codebooks; expected one a level, such as {' '.join(['0'] * (levels - 1))} 0.003"
        )
    if settings.kmeans_sample < most:
        raise ConfigError(f"--kmeans-sample {settings.kmeans_sample}: expected at least {most}")
    device = resolve_device(settings.device)
    vectors = load_vectors(settings.vectors)
    if len(vectors) < most:
        raise VectorError(
            f"{settings.vectors}: {len(vectors)} items for {most} codes at a level; expected at "
            "least as many items as codes; give smaller --codebooks"
        )
    if settings.batch_norm and len(vectors) < 2:
        raise VectorError(f"{settings.vectors}: 1 item; expected at least 2 with --batch-norm")
    for package in ("tensorboard" if settings.method == "rqvae" else "faiss", "matplotlib"):
        require(package, extra="items")
    run = open_run(settings.out, "items quantize", settings, inputs={"vectors": settings.vectors})
    if run.finished:
        return run.folder
    if settings.method == "rqvae":
        results = _fit_rqvae(settings, vectors, device)
    else:
        results = _fit_kmeans(settings, vectors)
    run.finish(**results)
    remove_checkpoint(run.folder)
    return run.folder


def _fit_rqvae(
    settings: QuantizeSettings, vectors: Vectors, device: torch.device
) -> dict[str, Any]:
    # Training draws from torch's global generator; callers keep theirs.
    with torch.random.fork_rng(enabled=True):
        fit = RqVaeFit(settings, vectors, device)
        fit.restore()
        fit.run()
    _write_history(settings, fit.history)
    best = {name: fit.best_by(name) for name in typing.get_args(Best)}
    save_description(settings.out, fit.network.sizes, best=best)
    return {"seconds": round(fit.seconds, 1), "best": best}


def _fit_kmeans(settings: QuantizeSettings, vectors: Vectors) -> dict[str, Any]:
    sizes, rounds = settings.codebooks, settings.kmeans_iterations
    rng = np.random.default_rng(settings.seed)
    sample = vectors[sample_rows(rng, len(vectors), settings.kmeans_sample)]
    variance = mean_and_scale(sample)[1] ** 2 * sample.size
    history: list[Epoch] = []

    def after_level(codes: Codes, left: float) -> None:
        level = codes.shape[1]
        use = code_use(codes, sizes[:level])
        history.append({"level": level, "unexplained": left / variance, **use})

    codebooks = residual_kmeans(sample, sizes, rounds, settings.seed, after_level)
    named = {str(level): codebook for level, codebook in enumerate(codebooks)}
    save_weights(settings.out / CODEBOOKS_FILE, named)
    _write_history(settings, history)
    found = {"sample": len(sample), "last": history[-1]}
    save_description(settings.out, None, levels=len(codebooks), **found)
    return found


def _write_history(settings: QuantizeSettings, history: list[Epoch]) -> None:
    write_json(settings.out / HISTORY_FILE, history)
    draw_learning(settings.out / PICTURE_FILE, history, settings.codebooks)
