"""What vLLM calls as it starts: the doors through which nothing goes that was not held to items.

vLLM has no registry for backends of structured outputs (its RFC 50966), and leaves plugins out in
some modes without a word. So these places are wrapped, in the one version they are known of: where
an engine starts and makes its processors, where a request comes in, where a grammar is made, and
where tokens go out.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from incatalog.errors import ConfigError, IncatalogError
from incatalog.vllm.engine_plan import OUTPUT_TOKENS, PROCESSOR, VERSION, EnginePlan, plan_of
from incatalog.vllm.item_request import KEY, ItemRequest

_MARK = "_incatalog_plan"
# Set while a request comes in through the door: what vLLM asks in between was wrapped.
_at_the_door: ContextVar[bool] = ContextVar("at_the_door", default=False)


def register() -> None:
    """The entry point `vllm.general_plugins`; vLLM calls it in each of its processes."""
    import vllm
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.sample import logits_processor
    from vllm.v1.structured_output import StructuredOutputManager

    if hasattr(InputProcessor, _MARK):
        return
    setattr(InputProcessor, _MARK, None)
    _let_modules_be_looked_through()
    if not vllm.__version__.startswith(f"{VERSION}."):
        _wrap(InputProcessor, "__init__", functools.partial(_refuse_version, vllm.__version__))
        return
    plain = logits_processor.build_logitsprocs
    _wrap(logits_processor, "build_logitsprocs", _build_processors)
    # The runner may have taken it under its own name.
    runner: Any = sys.modules.get("vllm.v1.worker.gpu_model_runner")
    if getattr(runner, "build_logitsprocs", None) is plain:
        runner.build_logitsprocs = logits_processor.build_logitsprocs
    _wrap(InputProcessor, "__init__", _start)
    _wrap(InputProcessor, "process_inputs", _admit)
    _wrap(InputProcessor, "resolve_watermarking", _refuse_beams)
    _wrap(StructuredOutputManager, "__init__", _manage)
    _wrap(StructuredOutputManager, "grammar_init", _make_grammar)
    _wrap(StructuredOutputManager, "validate_tokens", _propose)
    _wrap(StructuredOutputManager, "accept_tokens", _check)


def _let_modules_be_looked_through() -> None:
    """Keeps llvmlite's library from taking `__dict__` for the name of a function of its own.

    On a CPU vLLM asks every value of every module for it, and fails at that one.
    """
    from llvmlite.binding import ffi

    plain = ffi._lib_wrapper.__getattr__

    def function(self: Any, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return plain(self, name)

    ffi._lib_wrapper.__getattr__ = function


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Puts a function around a method; it gets the method first."""
    plain = getattr(owner, name)

    @functools.wraps(plain)
    def wrapped(*args: Any, **named: Any) -> Any:
        return around(plain, *args, **named)

    setattr(owner, name, wrapped)


def require_door(params: Any) -> None:  # noqa: ARG001 - what vLLM hands to `validate_params`
    """Refuses a request that did not come through the door; what processors let vLLM ask.

    Raises:
        ValueError: vLLM was told to leave the plugin out, and would leave answers unchecked.
    """
    if not _at_the_door.get():
        found = f"leaves {KEY} out, which holds answers to the items of a catalog"
        raise ValueError(f"VLLM_PLUGINS: {found}; add {KEY} to it, or leave it unset")


def _refuse_version(
    found: str, plain: Callable[..., None], self: Any, config: Any, *args: Any, **named: Any
) -> None:
    if plan_of(config) is not None:
        model = config.model_config.model
        raise ConfigError(
            f"vllm: found {found}; {model} needs {VERSION}, whose doors are known: "
            f"pip install 'vllm=={VERSION}.*'"
        )
    plain(self, config, *args, **named)


def _start(plain: Callable[..., None], self: Any, config: Any, *args: Any, **named: Any) -> None:
    """An engine starts: refuses one that would answer unchecked."""
    plan = plan_of(config)
    setattr(self, _MARK, plan)
    processes = plan is not None and plan.weighs and not plan.proposes
    if processes:
        model_config = config.model_config
        others = [one for one in model_config.logits_processors or () if one != PROCESSOR]
        if OUTPUT_TOKENS not in others:
            model_config.logits_processors = [*others, OUTPUT_TOKENS]
    plain(self, config, *args, **named)


def _build_processors(plain: Callable[..., Any], config: Any, *args: Any, **named: Any) -> Any:
    """Processors of a V1 runner: vLLM leaves out even those that could stay beside drafts."""
    plan, made = plan_of(config), plain(config, *args, **named)
    if plan is None or not plan.proposes:
        return made
    from vllm.v1.sample.logits_processor import LogitsProcessors

    from incatalog.vllm.logits_processor import ItemLogitsProcessor

    return LogitsProcessors([*made.all, ItemLogitsProcessor(config, *args[:2])])


