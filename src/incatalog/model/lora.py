"""LoRA adapters."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch

from incatalog.config import LoraInit
from incatalog.errors import BackboneError, ConfigError, first_line, require
from incatalog.model.backbone import Backbone
from incatalog.model.vocabulary import is_tied


def add_lora(
    backbone: Backbone,
    *,
    r: int,
    alpha: float,
    dropout: float,
    targets: str = "all-linear",
    init: LoraInit = "kaiming",
    train_embeddings: bool = False,
    train_lm_head: bool = False,
    train_new_rows: bool = True,
    seed: int = 0,
) -> Backbone:
    """Wraps the model with LoRA adapters (arXiv 2106.09685); only they can be trained then.

    The rows of control and code tokens are trained too, in the input embedding and in the output
    layer, unless the whole layer is or `train_new_rows` is false. Layers that are tied stay so:
    training one whole trains the other. The adapters change nothing at first: their B is zero, and
    their A as `init` says.
    """
    peft = require("peft", extra="train")
    model = backbone.model
    if r < 1:
        raise ConfigError(f"--lora-r {r}: expected at least 1")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"--lora-dropout {dropout}: expected a number in [0, 1)")
    name_of = {id(module): name for name, module in model.named_modules()}
    embedding = name_of[id(model.get_input_embeddings())]
    head = name_of[id(model.get_output_embeddings())]
    tied = is_tied(model)
    whole = [embedding] * (train_embeddings or (tied and train_lm_head))
    whole += [head] * (train_lm_head and not tied)
    layers = [embedding] if tied else [embedding, head]
    rows = {name: backbone.new_token_ids for name in layers if name not in whole and train_new_rows}
    biased = getattr(model.get_output_embeddings(), "bias", None) is not None
    if biased and (head in rows or (tied and (whole or rows))):
        raise BackboneError(
            f"output layer {head} has a bias, which trained rows would lose; "
            "pass " + ("--tune full" if tied else "--train-lm-head")
        )
    names = [name.strip() for name in targets.split(",") if name.strip()]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets if targets == "all-linear" else names,
        modules_to_save=whole or None,
        trainable_token_indices=rows or None,
        ensure_weight_tying=tied and bool(whole),
    )
    if getattr(model, "is_quantized", False):
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    cuda = [model.device] if model.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices=cuda):
            torch.manual_seed(seed)
            wrapped = peft.get_peft_model(model, config)
            if init == "orthogonal":
                _make_orthogonal(wrapped)
    except ValueError as error:
        raise ConfigError(f"--lora-targets {targets}: {first_line(error)}") from error
    return dataclasses.replace(backbone, model=wrapped)


def _make_orthogonal(model: Any) -> None:
    """Draws every A anew, with orthogonal rows of length sqrt(2).

    peft's own "orthogonal" sets B too: there A and B are random, and only their product is zero.
    """
    for name, weight in model.named_parameters():
        if "lora_A" in name:
            drawn = torch.empty(weight.shape)  # float32 on the CPU: bfloat16 has no QR
            torch.nn.init.orthogonal_(drawn, gain=math.sqrt(2))
            weight.data.copy_(drawn)
