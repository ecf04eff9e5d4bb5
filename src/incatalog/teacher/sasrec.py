"""SASRec: a causal transformer over item sequences (arXiv 1808.09781).

A network of our own: it answers raw rows in batches, its checkpoints are plain tensors that resume
to the bit, and layers and positions are laid out as in UniRec (post-norm blocks, left padding, item
0 as padding), so that weights trained there can be imported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from incatalog.artifacts import read_json, versions, write_json
from incatalog.checksums import verify_checksums
from incatalog.devices import resolve_device
from incatalog.errors import DataError, TeacherError, first_line
from incatalog.fitting import UNREADABLE, save_weights

TEACHER_FILE = "teacher.json"
WEIGHTS_FILE = "teacher.safetensors"
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "relu": functional.relu,
    "swish": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
Hidden = Float[Tensor, "batch length hidden"]
Mask = Bool[Tensor, "batch 1 length key"]
_INIT_STD = 0.02


@dataclass(frozen=True)
class SasRecSizes:
    """What it takes to build the network; named as in the settings."""

    num_items: int
    max_length: int
    hidden: int
    inner: int
    layers: int
    heads: int
    dropout: float
    activation: str = "gelu"
    norm_eps: float = 1e-12


class _Attention(nn.Module):
    """Causal self-attention with its residual connection and norm."""

    def __init__(self, sizes: SasRecSizes) -> None:
        super().__init__()
        self.heads, self.dropout = sizes.heads, nn.Dropout(sizes.dropout)
        layers = (nn.Linear(sizes.hidden, sizes.hidden) for _ in range(4))
        self.query, self.key, self.value, self.dense = layers
        self.norm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)

    def forward(self, hidden: Hidden, mask: Mask, asked: int) -> Hidden:
        """Mixes positions for the last `asked` of them; `mask` says which keys a query may see."""
        own = hidden[:, -asked:]
        parts = self.query(own), self.key(hidden), self.value(hidden)
        query, key, value = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in parts)
        dropout = self.dropout.p if self.training else 0.0
        seen = mask[..., -asked:, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, seen, dropout)
        mixed = self.dense(mixed.transpose(1, 2).flatten(2))
        result: Tensor = self.norm(own + self.dropout(mixed))
        return result


class _FeedForward(nn.Module):
    """Two layers at each position, with their residual connection and norm."""

    def __init__(self, sizes: SasRecSizes) -> None:
        super().__init__()
        self.dropout = nn.Dropout(sizes.dropout)
        self.activation = ACTIVATIONS[sizes.activation]
        self.dense_1 = nn.Linear(sizes.hidden, sizes.inner)
        self.dense_2 = nn.Linear(sizes.inner, sizes.hidden)
        self.norm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)

    def forward(self, hidden: Hidden) -> Hidden:
        inner = self.dense_2(self.activation(self.dense_1(hidden)))
        result: Tensor = self.norm(hidden + self.dropout(inner))
        return result


class _Block(nn.Module):
    def __init__(self, sizes: SasRecSizes) -> None:
        super().__init__()
        self.attention = _Attention(sizes)
        self.feed_forward = _FeedForward(sizes)

    def forward(self, hidden: Hidden, mask: Mask, asked: int) -> Hidden:
        result: Tensor = self.feed_forward(self.attention(hidden, mask, asked))
        return result


class SasRec(nn.Module):
    """Hidden states of histories, and scores of all items as their product with the embeddings.

    Inputs are item numbers, row + 1, padded with 0 on the left: the newest item always stands at
    the last position of the window, however long the history is.
    """

    kind: ClassVar[str] = "sasrec"

    def __init__(self, sizes: SasRecSizes) -> None:
        """Draws weights from torch's global generator."""
        super().__init__()
        width, heads, known = sizes.hidden, sizes.heads, ", ".join(ACTIVATIONS)
        if width % heads:
            raise TeacherError(f"hidden: found {width}; expected a multiple of heads ({heads})")
        if sizes.activation not in ACTIVATIONS:
            found = repr(sizes.activation)
            raise TeacherError(f"activation: found {found}; expected one of {known}")
        self.sizes = sizes
        self.item_embedding = nn.Embedding(sizes.num_items + 1, sizes.hidden, padding_idx=0)
        self.position_embedding = nn.Embedding(sizes.max_length, sizes.hidden)
        self.norm = nn.LayerNorm(sizes.hidden, eps=sizes.norm_eps)
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.layers))
        self.apply(initialise)
        with torch.no_grad():
            self.item_embedding.weight[0].zero_()

    def forward(self, items: Int64[Tensor, "batch length"]) -> Hidden:
        """Hidden state at every position, at most `max_length`; at padding it means nothing."""
        return self._hidden(items, items.shape[1])

    def _hidden(self, items: Int64[Tensor, "batch length"], asked: int) -> Hidden:
        """The same for the last `asked` positions."""
        length, last = items.shape[1], self.sizes.max_length
        positions = torch.arange(last - length, last, device=items.device)
        hidden: Tensor = self.item_embedding(items) + self.position_embedding(positions)
        hidden = functional.dropout(self.norm(hidden), self.sizes.dropout, self.training)
        # Padding looks at itself only: a row without any key has no softmax.
        itself = torch.eye(length, dtype=torch.bool, device=items.device)
        causal = itself.new_ones(length, length).tril()
        mask = (causal & (items != 0)[:, None, :]) | itself
        for number, block in enumerate(self.blocks, start=1):
            # Nothing reads what the last block makes of other positions.
            hidden = block(hidden, mask[:, None], asked if number == len(self.blocks) else length)
        return hidden

    def last_hidden(self, items: Int64[Tensor, "batch length"]) -> Float[Tensor, "batch hidden"]:
        """Hidden state after the newest item."""
        return self._hidden(items, 1)[:, -1]

    def item_scores(self, hidden: Float[Tensor, "*batch hidden"]) -> Float[Tensor, "*batch items"]:
        """Scores (logits) of all items by row."""
        return hidden @ self.item_embedding.weight[1:].T

    def pad(
        self, histories: Sequence[Int64[np.ndarray, " rows"]], width: int = 0
    ) -> Int64[Tensor, "batch length"]:
        """Lays histories, oldest first, into one batch, at least so wide.

        Of long histories it holds the newest items.
        """
        newest = [rows[-self.sizes.max_length :] for rows in histories]
        batch = np.zeros((len(newest), max([width, *map(len, newest)])), dtype=np.int64)
        for line, rows in zip(batch, newest, strict=True):
            line[len(line) - len(rows) :] = np.asarray(rows) + 1
        return torch.from_numpy(batch).to(self.item_embedding.weight.device)


