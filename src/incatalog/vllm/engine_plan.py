"""How one engine of vLLM holds its answers to the items, and where it could not."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from incatalog.errors import BackboneError, ConfigError
from incatalog.items.tokens import OUR_NAMES
from incatalog.vllm.answer_grammars import AnswerGrammars, holds_model
from incatalog.vllm.item_request import KEY

VERSION = "0.32"
PROCESSOR = "incatalog.vllm.runners:ItemProcessor"
OUTPUT_TOKENS = "incatalog.vllm.logits_processor:OutputTokensWanted"
PROPOSER = "incatalog.vllm.proposer.ForcedRuns"

Through = Literal["processor", "grammar"]
"""What masks the scores: a logits processor, or a structured-output backend."""


@dataclass(frozen=True)
class EngineSettings:
    """What `additional_config={"incatalog": {...}}` of an engine says.

    Attributes:
        through: What masks the scores; by default a backend where the engine speculates, as vLLM
            leaves processors out there, and a processor elsewhere.
        domain: What the model's catalog is called; by default as its folder.
        catalogs: Folder in which a service keeps versions of its catalogs.
    """

    through: Through | None = None
    domain: str = ""
    catalogs: str = ""

    @classmethod
    def parse(cls, given: Any) -> EngineSettings:
        """Settings as the engine has them."""
        place, known = f'additional_config["{KEY}"]', {field.name for field in fields(cls)}
        if not isinstance(given, Mapping):
            raise ConfigError(f"{place}: found {given!r}; expected an object")
        for name, value in given.items():
            if name not in known or not isinstance(value, str):
                expected = f"texts called {', '.join(sorted(known))}"
                raise ConfigError(f"{place}: found {name}={value!r}; expected {expected}")
        if given.get("through") not in (None, *get_args(Through)):
            expected = " or ".join(get_args(Through))
            found = given["through"]
            raise ConfigError(f"{place}: through: found {found!r}; expected {expected}")
        return cls(**given)


@dataclass(frozen=True, eq=False)
class EnginePlan:
    """How one engine holds answers to the items.

    Attributes:
        grammars: Makes the grammar of each answer.
        through: What masks the scores.
        weighs: Whether items can have weights: the V1 runner's, where drafts hold no decision.
        proposes: Whether what is forced is fed as drafts.
        drafts: Tokens of a draft at most.
    """

    grammars: AnswerGrammars
    through: Through
    weighs: bool
    proposes: bool
    drafts: int


def plan_of(config: Any) -> EnginePlan | None:
    """The plan of an engine with this `VllmConfig`; None for a model that is not ours.

    Raises:
        IncatalogError: The engine would answer unchecked, or the model folder is incomplete.
    """
    model, given = config.model_config.model, config.additional_config or {}
    own = given.get(KEY) if isinstance(given, Mapping) else None
    if not holds_model(model):
        _refuse_lost_spec(config.model_config, asked=own is not None)
        return None
    if config.model_config.runner_type == "pooling":
        return None
    settings = EngineSettings.parse(own or {})
    speculates = config.speculative_config
    through = settings.through or ("grammar" if speculates else "processor")
    _refuse_what_drops_it(config, through)
    proposes = speculates is not None and speculates.model == PROPOSER
    grammars = _loaded(str(model), settings)
    weighs = not config.use_v2_model_runner and (proposes or not speculates)
    return EnginePlan(grammars, through, weighs, proposes, config.num_speculative_tokens)


@functools.lru_cache(maxsize=4)
def _loaded(model: str, settings: EngineSettings) -> AnswerGrammars:
    """What the engine, its front end and its workers need alike, where one process has several."""
    kept = Path(settings.catalogs) if settings.catalogs else None
    return AnswerGrammars.load(model, domain=settings.domain, kept=kept)


def _refuse_lost_spec(model_config: Any, *, asked: bool) -> None:
    """Refuses a model that knows the control tokens, or is to name items, without a catalog."""
    model, hint = model_config.model, "`incatalog model import` describes a model trained elsewhere"
    if asked:
        found = f'additional_config names "{KEY}", and the folder holds no incatalog.json'
        raise BackboneError(f"{model}: {found}; {hint}")
    if model_config.skip_tokenizer_init:
        return
    from vllm.tokenizers import cached_tokenizer_from_config

    known = cached_tokenizer_from_config(model_config=model_config).get_vocab()
    if set(OUR_NAMES) <= known.keys():
        knows = f"its vocabulary has {' and '.join(OUR_NAMES)}, so it names items of a catalog"
        raise BackboneError(
            f"{model}: {knows}, and the folder holds no incatalog.json to hold it to one; restore "
            f"it, or serve a local copy; {hint}"
        )


def _refuse_what_drops_it(config: Any, through: Through) -> None:
    """Refuses what vLLM does without asking a processor or a grammar."""
    model_config, named = config.model_config, f'additional_config["{KEY}"]: through'
    processors = model_config.logits_processors or ()
    speculates = config.speculative_config is not None
    proposer = speculates and config.speculative_config.model == PROPOSER
    parser = config.structured_outputs_config.reasoning_parser
    for refused, place, found, expected in (
        (
            speculates and through == "processor",
            named,
            "processor beside a speculative_config, where vLLM leaves logits processors out",
            "grammar, or no speculative_config",
        ),
        (
            speculates and PROCESSOR in processors,
            "logits_processors",
            f"{PROCESSOR} beside a speculative_config, where vLLM leaves it out",
            "none: the engine finds it by itself",
        ),
        (
            proposer and config.use_v2_model_runner,
            "VLLM_USE_V2_MODEL_RUNNER",
            "1 beside a proposer that this runner does not know",
            "it unset, or 0",
        ),
        (
            model_config.skip_tokenizer_init,
            "skip_tokenizer_init",
            "true",
            "false: items are tokens of the tokenizer",
        ),
        (
            model_config.tokenizer not in (None, model_config.model),
            "tokenizer",
            model_config.tokenizer,
            f"that of {model_config.model}, with which its items were written",
        ),
        (
            config.scheduler_config.scheduler_cls is not None,
            "scheduler_cls",
            config.scheduler_config.scheduler_cls,
            "vLLM's own, which has every answer checked",
        ),
        (
            config.kv_transfer_config is not None,
            "kv_transfer_config",
            "one, so that an answer begins in one engine and ends in another",
            "none",
        ),
        (
            bool(parser) and through == "grammar",
            "reasoning_parser",
            parser,
            f"none, as what is reasoned is not held to a grammar; or {named} processor",
        ),
    ):
        if refused:
            raise ConfigError(f"{place}: found {found}; expected {expected}")
