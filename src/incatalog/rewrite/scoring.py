"""All rewards of rewritten titles together, with the scorers that a YAML file names."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from incatalog.data.vectors import load_vectors
from incatalog.devices import resolve_device
from incatalog.embedding.encoders import load_encoder
from incatalog.errors import ConfigError, DataError
from incatalog.model.backbone import load_backbone
from incatalog.reading import read_text
from incatalog.rewrite import rewrite_rewards as of_rewrites
from incatalog.rewrite.endpoint import (
    EndpointJudge,
    EndpointPerplexity,
    EndpointRetriever,
    EndpointSettings,
)
from incatalog.rewrite.rewrite_rewards import REWRITE_REWARDS, Rewards, RewriteReward
from incatalog.rewrite.rows import rewrite_of, rows_of
from incatalog.rewrite.scorers import LocalModel, LocalRetriever

_PARTS = ("perplexity", "tokens", "judge", "retrieval")
_OTHERS = ("model", "key_variable", "tries", "timeout", "pause", "parallel")  # Of an endpoint.
# The reward of each name, and the part that scores it.
_REWARDS: dict[str, tuple[Callable[..., Rewards], str]] = {
    "average_ppl": (of_rewrites.average_ppl, "perplexity"),
    "length": (of_rewrites.length, "tokens"),
    "discriminative": (of_rewrites.discriminative, "judge"),
    "item2item": (of_rewrites.item2item, "retrieval"),
    "user2item": (of_rewrites.user2item, "retrieval"),
}


class RewriteScoring:
    """Rewards completions by the scorers of a configuration; each is loaded when it is needed."""

    def __init__(self, settings: Mapping[str, Any], device: str = "auto") -> None:
        """Takes the contents of a YAML file of scorers; see `docs/rewrite.md`."""
        if unknown := sorted(set(settings) - {*_PARTS, "seed"}):
            expected = f"expected {', '.join(_PARTS)}, seed"
            raise ConfigError(f"scorers: no part {unknown[0]!r}; {expected}")
        self._settings = dict(settings)
        self._device = resolve_device(device)
        self._seed = int(settings.get("seed", 0))
        self._models: dict[str, LocalModel] = {}
        self._scorers: dict[str, Any] = {}

    @classmethod
    def load(cls, path: Path, device: str = "auto") -> RewriteScoring:
        """Reads a YAML file."""
        try:
            settings = yaml.safe_load(read_text(path))
        except (DataError, yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"--scorers {path}: not a readable YAML file") from error
        if not isinstance(settings, dict):
            raise ConfigError(f"--scorers {path}: expected settings by part: {', '.join(_PARTS)}")
        return cls(settings, device)

    def rewards(
        self, name: RewriteReward, completions: Sequence[Any], columns: Mapping[str, Sequence[Any]]
    ) -> Rewards:
        """One reward of completions, by the columns of their rows; None where it does not apply."""
        rows = rows_of(columns, len(completions))
        rewrites = [rewrite_of(completion) for completion in completions]
        if name not in _REWARDS:
            raise ConfigError(f"reward {name!r}: expected one of {', '.join(REWRITE_REWARDS)}")
        reward, part = _REWARDS[name]
        seed = (self._seed,) if name == "discriminative" else ()
        return reward(rows, rewrites, self._scorer(part), *seed)

    def function(self, name: RewriteReward) -> Callable[..., Rewards]:
        """A reward in the form that TRL's trainers take."""

        def reward(completions: Sequence[Any], **columns: Any) -> Rewards:
            return self.rewards(name, completions, columns)

        reward.__name__ = name
        return reward

    def _scorer(self, part: str) -> Any:
        if part not in self._scorers:
            found = self._settings.get(part)
            if not isinstance(found, Mapping):
                missing = f"the reward needs the part {part!r}, and the file names none"
                raise ConfigError(f"scorers: {missing}")
            self._scorers[part] = self._made(part, found)
        return self._scorers[part]

    def _made(self, part: str, settings: Mapping[str, Any]) -> Any:
        if "urls" in settings and part != "tokens":
            if part == "retrieval":
                others = {k: v for k, v in settings.items() if k != "vectors"}
                endpoint = _endpoint(part, others)
                _check(part, settings, ("vectors", *others))
                return EndpointRetriever(endpoint, load_vectors(str(settings["vectors"])))
            kind = EndpointPerplexity if part == "perplexity" else EndpointJudge
            return kind(_endpoint(part, settings))
        if part == "retrieval":
            _check(part, settings, ("encoder", "vectors"))
            name, dtype = str(settings["encoder"]), torch.float32
            encoder = load_encoder("sentence", name, self._device, max_tokens=128, dtype=dtype)
            return LocalRetriever(encoder.encode, load_vectors(str(settings["vectors"])))
        _check(part, settings, ("model",))
        name = str(settings["model"])
        if name not in self._models:
            backbone = load_backbone(name, device=str(self._device))
            backbone.model.eval()
            self._models[name] = LocalModel(backbone)
        return self._models[name]


def _endpoint(part: str, settings: Mapping[str, Any]) -> EndpointSettings:
    _check(part, settings, ("urls",), _OTHERS)
    given = {k: v for k, v in settings.items() if k not in ("urls", "key_variable")}
    variable = settings.get("key_variable")
    key = "" if variable is None else os.environ.get(variable)
    if key is None:
        wanted = f"no {variable} to take the key from"
        raise ConfigError(f"scorers: {part}: the environment has {wanted}")
    try:
        return EndpointSettings(tuple(settings["urls"]), key=key, **{"model": "", **given})
    except TypeError as error:
        raise ConfigError(f"scorers: {part}: {error}") from error


def _check(
    part: str, settings: Mapping[str, Any], needed: Sequence[str], others: Sequence[str] = ()
) -> None:
    """Refuses settings of a part that nobody knows, and a part without those it needs."""
    known = (*needed, *others)
    if unknown := sorted(set(settings) - set(known)):
        expected = f"expected {', '.join(known)}"
        raise ConfigError(f"scorers: {part}: no setting {unknown[0]!r}; {expected}")
    for name in needed:
        if name not in settings:
            raise ConfigError(f"scorers: {part}: expected {name!r}")