def initialise(module: nn.Module) -> None:
    """Draws the weights of a linear layer or an embedding."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INIT_STD)
    if isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)


def save_network(
    folder: str | Path, network: SasRec, catalog_fingerprint: str, temperature: float = 1.0
) -> None:
    """Writes weights, then the description that makes the folder a teacher."""
    folder = Path(folder)
    save_weights(folder / WEIGHTS_FILE, network.state_dict())
    sizes = dataclasses.asdict(network.sizes)
    description = {
        "kind": network.kind,
        "sizes": sizes,
        "temperature": temperature,
        "catalog_fingerprint": catalog_fingerprint,
        "versions": versions(),
    }
    write_json(folder / TEACHER_FILE, description)


def load_network(
    folder: str | Path, device: str = "auto", kinds: Mapping[str, type[SasRec]] | None = None
) -> tuple[SasRec, str]:
    """Reads a network of one of the kinds, in evaluation mode, and its catalog's fingerprint."""
    kinds = kinds or {SasRec.kind: SasRec}
    folder = Path(folder)
    target = resolve_device(device)
    if not (folder / TEACHER_FILE).exists():
        expected = "expected the run folder of a finished `incatalog teacher fit`"
        raise TeacherError(f"{folder}: holds no {TEACHER_FILE}; {expected}")
    verify_checksums(folder, (TEACHER_FILE, WEIGHTS_FILE))
    try:
        description = read_json(folder / TEACHER_FILE)
        kind = description["kind"]
        if kind not in kinds:
            expected = " or ".join(map(repr, kinds))
            raise TeacherError(f"{folder / TEACHER_FILE}: kind {kind!r}; expected {expected}")
        network = kinds[kind](SasRecSizes(**description["sizes"]))
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
        fingerprint = str(description["catalog_fingerprint"])
    except DataError as error:
        raise TeacherError(str(error)) from error
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise TeacherError(f"{folder}: damaged teacher ({reason}); fit it again") from error
    if not all(bool(torch.isfinite(weight).all()) for weight in network.parameters()):
        raise TeacherError(f"{folder / WEIGHTS_FILE}: weights are not finite; fit it again")
    return network.to(target).eval(), fingerprint
