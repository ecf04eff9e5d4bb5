"""LoRA adapters."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator

import torch
from torch import nn

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
    train_embeddings: bool = False,
    train_lm_head: bool = False,
    train_new_rows: bool = True,
    seed: int = 0,
) -> Backbone:
    """Wraps the model with LoRA adapters (arXiv 2106.09685); only they can be trained then.

    The rows of control and code tokens are trained too, in the input embedding and in the output
    layer, unless the whole layer is or `train_new_rows` is false. In a model that ties the two
    layers they stay tied: training one whole trains the other.
    """
    peft = require("peft", extra="train")
    model = backbone.model
    if r < 1:
        raise ConfigError(f"--lora-r {r}: expected at least 1")
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"--lora-dropout {dropout}: expected a number in [0, 1)")
    embedding = _module_name(model, model.get_input_embeddings())
    head = _module_name(model, model.get_output_embeddings())
    tied = is_tied(model)
    whole = [embedding] * (train_embeddings or (tied and train_lm_head))
    whole += [head] * (train_lm_head and not tied)
    layers = [embedding] if tied else [embedding, head]
    new = [backbone.soi_token_id, backbone.eoi_token_id, *backbone.code_token_ids]
    rows = {name: new for name in layers if name not in whole and train_new_rows}
    biased = getattr(model.get_output_embeddings(), "bias", None) is not None
    if biased and (head in rows or (tied and (whole or rows))):
        raise BackboneError(
            f"output layer {head} has a bias, which trained rows would lose; "
            "pass " + ("--tune full" if tied else "--train-lm-head")
        )
    names: str | list[str] = targets
    if targets != "all-linear":
        names = [name.strip() for name in targets.split(",") if name.strip()]
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        modules_to_save=whole or None,
        trainable_token_indices=rows or None,
        ensure_weight_tying=tied and bool(whole),
    )
    if getattr(model, "is_quantized", False):
        model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    try:
        with _seeded(seed, model.device):
            wrapped = peft.get_peft_model(model, config)
    except ValueError as error:
        raise ConfigError(f"--lora-targets {targets}: {first_line(error)}") from error
    return dataclasses.replace(backbone, model=wrapped)


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def _module_name(model: nn.Module, module: nn.Module) -> str:
    names: dict[int, str] = {id(found): name for name, found in model.named_modules()}
    return names[id(module)]
