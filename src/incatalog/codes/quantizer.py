"""A trained quantizer of any method: vectors to codes and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from incatalog.artifacts import read_json, versions, write_json
from incatalog.checksums import verify_checksums
from incatalog.codes.codebooks import (
    Codebook,
    Distances,
    Vectors,
    residual_codes,
    row_blocks,
    squared_distances,
    sum_of_codes,
)
from incatalog.codes.rqvae import RqVae, RqVaeSizes
from incatalog.codes.semantic_ids import Codes
from incatalog.errors import ArtifactError, DataError, VectorError, first_line
from incatalog.fitting import UNREADABLE

QUANTIZER_FILE = "quantizer.json"
CODEBOOKS_FILE = "codebooks.safetensors"
Best = Literal["collision", "reconstruction"]

_KIND = "quantizer"


@dataclass(frozen=True, eq=False)
class Quantizer:
    """Codebooks, and the way from item vectors to the space they are in and back."""

    width: int
    codebooks: tuple[Codebook, ...]
    encode: Callable[[Tensor], Tensor]  # from item vectors to the vectors that are quantised
    decode: Callable[[Tensor], Tensor]  # from sums of codes to item vectors

    @classmethod
    def of_network(cls, network: RqVae) -> Quantizer:
        """The quantizer that an RQ-VAE is."""
        network.eval()
        codebooks = tuple(codebook.detach() for codebook in network.codebooks)
        return cls(network.sizes.width, codebooks, network.latents, network.decode)

    @classmethod
    def of_codebooks(cls, codebooks: Sequence[Codebook]) -> Quantizer:
        """A quantizer of the vectors themselves."""
        return cls(codebooks[0].shape[1], tuple(codebooks), lambda x: x, lambda x: x)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Codes at each level."""
        return tuple(map(len, self.codebooks))

    @torch.inference_mode()
    def codes(self, vectors: Vectors) -> Codes:
        """The nearest code of each item at each level, in bounded memory."""
        if vectors.shape[1] != self.width:
            raise VectorError(
                f"--vectors: {vectors.shape[1]} numbers a row; expected {self.width} as the "
                "quantizer was trained with; take the vectors of the same model"
            )
        codes = np.empty((len(vectors), len(self.codebooks)), dtype=np.int32)
        for rows, block in self._blocks(vectors):
            codes[rows] = residual_codes(self.encode(block), self.codebooks).cpu().numpy()
        return codes

    @torch.inference_mode()
    def last_distances(self, vectors: Vectors, codes: Codes) -> Distances:
        """Squared distances of items to all codes of the last level, given those before it."""
        left = self.encode(self._tensor(vectors))
        if len(self.codebooks) > 1:
            left = left - sum_of_codes(self._tensor(codes[:, :-1], np.int64), self.codebooks)
        return squared_distances(left, self.codebooks[-1]).cpu()

    @torch.inference_mode()
    def unexplained(self, vectors: Vectors, codes: Codes) -> float:
        """Reconstruction error: squared, as a share of the variance of the vectors."""
        mean = torch.zeros(self.width, dtype=torch.float64)
        for _, block in self._blocks(vectors):
            mean += block.double().sum(0).cpu() / len(vectors)
        error = variance = 0.0
        for rows, block in self._blocks(vectors):
            given = self._tensor(codes[rows], np.int64)
            decoded = self.decode(sum_of_codes(given, self.codebooks))
            error += float((block - decoded).double().square().sum())
            variance += float((block - mean.to(block)).double().square().sum())
        return error / variance if variance else 0.0

    def _blocks(self, vectors: np.ndarray) -> Iterator[tuple[slice, Tensor]]:
        for rows in row_blocks(len(vectors)):
            yield rows, self._tensor(vectors[rows])

    def _tensor(self, values: np.ndarray, dtype: type = np.float32) -> Tensor:
        # A copy: memory maps are read-only, which torch tensors cannot be.
        return torch.from_numpy(np.array(values, dtype=dtype)).to(self.codebooks[0].device)


def weights_file(best: Best) -> str:
    """Name of the file with the best weights of an RQ-VAE."""
    return f"best-{best}.safetensors"


def save_description(folder: Path, sizes: RqVaeSizes | None, **results: Any) -> None:
    """Writes the file that makes a folder a quantizer; None is residual k-means."""
    described = {"kind": _KIND, "method": "rqkmeans" if sizes is None else "rqvae"}
    shape = {} if sizes is None else {"sizes": dataclasses.asdict(sizes)}
    write_json(folder / QUANTIZER_FILE, described | shape | results | {"versions": versions()})


def load_quantizer(folder: str | Path, best: Best, device: torch.device) -> Quantizer:
    """Loads what `incatalog items quantize` left; `best` chooses among the weights of an RQ-VAE."""
    folder = Path(folder)
    try:
        described = read_json(folder / QUANTIZER_FILE)
    except DataError as error:
        expected = "expected a finished run of `incatalog items quantize`"
        raise ArtifactError(f"{error}; {expected}") from error
    if not isinstance(described, dict) or described.get("kind") != _KIND:
        raise ArtifactError(f"{folder / QUANTIZER_FILE}: not the description of a quantizer")
    rqvae = described.get("method") == "rqvae"
    path = folder / (weights_file(best) if rqvae else CODEBOOKS_FILE)
    verify_checksums(folder, (QUANTIZER_FILE, path.name))
    try:
        tensors = load_file(path, device=str(device))
        if not rqvae:
            levels = described.get("levels", len(tensors))
            return Quantizer.of_codebooks([tensors[f"{level}"] for level in range(levels)])
        sizes = described["sizes"]
        lists = {name: tuple(sizes[name]) for name in ("layers", "codebooks")}
        with torch.random.fork_rng(devices=[]):
            network = RqVae(RqVaeSizes(**sizes | lists)).to(device)
        network.load_state_dict(tensors)
    except UNREADABLE as error:
        raise ArtifactError(
            f"{path}: not the weights of this quantizer ({first_line(error)}); train it again"
        ) from error
    return Quantizer.of_network(network)