def _admit(
    plain: Callable[..., Any], self: Any, request_id: str, prompt: Any, params: Any, *args: Any,
    **named: Any,
) -> Any:  # fmt: skip
    """A request comes in: refuses what could not be held, and says how it is to end."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    plan: EnginePlan | None = getattr(self, _MARK)
    inside = _at_the_door.set(True)
    try:
        if not isinstance(params, SamplingParams):
            return plain(self, request_id, prompt, params, *args, **named)
        given = (params.extra_args or {}).get(KEY)
        if plan is None:
            if given is not None:
                model = self.model_config.model
                found = f"extra_args names {KEY!r}, and {model} holds no incatalog.json"
                raise ConfigError(f"{found}; serve the folder of a model trained on a catalog")
            return plain(self, request_id, prompt, params, *args, **named)
        asked = ItemRequest.parse(given)
        _refuse_params(params, plan, asked, resumable=bool(named.get("resumable")))
        # Whatever is wrong with the items is said here, where it can be.
        plan.grammars.grammar(asked)
        request = plain(self, request_id, prompt, params, *args, **named)
        if request.prompt_token_ids is None:
            raise ConfigError("prompt: found embeddings; expected text or tokens")
        if asked.terms is None:
            plan.grammars.check_prompt(request.prompt_token_ids)
        _finish(request.sampling_params, plan, given)
        return request
    except IncatalogError as error:
        raise VLLMValidationError(str(error)) from error
    finally:
        _at_the_door.reset(inside)


def _refuse_params(params: Any, plan: EnginePlan, asked: ItemRequest, *, resumable: bool) -> None:
    """Refuses what of a request would undo the constraint, or be undone by it."""
    for name, plain in (
        ("structured_outputs", None), ("logit_bias", None), ("allowed_token_ids", None),
        ("bad_words", []), ("min_tokens", 0), ("ignore_eos", False),
        ("trace_decode_token_ids", None), ("thinking_token_budget", None),
    ):  # fmt: skip
        found = getattr(params, name, plain)
        if found and found != plain:
            held = "beside items, which already say what may come next and where an answer ends"
            raise ConfigError(f"{name}: found {found!r} {held}; leave it out")
    if resumable:
        raise ConfigError("prompt: found a stream of inputs; expected a whole prompt")
    if not plan.weighs and plan.grammars.weighs(asked):
        found = "weights, and this engine masks scores and cannot weigh them"
        hint = "start it with VLLM_USE_V2_MODEL_RUNNER=0, and drafts of what is forced or none"
        raise ConfigError(f'extra_args["{KEY}"]: found {found}; {hint}')


def _finish(params: Any, plan: EnginePlan, given: Any) -> None:
    """Lets an answer end where its grammar does, and puts its grammar before vLLM."""
    from vllm.sampling_params import StructuredOutputsParams

    stop = plan.grammars.control.stop
    known = set(params.stop_token_ids or ())
    params.stop_token_ids = [*known, *sorted(stop - known - {params.eos_token_id})]
    params.all_stop_token_ids.update(stop)
    asked = {} if given is None else given
    params.extra_args = {**(params.extra_args or {}), KEY: asked}
    if plan.through == "grammar":
        params.structured_outputs = StructuredOutputsParams(grammar=json.dumps(asked))


def _refuse_beams(plain: Callable[..., Any], self: Any, params: Any) -> Any:
    """Both beam searches ask here: they choose tokens by scores from before the constraint."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    if getattr(self, _MARK) is not None and not isinstance(params, SamplingParams):
        found = "a beam search, which goes by scores that the items do not hold"
        raise VLLMValidationError(f"use_beam_search: found {found}; expected sampling, or greedy")
    return plain(self, params)


def _manage(plain: Callable[..., None], self: Any, config: Any, *args: Any, **named: Any) -> None:
    """The scheduler's side starts."""
    setattr(self, _MARK, plan_of(config))
    plain(self, config, *args, **named)


def _make_grammar(plain: Callable[..., None], self: Any, request: Any) -> None:
    """A request is to get its grammar; that of an engine of ours is always our own."""
    from incatalog.vllm.structured import ItemBackend

    plan: EnginePlan | None = getattr(self, _MARK)
    if plan is not None and self.backend is None:
        self.backend = ItemBackend.of(self, plan.grammars)
    plain(self, request)


def _propose(plain: Callable[..., list[int]], self: Any, request: Any, drafts: list[int]) -> Any:
    """Drafts are looked through; in place of `ForcedRuns`' own stands what is forced."""
    plan: EnginePlan | None = getattr(self, _MARK)
    if plan is None or not plan.proposes or request.structured_output_request is None:
        return plain(self, request, drafts)
    return request.structured_output_request.grammar.answer.forced(plan.drafts)


def _check(plain: Callable[..., bool], self: Any, request: Any, tokens: list[int]) -> bool:
    """Tokens go out: those from the first on that no grammar allows are taken away, as an error.

    Whatever chose them, and whatever of the constraint was left out there, it is looked at here.
    """
    plan: EnginePlan | None = getattr(self, _MARK)
    if plan is None or request.sampling_params is None or not tokens:
        return plain(self, request, tokens)
    if request.structured_output_request is not None:
        answer = request.structured_output_request.grammar.answer
    else:
        answer = getattr(request, _MARK, None)
        if answer is None:
            given = (request.sampling_params.extra_args or {}).get(KEY)
            answer = plan.grammars.grammar(ItemRequest.parse(given))
            setattr(request, _MARK, answer)
    for place, token in enumerate(tokens):
        if why := answer.accept(token):
            from vllm.logger import init_logger

            log = init_logger("vllm.incatalog")
            log.error("Request %s ends as an error: %s.", request.request_id, why)
            # The list is the one that goes out.
            del tokens[place:]
            return False
    return True
