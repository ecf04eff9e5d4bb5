"""Training of an RQ-VAE: deterministic, resumable to the bit."""

from __future__ import annotations

import typing

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from incatalog.codes.codebooks import (
    ROWS_AT_ONCE,
    Rows,
    Samples,
    Vectors,
    residual_kmeans,
    row_blocks,
    sample_rows,
)
from incatalog.codes.quality import code_use
from incatalog.codes.quantizer import Best, Quantizer, weights_file
from incatalog.codes.rqvae import Residuals, RqVae, RqVaeSizes, contrastive_loss, quantise
from incatalog.codes.settings import QuantizeSettings
from incatalog.errors import SemanticIdError, require
from incatalog.fitting import Epoch, Fit, save_weights, seed_epoch
from incatalog.storage import writing

_LOSSES = ("loss", "reconstruction_loss", "quantisation_loss")


def learning_rate(settings: QuantizeSettings, progress: float) -> float:
    """Learning rate after `progress` epochs: rises to the peak, then stays or falls to 0."""
    if progress < settings.warmup_epochs:
        return settings.learning_rate * progress / settings.warmup_epochs
    if settings.scheduler == "constant":
        return settings.learning_rate
    left = (settings.epochs - progress) / max(settings.epochs - settings.warmup_epochs, 1e-9)
    return settings.learning_rate * max(left, 0.0)


def mean_and_scale(vectors: Vectors) -> tuple[Float[Tensor, " width"], float]:
    """Mean of the rows, and the root of the mean variance of the columns; in bounded memory."""
    blocks = [vectors[rows] for rows in row_blocks(len(vectors))]
    mean, variance = np.zeros(vectors.shape[1]), 0.0
    for block in blocks:
        mean += block.sum(0, dtype=np.float64) / len(vectors)
    for block in blocks:
        variance += float(np.square(block - mean).sum()) / vectors.size
    return torch.from_numpy(mean.astype(np.float32)), float(np.sqrt(variance)) or 1.0


