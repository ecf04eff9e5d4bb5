"""SASRec weights that UniRec trained (github.com/microsoft/UniRec), as a teacher of ours.

Both networks do the same arithmetic: post-norm blocks, left padding, positions counted from the
oldest place of the window, a causal mask, scores as products with the item embeddings. So weights
move over by name; what the tensors do not say (heads, activation, epsilon of the norms) comes from
the configuration that UniRec keeps beside them. Two things differ without effect on a ranking:
UniRec masks with -10000 where we mask with minus infinity, and divides scores by a temperature.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from incatalog.artifacts import open_run, read_json, write_json
from incatalog.data.catalog import Catalog
from incatalog.data.export_unirec import load_numbers, numbers_by_appearance, numbers_by_row
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.data.prepared import prepared_files
from incatalog.devices import resolve_device
from incatalog.errors import ConfigError, TeacherError, first_line
from incatalog.teacher.sasrec import ACTIVATIONS, SasRec, SasRecSizes, save_network
from incatalog.teacher.settings import ImportUnirecSettings
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher.teacher_validation import (
    VALIDATION_FILE,
    Validation,
    validation_header,
    validation_metrics,
)

Tensors = Mapping[str, Tensor]
Options = Mapping[str, Any]

# By the name of our flag: UniRec's option, and its value in the published training.
_PUBLISHED: dict[str, tuple[str, Any]] = {
    "heads": ("n_heads", 2),
    "activation": ("hidden_act", "gelu"),
    "norm_eps": ("layer_norm_eps", 1e-12),
}

_ITEMS, _POSITIONS = "item_embedding.weight", "position_embedding.weight"
_FIRST_INNER = "trm_encoder.layer.0.feed_forward.dense_1.weight"
_BLOCK = re.compile(r"trm_encoder\.layer\.(\d+)\.")
_BLOCK_LAYERS = {
    **{f"multi_head_attention.{name}": f"attention.{name}" for name in ("query", "key", "value")},
    "multi_head_attention.dense": "attention.dense",
    "multi_head_attention.LayerNorm": "attention.norm",
    "feed_forward.dense_1": "feed_forward.dense_1",
    "feed_forward.dense_2": "feed_forward.dense_2",
    "feed_forward.LayerNorm": "feed_forward.norm",
}
# Tables that UniRec may make for any model: its SASRec never reads the one, and the other moves all
# scores of a user alike.
_WITHOUT_EFFECT = {"user_embedding.weight", "user_bias"}
# Layers of options we do not have, by the start of their names.
_OPTION_OF_LAYER = {
    "item_bias": "has_item_bias",
    "features_embedding": "use_features",
    "text_embedding": "use_text_emb",
    "text_mlp": "use_text_emb",
    "time_embedding": "time_seq",
    "scorer_layers": "distance_type",
}
# Options that change the arithmetic, and their only value we reproduce.
_NEEDED: dict[str, Any] = {
    "model": "SASRec",
    "distance_type": "dot",
    "use_position_emb": True,
    "has_item_bias": False,
    "use_features": False,
    "use_text_emb": False,
    "time_seq": 0,
    "score_clip_value": -1,
}
_SEE = "see docs/unirec.md for what can be imported"


def import_unirec(settings: ImportUnirecSettings) -> Path:
    """Makes a teacher of UniRec's SASRec weights, and validates it on the data.

    The validation is a test of the item numbers too: with wrong ones it falls to chance.

    Returns:
        The run folder, as `incatalog teacher fit` leaves it.

    Raises:
        TeacherError: The weights are damaged, not those of a SASRec we reproduce, or for another
            number of items.
        DataError: The data or the item numbers are broken.
        ConfigError: A flag contradicts the checkpoint, or cannot work.
        ArtifactError: The run folder holds something else.
    """
    device = resolve_device(settings.device)
    inputs = {**prepared_files(settings.data), "weights": Path(settings.weights)}
    catalog = Catalog.load(settings.data)
    histories = Histories.load(settings.data, catalog)
    split = leave_one_out(histories)
    if settings.item_numbers == "row":
        numbers = numbers_by_row(catalog)
    elif settings.item_numbers == "appearance":
        numbers = numbers_by_appearance(catalog, histories, settings.data)
    else:
        path = inputs["item_numbers"] = Path(settings.item_numbers)
        if not path.is_file():
            expected = "expected row, appearance, or a file of numbers"
            raise ConfigError(f"--item-numbers {path}: no such file; {expected}")
        numbers = load_numbers(path, catalog)
    tensors, options = read_weights(Path(settings.weights))
    network = network_of(tensors, options, numbers, settings)
    run = open_run(settings.out, "teacher import-unirec", settings, inputs=inputs)
    if not run.finished:
        teacher = InProcessTeacher(network.to(device), catalog)
        metrics = validation_metrics(teacher, split, exclude_seen=settings.exclude_seen)
        rule = settings.exclude_seen
        validation = Validation.of(split, len(catalog), exclude_seen=rule, seed=0)
        fitted = {"loss": validation.fit_temperature(teacher), "temperature": teacher.temperature}
        save_network(run.folder, network, catalog.fingerprint, teacher.temperature)
        header = validation_header(split, rule, teacher.kind)
        write_json(run.folder / VALIDATION_FILE, header | fitted | {"metrics": metrics})
        run.finish(**metrics)
    metrics = read_json(run.folder / VALIDATION_FILE)["metrics"]
    Console(stderr=True, soft_wrap=True, highlight=False).print(
        f"teacher: {run.folder}  {len(catalog):,} items  valid NDCG@10 {metrics['NDCG@10']:.4f} "
        f"(HR@10 {metrics['HR@10']:.4f}, by chance {min(1, 10 / len(catalog)):.4f})"
    )
    return run.folder


def read_weights(path: Path) -> tuple[Tensors, Options]:
    """Reads a state dict, bare or in UniRec's checkpoint, without running code from the file.

    The tensors are on the CPU; the options are those of UniRec's training, none for a bare state
    dict.
    """
    where = f"--weights {path}"
    if not path.is_file():
        raise TeacherError(f"{where}: no such file")
    if path.suffix == ".safetensors":
        try:
            return load_file(path), {}
        except (SafetensorError, OSError) as error:
            raise TeacherError(f"{where}: damaged safetensors ({first_line(error)})") from error
    if path.suffix not in (".pth", ".pt"):
        raise TeacherError(f"{where}: found {path.suffix!r}; expected .safetensors, .pth or .pt")
    content = _unpickle(path)
    tensors = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise TeacherError(
            f"{where}: holds no state dict; expected tensors by name, or UniRec's checkpoint with "
            "such a state_dict"
        )
    options = content.get("config") or {} if tensors is not content else {}
    if not isinstance(options, dict):
        found = type(options).__name__
        raise TeacherError(f"{where}: config is a {found}; expected settings by name")
    return dict(tensors), options


def _unpickle(path: Path) -> Any:
    """Reads plain containers, numbers and tensors; anything else in the file is refused."""
    damaged = f"--weights {path}: damaged, or not written by torch.save"
    # UniRec stores its metrics, which are scalars of numpy 1.
    scalar = np.float64().__reduce__()[0]
    plain: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    plain += [np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?"))]
    try:
        with torch.serialization.safe_globals(plain), warnings.catch_warnings():
            # About pickle protocols; what cannot be read is an error anyway.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if named is None:
            raise TeacherError(damaged) from error
        raise TeacherError(
            f"--weights {path}: not read, since it asks for {named[1]}, and a pickle that asks for "
            "more than tensors and numbers can run code; expected UniRec's checkpoint, a "
            "state_dict, or safetensors"
        ) from error
    except Exception as error:  # torch lets through whatever the damage led to
        reason = (str(error).splitlines() or [""])[0][:100]
        raise TeacherError(f"{damaged} ({type(error).__name__}: {reason})") from error


def network_of(
    tensors: Tensors, options: Options, numbers: np.ndarray, settings: ImportUnirecSettings
) -> SasRec:
    """Our network with UniRec's weights.

    `numbers` are UniRec's of the item in each row of our catalog; our settings fill up what
    UniRec's options leave open.
    """
    where = f"--weights {settings.weights}"
    for name, needed in _NEEDED.items():
        found = options.get(name, needed)
        if found != needed:
            raise TeacherError(
                f"{where}: trained with {name} {found!r}; expected {needed!r}, {_SEE}"
            )
    tensors = {name: value for name, value in tensors.items() if name not in _WITHOUT_EFFECT}
    layers = len({block[1] for name in tensors if (block := _BLOCK.match(name))})
    names = _layer_names(layers)
    _check_layers(where, tensors, names)
    sizes = _sizes(tensors, options, layers, len(numbers), settings)
    network = SasRec(sizes)
    moved = {ours: tensors[theirs].float() for theirs, ours in names.items()}
    table = moved[_ITEMS]
    moved[_ITEMS] = torch.cat([table[:1], table[torch.from_numpy(numbers)]])
    # UniRec makes one position more than its window has.
    moved[_POSITIONS] = moved[_POSITIONS][: sizes.max_length]
    for theirs, ours in names.items():
        expected = list(network.get_parameter(ours).shape)
        if list(moved[ours].shape) != expected:
            shape = list(tensors[theirs].shape)
            raise TeacherError(f"{where}: {theirs} has shape {shape}; expected {expected}")
        if not bool(torch.isfinite(moved[ours]).all()):
            raise TeacherError(f"{where}: {theirs} is not finite; train it again")
    network.load_state_dict(moved)
    return network.eval()


def _layer_names(layers: int) -> dict[str, str]:
    """Our name of each tensor of UniRec's."""
    modules = {"LayerNorm": "norm"}
    for block in range(layers):
        for theirs, ours in _BLOCK_LAYERS.items():
            modules[f"trm_encoder.layer.{block}.{theirs}"] = f"blocks.{block}.{ours}"
    names = {_ITEMS: _ITEMS, _POSITIONS: _POSITIONS}
    for kind in ("weight", "bias"):
        names |= {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in modules.items()}
    return names


