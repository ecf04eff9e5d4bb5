"""Training of an RQ-VAE: deterministic, resumable to the bit."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor
from torch.nn import functional

from incatalog.codes.codebooks import residual_kmeans
from incatalog.codes.quality import Entry, LearningReport, code_use
from incatalog.codes.quantizer import Quantizer, save_weights, weights_file
from incatalog.codes.rqvae import Balance, RqVae, RqVaeSizes, contrastive_loss, quantise
from incatalog.codes.settings import QuantizeSettings
from incatalog.errors import SemanticIdError
from incatalog.snapshot import damaged, load_snapshot, save_snapshot

_ROWS_AT_ONCE = 1 << 14


def learning_rate(settings: QuantizeSettings, progress: float) -> float:
    """Learning rate after `progress` epochs: rises to the peak, then stays or falls to 0."""
    if progress < settings.warmup_epochs:
        return settings.learning_rate * progress / settings.warmup_epochs
    if settings.scheduler == "constant":
        return settings.learning_rate
    left = (settings.epochs - progress) / max(settings.epochs - settings.warmup_epochs, 1e-9)
    return settings.learning_rate * max(left, 0.0)


def mean_and_scale(
    vectors: Float32[np.ndarray, "items width"],
) -> tuple[Float[Tensor, " width"], float]:
    """Mean of the rows, and the root of the mean variance of the columns; in bounded memory."""
    mean = np.zeros(vectors.shape[1])
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        mean += vectors[start : start + _ROWS_AT_ONCE].sum(0, dtype=np.float64) / len(vectors)
    variance = 0.0
    for start in range(0, len(vectors), _ROWS_AT_ONCE):
        block = vectors[start : start + _ROWS_AT_ONCE] - mean
        variance += float(np.square(block).sum()) / (len(vectors) * vectors.shape[1])
    return torch.from_numpy(mean.astype(np.float32)), float(np.sqrt(variance)) or 1.0


class RqVaeFit:
    """Network, optimiser and what is known so far; saves and restores itself.

    Every epoch is a pure function of the state before it, the seed and its number.
    """

    def __init__(
        self,
        settings: QuantizeSettings,
        vectors: Float32[np.ndarray, "items width"],
        device: torch.device,
    ) -> None:
        """Draws the weights; call under a forked generator."""
        self.config = settings
        self.vectors = vectors
        self.device = device
        self.sizes = RqVaeSizes(
            width=vectors.shape[1],
            layers=settings.layers,
            e_dim=settings.e_dim,
            codebooks=settings.codebooks,
            batch_norm=settings.batch_norm,
            dropout=settings.dropout,
        )
        self.balance = Balance(settings.sinkhorn_eps, settings.sinkhorn_iterations)
        torch.manual_seed(settings.seed)
        self.network = RqVae(self.sizes)
        if settings.standardise:
            mean, scale = mean_and_scale(vectors)
            self.network.mean.copy_(mean)
            self.network.scale.fill_(scale)
        self.network.to(device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.idle = [torch.zeros(size, dtype=torch.int64) for size in settings.codebooks]
        self.history: list[Entry] = []
        self.seconds = 0.0

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    def best(self, name: str) -> Entry | None:
        """The first entry with the fewest collisions, or with the best reconstruction."""
        keys = {
            "collision": ("collision_rate", "unexplained"),
            "reconstruction": ("unexplained", "collision_rate"),
        }[name]
        checked = [entry for entry in self.history if "collision_rate" in entry]
        return min(checked, key=lambda entry: [entry[key] for key in keys], default=None)

    def run(self, folder: Path, checkpoint: Path) -> None:
        """Trains to the end; the best weights lie in `folder` whenever a checkpoint does."""
        if not self.history and self.config.kmeans_init:
            self._start_codebooks()
        with LearningReport(folder, self.config.epochs, done=self.epoch) as report:
            while self.epoch < self.config.epochs:
                started = time.monotonic()
                entry = self._train_epoch()
                number = self.epoch + 1
                validated = number % self.config.validate_every == 0 or number == self.config.epochs
                if validated:
                    entry |= self._validate()
                self.history.append(entry)
                self.seconds += time.monotonic() - started
                if validated:
                    if self.best("collision") is entry:
                        save_weights(folder / weights_file("collision"), self.network.state_dict())
                    if self.best("reconstruction") is entry:
                        save_weights(
                            folder / weights_file("reconstruction"), self.network.state_dict()
                        )
                    self._save(checkpoint)
                report.epoch_done(entry)

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """Sets codes to the centres of the first latent vectors (arXiv 2107.03312)."""
        rng = np.random.default_rng([self.config.seed, 1])
        count = min(len(self.vectors), self.config.kmeans_sample)
        rows = np.sort(rng.choice(len(self.vectors), count, replace=False))
        self.network.train()
        blocks = np.array_split(rows, -(-len(rows) // _ROWS_AT_ONCE))
        latents = torch.cat([self.network.latents(self._batch(block)) for block in blocks])
        centres = residual_kmeans(
            latents.cpu().numpy(),
            self.config.codebooks,
            iterations=self.config.kmeans_iterations,
            seed=self.config.seed,
        )
        for codebook, centre in zip(self.network.codebooks, centres, strict=True):
            codebook.copy_(centre)

    def _batch(self, rows: Int64[np.ndarray, " rows"]) -> Float[Tensor, "rows width"]:
        return torch.from_numpy(self.vectors[rows]).to(self.device)

    def _train_epoch(self) -> Entry:
        settings = self.config
        seeds = np.random.SeedSequence([settings.seed, 0, self.epoch])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]) >> 1)
        rng = np.random.default_rng(seeds)
        count = -(-len(self.vectors) // settings.batch_size)
        if settings.batch_norm:
            # A batch of a single row has no statistics.
            count = min(count, len(self.vectors) // 2)
        batches = np.array_split(rng.permutation(len(self.vectors)), count)
        self.network.train()
        used = [torch.zeros(size, dtype=torch.int64) for size in settings.codebooks]
        sums = dict.fromkeys(("loss", "reconstruction_loss", "quantisation_loss"), 0.0)
        residuals = torch.empty(0)
        for number, rows in enumerate(batches, start=1):
            rate = learning_rate(settings, self.epoch + number / len(batches))
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            losses, codes, residuals = self._step(self._batch(rows))
            for name, value in losses.items():
                sums[name] += value * len(rows) / len(self.vectors)
            for level, size in enumerate(settings.codebooks):
                used[level] += torch.bincount(codes[:, level].cpu(), minlength=size)
        if settings.restart_after:
            self._restart_unused(used, residuals, rng)
        return {"epoch": self.epoch + 1, **sums}

    def _step(
        self, vectors: Float[Tensor, "batch width"]
    ) -> tuple[dict[str, float], Tensor, Tensor]:
        """One step of the optimiser; its losses, codes and residuals."""
        settings, network = self.config, self.network
        quantised = quantise(
            network.latents(vectors), list(network.codebooks), settings.beta, self.balance
        )
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
        losses = {
            "loss": loss,
            "reconstruction_loss": reconstruction,
            "quantisation_loss": quantised.loss,
        }
        return (
            {name: float(value.detach()) for name, value in losses.items()},
            quantised.codes,
            quantised.residuals,
        )

    @torch.no_grad()
    def _restart_unused(
        self,
        used: list[Int64[Tensor, " codes"]],
        residuals: Float[Tensor, "levels batch e_dim"],
        rng: np.random.Generator,
    ) -> None:
        """Sets codes that have been idle for long to residuals of the last batch."""
        for level, codebook in enumerate(self.network.codebooks):
            self.idle[level] = torch.where(used[level] > 0, 0, self.idle[level] + 1)
            dead = torch.nonzero(self.idle[level] >= self.config.restart_after)[:, 0]
            if not len(dead):
                continue
            chosen = torch.from_numpy(rng.integers(residuals.shape[1], size=len(dead)))
            dead, chosen = dead.to(self.device), chosen.to(self.device)
            codebook[dead] = residuals[level][chosen]
            for moment in ("exp_avg", "exp_avg_sq"):
                self.optimiser.state[codebook][moment][dead] = 0
            self.idle[level][dead.cpu()] = 0

    def _validate(self) -> Entry:
        quantizer = Quantizer.of_network(self.network)
        codes = quantizer.codes(self.vectors)
        unexplained = quantizer.unexplained(self.vectors, codes)
        return {"unexplained": unexplained, **code_use(codes, quantizer.sizes)}

    def _save(self, path: Path) -> None:
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for name, parameter in self.network.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"optimiser.{key}.{name}"] = value
        tensors |= {f"idle.{level}": counts for level, counts in enumerate(self.idle)}
        save_snapshot(path, tensors, {"seconds": self.seconds, "history": self.history})

    def restore(self, path: Path) -> None:
        """Takes up the state that an interrupted run left after its last validation.

        Raises:
            ArtifactError: The checkpoint cannot be read.
        """
        tensors, progress = load_snapshot(path)
        try:
            self.seconds = float(progress["seconds"])
            self.history = progress["history"]
            self.network.load_state_dict(
                {
                    name.removeprefix("network."): tensor
                    for name, tensor in tensors.items()
                    if name.startswith("network.")
                }
            )
            for name, parameter in self.network.named_parameters():
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    value = tensors[f"optimiser.{key}.{name}"]
                    self.optimiser.state[parameter][key] = (
                        value if key == "step" else value.to(self.device)
                    )
            self.idle = [tensors[f"idle.{level}"] for level in range(len(self.idle))]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(path, error) from error
