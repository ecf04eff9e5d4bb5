"""Settings of `train sft` that fit a size of model, as `recipes/` has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from incatalog.config import SPEC_FILES, Method
from incatalog.errors import DataError
from incatalog.reading import parse_json, read_text

Preset = Literal["auto", "tiny", "small", "8b", "none"]

# A Llama from scratch, on the item spans alone.
_TINY: dict[str, Any] = {
    "tiny_heads": 2,
    "wording": "test-as-trained",
    "window": "full",
    "teacher_sees": "history",
    "tune": "full",
    "history_form": "span",
    "loss_on_history": True,
    "list_form": "plain",
    "fixed_list_length": True,
    "mention_control_tokens": False,
    "batch_size": 32,
    "learning_rate": 4e-3,
    # With a shorter warm-up a model from scratch was seen to learn far more slowly.
    "warmup_ratio": 0.1,
    "adam_beta2": 0.98,
    "validate_every": 0,
    "checkpoint_every": 500,
    "attention": "eager",
}
# A chat model of up to a billion parameters, by LoRA, as a CPU bears it.
_SMALL: dict[str, Any] = {
    "epochs": 2,
    "multi_round_ratio": 0.1,
    "max_length": 512,
    "learning_rate": 1e-3,
    "validate_every": 0,
    "checkpoint_every": 20,
}
# As the methods were published on Llama-3-8B.
_LARGE: dict[str, Any] = {
    "epochs": 20,
    "multi_round_ratio": 0.1,
    "candidate_ratio": 0.5,
    "min_candidates": 10,
    "max_candidates": 10,
    "system": (
        "You are an expert recommender engine as well as a helpful, respectful and honest "
        "assistant."
    ),
    "list_form": "indented",
    "max_length": 2048,
    "lora_init": "orthogonal",
    "batch_size": 1,
    "gradient_accumulation": 32,
    "warmup_ratio": 0.0125,
    "scheduler_power": 2.0,
    "scheduler_end": 1e-3,
    "adam_eps": 1e-5,
    "bf16": True,
    "keep_best": True,
}
_FOUND: dict[str, Any] = {"train_item_vectors": True}
_PRESETS: dict[str, dict[Method, dict[str, Any]]] = {
    "tiny": {
        "cgen": _TINY | {"epochs": 40},
        "token": _TINY | {"epochs": 36},
        "ret": _TINY
        | _FOUND
        | {
            "epochs": 26,
            "batch_size": 16,
            "learning_rate": 3e-3,
            "tiny_dropout": 0.1,
            "unseen_only": True,
        },
    },
    "small": {"cgen": _SMALL, "token": _SMALL, "ret": _SMALL | _FOUND},
    "8b": {
        "cgen": _LARGE,
        "token": _LARGE
        | {
            "list_form": "plain",
            "scope": "off",
            "train_embeddings": True,
            "batch_size": 2,
            "warmup_ratio": 0.05,
            "clip_norm": 0.0,
        },
        "ret": _LARGE | _FOUND | {"projection": "mlp"},
    },
    "none": {"cgen": {}, "token": {}, "ret": {}},
}
# Parameters up to which a chat model is a small one.
_SMALL_MODEL = 1e9


def implied_preset(model: str) -> Preset:
    """The preset that fits a model, as far as its name or folder says how large it is.

    A model that was trained on a catalog goes on as it was, without one.
    """
    if model == "tiny":
        return "tiny"
    if model == "smollm2":
        return "small"
    parameters = _parameters(Path(model))
    return "small" if parameters is not None and parameters <= _SMALL_MODEL else "none"


def preset_settings(
    preset: Preset, method: Method, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The settings of a preset for a method, without those that `given` settings rule out.

    Args:
        preset: Its name; ``auto`` for the one that the given ``model`` implies.
        method: How items are written.
        given: Settings that are chosen already, by name.
    """
    chosen = dict(given or {})
    if preset == "auto":
        preset = implied_preset(str(chosen.get("model", "")))
    found = dict(_PRESETS[preset][method])
    candidates = ("candidate_ratio", "min_candidates", "max_candidates")
    longer = chosen.get("list_length", 0) > found.get("max_candidates", 0)
    for ruled_out, names in (
        (not chosen.get("chat"), ("multi_round_ratio",)),
        (chosen.get("keep_best"), ("validate_every", "checkpoint_every")),
        (chosen.get("validate_every") == 0 or chosen.get("checkpoint_every"), ("keep_best",)),
        (chosen.get("answer_form") == "title", ("history_form", "loss_on_history", "keep_best")),
        (chosen.get("history_form") == "title", ("loss_on_history",)),
        (chosen.get("model") != "tiny", ("tiny_heads", "tiny_dropout")),
        (chosen.get("distill"), ("unseen_only", "scope")),
        (chosen.get("negatives") or chosen.get("candidate_ratio"), ("unseen_only",)),
        (chosen.get("unseen_only") or longer, candidates),
    ):
        if ruled_out:
            for name in names:
                found.pop(name, None)
    return found


def _parameters(folder: Path) -> float | None:
    """About how many parameters a chat model in a folder has; None where nobody can say."""
    trained = any((folder / name).exists() for name in SPEC_FILES)
    if trained or not (folder / "config.json").is_file():
        return None
    path = folder / "config.json"
    try:
        config = parse_json(path, read_text(path))
        width, depth = float(config["hidden_size"]), float(config["num_hidden_layers"])
        inner, tokens = float(config["intermediate_size"]), float(config["vocab_size"])
    except (DataError, KeyError, TypeError, ValueError):
        # What cannot be read is an error when the model is loaded, which names the file.
        return None
    return depth * width * (4 * width + 3 * inner) + tokens * width