def _check_layers(where: str, tensors: Tensors, names: Mapping[str, str]) -> None:
    """Refuses layers too many, too few, or not of numbers with two or one dimensions."""
    if _FIRST_INNER not in tensors:
        expected = "expected the state dict of UniRec's SASRec"
        raise TeacherError(f"{where}: lacks {_FIRST_INNER}; {expected}")
    for name, tensor in tensors.items():
        if name not in names:
            option = next((o for n, o in _OPTION_OF_LAYER.items() if name.startswith(n)), None)
            why = f", which UniRec makes for {option}" if option else ""
            raise TeacherError(f"{where}: unknown layer {name}{why}; {_SEE}")
        dimensions = 1 if name.endswith(".bias") or "LayerNorm" in name else 2
        if not tensor.is_floating_point() or tensor.dim() != dimensions:
            found = f"{name} is {tensor.dtype} of shape {list(tensor.shape)}"
            raise TeacherError(f"{where}: {found}; expected floats in {dimensions} dimensions")
    for name in names:
        if name not in tensors:
            raise TeacherError(f"{where}: lacks layer {name}")


def _sizes(
    tensors: Tensors, options: Options, layers: int, num_items: int, settings: ImportUnirecSettings
) -> SasRecSizes:
    where = f"--weights {settings.weights}"
    rows, hidden = tensors[_ITEMS].shape
    if rows != num_items + 1:
        raise TeacherError(
            f"{where}: {_ITEMS} has {rows} rows; expected {num_items + 1}, one for padding and one "
            f"for each of the {num_items} items in {settings.data}"
        )
    max_length = tensors[_POSITIONS].shape[0] - 1
    if max_length < 1 or options.get("max_seq_len", max_length) != max_length:
        found = f"{_POSITIONS} has {max_length + 1} rows"
        expected = f"{options.get('max_seq_len', 1)} (max_seq_len) and one more"
        raise TeacherError(f"{where}: {found}; expected {expected}")
    heads, activation, norm_eps = (_choose(settings, options, flag) for flag in _PUBLISHED)
    if heads < 1 or hidden % heads:
        raise ConfigError(f"--heads {heads}: expected a divisor of the width, {hidden}")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise ConfigError(f"--activation {activation}: expected one of {known}")
    if not 0 < norm_eps < 1:
        raise ConfigError(f"--norm-eps {norm_eps}: expected more than 0 and less than 1")
    inner, dropout = tensors[_FIRST_INNER].shape[0], 0.0
    shape = (num_items, max_length, hidden, inner, layers, heads, dropout)
    return SasRecSizes(*shape, activation, norm_eps)


def _choose(settings: ImportUnirecSettings, options: Options, field: str) -> Any:
    """The value of the flag, of UniRec's option, or of the published training, in this order."""
    flag, (name, published) = getattr(settings, field), _PUBLISHED[field]
    if name not in options:
        return flag or published
    try:
        # UniRec's YAML spells 1e-12, which YAML reads as text.
        found = type(published)(options[name])
    except (TypeError, ValueError) as error:
        wrong = f"{name} is {options[name]!r}; expected a value like {published}"
        raise TeacherError(f"--weights {settings.weights}: {wrong}") from error
    if flag and flag != found:
        trained = f"the checkpoint was trained with {name} {found}; leave the flag out"
        raise ConfigError(f"--{field.replace('_', '-')} {flag}: {trained}")
    return found