class RqVaeFit(Fit):
    """An RQ-VAE in training; its best weights lie beside the checkpoint."""

    job = "quantize"
    goal = "collision_rate"
    settings: QuantizeSettings
    network: RqVae

    def __init__(self, settings: QuantizeSettings, vectors: Vectors, device: torch.device) -> None:
        """Draws the weights from torch's global generator."""
        torch.manual_seed(settings.seed)
        s, width = settings, vectors.shape[1]
        sizes = RqVaeSizes(width, s.layers, s.e_dim, s.codebooks, s.batch_norm, s.dropout)
        network = RqVae(sizes)
        if settings.standardise:
            mean, scale = mean_and_scale(vectors)
            network.mean.copy_(mean)
            network.scale.fill_(scale)
        super().__init__(settings, network, device)
        self.save_every = settings.validate_every
        self.vectors = vectors
        for level, size in enumerate(settings.codebooks):
            self.extra[f"idle.{level}"] = torch.zeros(size, dtype=torch.int64)

    def run(self) -> str:
        """Trains to the end, with curves for TensorBoard."""
        require("tensorboard", extra="items")
        from torch.utils.tensorboard import SummaryWriter

        if not self.history and self.settings.kmeans_init:
            self._start_codebooks()
        log = self.settings.out / "tensorboard"
        with writing(log), SummaryWriter(str(log), purge_step=self.epoch + 1) as self._curves:
            return super().run()

    def best_by(self, name: Best) -> Epoch | None:
        """The first epoch with the fewest collisions, or with the best reconstruction."""
        figures = ["collision_rate", "unexplained"]
        order = figures if name == "collision" else figures[::-1]
        return self.best(lambda epoch: [-epoch[figure] for figure in order])

    def _keep(self, epoch: Epoch) -> None:
        for name, value in epoch.items():
            if isinstance(value, list):
                for level, part in enumerate(value, start=1):
                    self._curves.add_scalar(f"{name}/level {level}", part, epoch["epoch"])
            elif name != "epoch":
                self._curves.add_scalar(name, value, epoch["epoch"])
        for best in typing.get_args(Best) if self.goal in epoch else ():
            if self.best_by(best) is epoch:
                path = self.settings.out / weights_file(best)
                save_weights(path, self.network.state_dict())

    def _result(self, epoch: Epoch) -> str:
        if self.goal not in epoch:
            return ""
        text = "loss {loss:.4f}, unexplained {unexplained:.3f}, collisions {collision_rate:.2%}"
        return text.format(**epoch)

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """Sets codes to the centres of the first latent vectors (arXiv 2107.03312)."""
        rng = np.random.default_rng([self.settings.seed, 1])
        rows = sample_rows(rng, len(self.vectors), self.settings.kmeans_sample)
        self.network.train()
        blocks = np.array_split(rows, -(-len(rows) // ROWS_AT_ONCE))
        latents = torch.cat([self.network.latents(self._batch(block)) for block in blocks])
        books, rounds = self.settings.codebooks, self.settings.kmeans_iterations
        centres = residual_kmeans(latents.cpu().numpy(), books, rounds, self.settings.seed)
        for codebook, centre in zip(self.network.codebooks, centres, strict=True):
            codebook.copy_(centre)

    def _batch(self, rows: Rows) -> Samples:
        return torch.from_numpy(self.vectors[rows]).to(self.device)

    def _train_epoch(self) -> Epoch:
        settings = self.settings
        rng = seed_epoch(settings.seed, 0, self.epoch)
        count = -(-len(self.vectors) // settings.batch_size)
        if settings.batch_norm:
            # A batch of a single row has no statistics.
            count = min(count, len(self.vectors) // 2)
        batches = np.array_split(rng.permutation(len(self.vectors)), count)
        self.network.train()
        used = [torch.zeros(size, dtype=torch.int64) for size in settings.codebooks]
        sums = dict.fromkeys(_LOSSES, 0.0)
        residuals = torch.empty(0)
        for number, rows in enumerate(batches, start=1):
            self._begin_step(learning_rate(settings, self.epoch + number / len(batches)))
            losses, codes, residuals = self._step(self._batch(rows))
            for name, value in losses.items():
                sums[name] += value * len(rows) / len(self.vectors)
            for level, size in enumerate(settings.codebooks):
                used[level] += torch.bincount(codes[:, level].cpu(), minlength=size)
        if settings.restart_after:
            self._restart_unused(used, residuals, rng)
        return sums

    def _step(self, vectors: Samples) -> tuple[dict[str, float], Tensor, Tensor]:
        """Takes a step of the optimiser, and returns its losses, codes and residuals."""
        settings, network = self.settings, self.network
        latents, codebooks = network.latents(vectors), list(network.codebooks)
        epsilons, rounds = settings.sinkhorn_eps, settings.sinkhorn_iterations
        quantised = quantise(latents, codebooks, settings.beta, epsilons, rounds)
        wanted, decoded = network.standardise(vectors), network.decoder(quantised.vectors)
        reconstruction = functional.mse_loss(decoded, wanted)
        loss = reconstruction + settings.quant_loss_weight * quantised.loss
        if settings.contrastive_weight:
            contrast = contrastive_loss(decoded, wanted, settings.temperature)
            loss = loss + settings.contrastive_weight * contrast
        if not torch.isfinite(loss):
            raise SemanticIdError(
                f"epoch {self.epoch + 1}: the loss is {float(loss.detach())}; expected a finite "
                "number; start anew with a lower --learning-rate"
            )
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        if settings.clip_norm:
            torch.nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
        self.optimiser.step()
        losses = [float(part.detach()) for part in (loss, reconstruction, quantised.loss)]
        return dict(zip(_LOSSES, losses, strict=True)), quantised.codes, quantised.residuals

    @torch.no_grad()
    def _restart_unused(
        self, used: list[Tensor], residuals: Residuals, rng: np.random.Generator
    ) -> None:
        """Sets codes that have been idle for long to residuals of the last batch."""
        for level, codebook in enumerate(self.network.codebooks):
            idle = torch.where(used[level] > 0, 0, self.extra[f"idle.{level}"] + 1)
            self.extra[f"idle.{level}"] = idle
            dead = torch.nonzero(idle >= self.settings.restart_after)[:, 0]
            idle[dead] = 0
            chosen = torch.from_numpy(rng.integers(residuals.shape[1], size=len(dead)))
            dead, chosen = dead.to(self.device), chosen.to(self.device)
            codebook[dead] = residuals[level][chosen]
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimiser.state[codebook][moment][dead] = 0

    def _validate(self) -> Epoch:
        quantizer = Quantizer.of_network(self.network)
        codes = quantizer.codes(self.vectors)
        unexplained = quantizer.unexplained(self.vectors, codes)
        return {"unexplained": unexplained, **code_use(codes, quantizer.sizes)}
