"""RQ-VAE: an autoencoder whose latent vector is a sum of codes, one a level.

Residual quantisation after arXiv 2203.01941, for semantic IDs after TIGER (arXiv 2305.05065), with
uniform codes by optimal transport on some levels after LC-Rec (arXiv 2311.09049).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from incatalog.codes.codebooks import Codebooks, Samples, squared_distances
from incatalog.codes.sinkhorn import sinkhorn


@dataclass(frozen=True)
class RqVaeSizes:
    """The shape of an RQ-VAE; all but the width of item vectors is named as in the settings."""

    width: int
    layers: tuple[int, ...]
    e_dim: int
    codebooks: tuple[int, ...]
    batch_norm: bool = False
    dropout: float = 0.0


Latents = Float[Tensor, "batch e_dim"]
Residuals = Float[Tensor, "levels batch e_dim"]


class Quantised(NamedTuple):
    """Latent vectors as codes."""

    vectors: Latents  # sums of codes, with the gradient of the latent vectors
    loss: Float[Tensor, ""]
    codes: Int64[Tensor, "batch levels"]
    residuals: Residuals  # what each level had to approximate


def quantise(
    latents: Latents,
    codebooks: Codebooks,
    beta: float,
    epsilons: Sequence[float] | None = None,
    iterations: int = 50,
) -> Quantised:
    """Replaces latent vectors by sums of codes and lets their gradient straight through.

    Each level takes the nearest code `e` to the residual `r`, or the one of an optimal transport
    where its epsilon is above 0, and hands on `r - e`. Its loss is `mean((e - sg(r))^2) + beta *
    mean((r - sg(e))^2)` with `sg` stopping the gradient (arXiv 1711.00937); the loss is the mean
    over levels. Codes learn from their own level only; all levels pull the encoder.
    """
    residual, total = latents, torch.zeros_like(latents)
    losses, codes, residuals = [], [], []
    for codebook, epsilon in zip(codebooks, epsilons or [0.0] * len(codebooks), strict=True):
        with torch.no_grad():
            distances = squared_distances(residual, codebook)
            if epsilon > 0:
                chosen = sinkhorn(distances, epsilon, iterations=iterations).argmax(1)
            else:
                chosen = distances.argmin(1)
        code = codebook[chosen]
        commitment_loss = functional.mse_loss(residual, code.detach())
        losses.append(functional.mse_loss(code, residual.detach()) + beta * commitment_loss)
        codes.append(chosen)
        residuals.append(residual.detach())
        total = total + code.detach()
        residual = residual - code.detach()
    vectors, loss = latents + (total - latents).detach(), torch.stack(losses).mean()
    return Quantised(vectors, loss, torch.stack(codes, 1), torch.stack(residuals))


def contrastive_loss(decoded: Samples, vectors: Samples, temperature: float) -> Float[Tensor, ""]:
    """InfoNCE: a reconstruction is closer to its own vector than to others of the batch.

    Cross entropy over cosines / temperature, as CoST trains its quantiser (arXiv 2404.14774).
    """
    cosines = functional.normalize(decoded) @ functional.normalize(vectors).T
    own = torch.arange(len(vectors), device=vectors.device)
    return functional.cross_entropy(cosines / temperature, own)


class RqVae(nn.Module):
    """Encoder, codebooks and decoder.

    Vectors are moved by `mean` and divided by `scale` first, so that losses weigh the same wherever
    the vectors come from; both are saved with the weights.
    """

    mean: Float[Tensor, " width"]
    scale: Float[Tensor, ""]

    def __init__(self, sizes: RqVaeSizes) -> None:
        """Draws weights from torch's global generator; codes start near zero."""
        super().__init__()
        self.sizes = sizes
        widths = (sizes.width, *sizes.layers, sizes.e_dim)
        self.encoder = _perceptron(widths, sizes)
        self.decoder = _perceptron(widths[::-1], sizes)
        self.codebooks = nn.ParameterList(
            torch.empty(size, sizes.e_dim).uniform_(-1 / size, 1 / size) for size in sizes.codebooks
        )
        self.register_buffer("mean", torch.zeros(sizes.width))
        self.register_buffer("scale", torch.ones(()))

    def standardise(self, vectors: Samples) -> Samples:
        """Vectors as the losses see them."""
        return (vectors - self.mean) / self.scale

    def latents(self, vectors: Samples) -> Latents:
        """Latent vectors, not yet quantised."""
        encoded: Tensor = self.encoder(self.standardise(vectors))
        return encoded

    def decode(self, total: Latents) -> Samples:
        """The vectors that sums of codes stand for."""
        decoded: Tensor = self.decoder(total)
        return decoded * self.scale + self.mean


def _perceptron(widths: Sequence[int], sizes: RqVaeSizes) -> nn.Sequential:
    """Linear layers with ReLU between, dropout before each."""
    modules: list[nn.Module] = []
    for number, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        linear = nn.Linear(width_in, width_out)
        nn.init.xavier_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        modules += [nn.Dropout(sizes.dropout), linear]
        if number < len(widths) - 2:
            modules += [nn.BatchNorm1d(width_out)] if sizes.batch_norm else []
            modules.append(nn.ReLU())
    return nn.Sequential(*modules)
