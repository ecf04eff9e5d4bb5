"""The retrieval head: from the hidden state that opens an item span to scores of all items."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from incatalog.artifacts import MANIFEST, atomic_path, read_json
from incatalog.config import Projection
from incatalog.data.vector_blocks import VectorBlocks
from incatalog.data.vectors import LARGEST, check_numbers
from incatalog.errors import BackboneError, VectorError, first_line

HEAD_FILE = "retrieval.safetensors"

_EMBED = "incatalog items embed"
_EMBED_FLAGS = ("encoder", "model", "wording", "max_tokens")
_TENSORS = ("center", "scale", "vectors")
# The layers of each projection, first to last, within the module.
_LAYERS: dict[Projection, tuple[str, ...]] = {"linear": ("",), "mlp": ("0.", "2.")}


class RetrievalHead(nn.Module):
    """Projects hidden states onto item vectors (RecLM-ret, arXiv 2505.03336).

    The score of an item is ``query . vector / sqrt(dim)``, the query a function of the hidden state
    that predicts ``<SOI>``: linear, or a perceptron of two layers with GELU between them, as in
    the published RecLM-ret. Vectors are centred and scaled to entries of variance 1 over the
    catalog of the training, which trains faster and leaves every ranking as it is: the centre adds
    the same to all items.
    """

    center: Float32[Tensor, " dim"]  # What was taken off the vectors of the training
    scale: Float32[Tensor, ""]  # What they were divided by afterwards

    def __init__(
        self,
        hidden: int,
        items: int,
        dim: int,
        *,
        inner: int = 0,
        origin: str = "",
        blocks: VectorBlocks | None = None,
    ) -> None:
        """Takes the width of the hidden states, and number and width of the vectors.

        With `inner` the projection is a perceptron with so many numbers between its two layers.
        """
        super().__init__()
        self.hidden, self.inner = hidden, inner
        self.projection: nn.Module = nn.Linear(hidden, dim)
        if inner:
            layers = nn.Linear(hidden, inner), nn.GELU(), nn.Linear(inner, dim)
            self.projection = nn.Sequential(*layers)
        self.register_buffer("center", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(()))
        self.vectors = nn.Parameter(torch.zeros(items, dim), requires_grad=False)
        self.origin, self.blocks = origin, blocks

    @classmethod
    def create(
        cls,
        hidden: int,
        vectors: Float32[np.ndarray, "items dim"],
        *,
        inner: int = 0,
        train_vectors: bool = False,
        origin: str = "",
        blocks: VectorBlocks | None = None,
        seed: int = 0,
    ) -> RetrievalHead:
        """An untrained projection onto given vectors."""
        check_numbers(vectors, "item vectors")
        if blocks is not None and blocks.width != vectors.shape[1]:
            expected = f"{blocks.width} by the description beside them; make them again"
            raise VectorError(f"item vectors: {vectors.shape[1]} numbers an item; {expected}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            head = cls(hidden, *vectors.shape, inner=inner, origin=origin, blocks=blocks)
        center = vectors.mean(axis=0, dtype=np.float64)
        scale = math.sqrt(vectors.var(axis=0, dtype=np.float64).mean())
        if not scale > 0:
            raise VectorError(
                f"item vectors: all {len(vectors)} are the same; expected one for each item"
            )
        head.center.copy_(torch.from_numpy(center))
        head.scale.fill_(scale)
        head.vectors.data = head._standardised(vectors)
        head.vectors.requires_grad_(train_vectors)
        return head

    def with_vectors(self, vectors: Float32[np.ndarray, "items dim"]) -> RetrievalHead:
        """The same projection onto the vectors of another catalog."""
        if vectors.shape[1] != self.dim:
            raise VectorError(
                f"item vectors: {vectors.shape[1]} numbers an item; the model was trained with "
                f"{self.dim}; {self.how_to_embed()}"
            )
        check_numbers(vectors, "item vectors")
        return self._sharing(self._standardised(vectors))

    def with_rows(
        self, rows: Sequence[int], vectors: Float32[np.ndarray, "some dim"]
    ) -> RetrievalHead:
        """The same with other vectors at some rows, or new ones behind the last."""
        if vectors.shape[1:] != (self.dim,):
            raise VectorError(
                f"item vectors: found shape {list(vectors.shape)}; expected {self.dim} finite "
                f"numbers an item; {self.how_to_embed()}"
            )
        check_numbers(vectors, "item vectors")
        items = max(len(self), max(rows) + 1)
        every = torch.zeros(items, self.dim, device=self.vectors.device)
        every[: len(self)] = self.vectors.detach()
        every[list(rows)] = self._standardised(vectors)
        return self._sharing(every)

    def _sharing(self, vectors: Float32[Tensor, "items dim"]) -> RetrievalHead:
        """The same projection onto other vectors, which are centred and scaled already."""
        sizes = self.hidden, len(vectors), self.dim
        origin, blocks = self.origin, self.blocks
        other = RetrievalHead(*sizes, inner=self.inner, origin=origin, blocks=blocks)
        other.projection = self.projection
        other.center, other.scale = self.center, self.scale
        other.vectors.data = vectors
        return other.train(self.training)

    @property
    def kind(self) -> Projection:
        """What the projection is."""
        return "mlp" if self.inner else "linear"

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        return self.vectors.shape[1]

    def given_vectors(self) -> Float32[np.ndarray, "items dim"]:
        """The vectors as they would be given: neither centred nor scaled, but trained."""
        values: Tensor = self.vectors.detach() * self.scale + self.center
        given: np.ndarray = values.float().cpu().numpy()
        return given

    def __len__(self) -> int:
        """Number of items."""
        return len(self.vectors)

    def query(self, states: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows dim"]:
        """What the hidden states ask for, scaled so that its product with vectors is the score."""
        dtype = next(self.projection.parameters()).dtype
        projected: Tensor = self.projection(states.to(dtype))
        return projected / math.sqrt(self.dim)

    def scores(
        self, query: Float[Tensor, "rows dim"], items: Int64[Tensor, " some"] | None = None
    ) -> Float[Tensor, "rows some"]:
        """Scores of some items (of all, where none are named), in float32."""
        vectors = self.vectors if items is None else self.vectors.index_select(0, items)
        return functional.linear(query, vectors).float()

    def forward(self, states: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows items"]:
        """Scores of all items, in float32."""
        return self.scores(self.query(states))

    def how_to_embed(self) -> str:
        """What to do to get vectors of the kind the head was trained with."""
        if self.blocks is not None:
            command = f"{_EMBED} --like MODEL --data DATA --out OUT"
            return f"make them with `{command}`, MODEL being the folder of this model"
        known = self.origin.startswith(_EMBED)
        command = self.origin if known else _EMBED
        others = "" if known or not self.origin else f", as those of {self.origin} were made"
        return f"make them with `{command} --data DATA --out OUT`{others}"

    def save(self, folder: str | Path) -> None:
        """Writes :data:`HEAD_FILE` into a folder, atomically."""
        tensors = {name: tensor.contiguous().cpu() for name, tensor in self.state_dict().items()}
        said: dict[str, Any] = {"origin": self.origin}
        if self.blocks is not None:
            said["blocks"] = self.blocks.to_json()
        metadata = {"incatalog": json.dumps(said)}
        with atomic_path(Path(folder) / HEAD_FILE) as partial:
            save_file(tensors, partial, metadata=metadata)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> RetrievalHead:
        """Reads what :meth:`save` wrote, in evaluation mode and in float32."""
        path = Path(folder) / HEAD_FILE
        if not path.exists():
            raise BackboneError(
                f"{path}: no such file; expected the head of `incatalog train sft --method ret`"
            )
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                names = set(file.keys())
                layers = _LAYERS["mlp" if "projection.0.weight" in names else "linear"]
                ends = [f"projection.{one}{of}" for one in layers for of in ("weight", "bias")]
                found = {name: file.get_tensor(name) for name in (*_TENSORS, *ends)}
                metadata = file.metadata() or {}
                # The package was once called reclm.
                said = metadata["incatalog"] if "incatalog" in metadata else metadata["reclm"]
                said = json.loads(said)
                origin = re.sub(r"^reclm ", "incatalog ", said["origin"])
                # The flag that names the kind of encoder was once called --source.
                origin = re.sub(rf"^({_EMBED}) --source ", r"\1 --encoder ", origin)
                blocks = VectorBlocks.from_json(said["blocks"]) if "blocks" in said else None
            items, (first, hidden) = len(found["vectors"]), found[ends[0]].shape
            dim, inner = found[ends[-1]].shape[0], first if len(layers) > 1 else 0
            if blocks is not None and blocks.width != dim:
                raise ValueError(f"vectors of {dim} numbers in blocks of {blocks.width}")
            head = cls(hidden, items, dim, inner=inner, origin=origin, blocks=blocks).to(device)
            head.load_state_dict(found)
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise BackboneError(
                f"{path}: not a readable retrieval head ({first_line(error)}); restore it or train "
                "the model again"
            ) from error
        # False for NaN too.
        if not bool(head.vectors.detach().abs().amax() <= LARGEST):
            raise BackboneError(
                f"{path}: a vector holds NaN, infinity or a number beyond {LARGEST:g}; "
                "restore it or train the model again"
            )
        return head.eval().requires_grad_(False)

    def _standardised(self, vectors: Float32[np.ndarray, "items dim"]) -> Tensor:
        values = np.asarray(vectors)
        own = torch.tensor(values, dtype=torch.float32, device=self.center.device)
        return own.sub_(self.center).div_(self.scale)


def vectors_origin(path: str | Path) -> str:
    """The command that makes vectors as those of a file were made, or the name of the file."""
    path = Path(path)
    manifest = path.parent / MANIFEST
    found = read_json(manifest) if manifest.exists() else {}
    try:
        if found["stage"] != "items embed" or found["results"]["file"] != path.name:
            return path.name
        made = found["config"]
        if "encoder" not in made:
            # The setting that names the kind of encoder was once called source.
            made = {**made, "encoder": made["source"]}
        elif made["source"] != "text" or made["like"]:
            return path.name
        flags = [f"--{name.replace('_', '-')} {made[name]}" for name in _EMBED_FLAGS]
    except (LookupError, TypeError):
        return path.name
    return f"{_EMBED} {' '.join(flags)}"
