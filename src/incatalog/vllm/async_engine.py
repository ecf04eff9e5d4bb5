"""vLLM's `AsyncLLM` as an engine: requests of this package in, its events out.

vLLM decides, in a process of its own, and holds its answers to the terms that go along
(:mod:`incatalog.vllm.answer_terms`). Here its tokens become events, by the state of the engine of
this package: what no item allows never becomes an answer.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from incatalog.constraint.control import ControlTokens, open_span
from incatalog.decoding.events import Event
from incatalog.decoding.following import FollowedAnswer, check_followed
from incatalog.decoding.request import Request
from incatalog.errors import BackboneError, ConfigError, SpanError, first_line, require
from incatalog.vllm.answer_terms import AnswerTerms
from incatalog.vllm.engine_plan import PROPOSER
from incatalog.vllm.item_request import KEY
from incatalog.vllm.shared_tries import WrittenTries

_GROUP = "vllm.general_plugins"
_DRAFTS = 16  # tokens; few titles are longer than that behind a choice
# Arguments that would undo what the service relies on.
_OWN = {
    "model": "it is --model",
    "tokenizer": "it is that of --model",
    "logits-processors": "vLLM leaves them out beside drafts",
    "additional-config": "the service tells vLLM there where its catalogs are",
    "speculative-config": "the drafts are what the catalog forces",
    "async-scheduling": "what weighs the items needs the newest token",
    "logprobs-mode": "scores of items are read from it",
    "max-num-seqs": "it is --batch (serve) or --batch-size (batch)",
    "enable-log-requests": "requests stay private",
    "skip-tokenizer-init": "vLLM needs the tokenizer to end answers",
    "watermark-config": "it takes vLLM's newer runner, which leaves the catalog's processor out",
}


class AsyncEngine:
    """Answers requests by vLLM, any number side by side.

    Args:
        llm: vLLM's engine, started with the logits processor of this package.
        tries: Where its process finds the tries.
        control: Tokens that open and close spans, and those that end an answer.
        item_only: Tokens that stand nowhere but inside of spans.
        names_items: Whether the model knows the tokens of items; a chat model that was never
            trained on a catalog writes text alone.
    """

    def __init__(
        self,
        llm: Any,
        tries: WrittenTries,
        control: ControlTokens,
        item_only: Collection[int] = (),
        *,
        names_items: bool = True,
    ) -> None:
        self._llm, self._tries, self._control = llm, tries, control
        self._item_only = frozenset(item_only)
        self._names_items = names_items
        self._numbers = itertools.count()

    @property
    def alive(self) -> bool:
        """Whether vLLM's process answers."""
        return not self._llm.errored

    @property
    def context_length(self) -> int:
        """Tokens the model reads and writes in all, as vLLM was started."""
        found: int = self._llm.model_config.max_model_len
        return found

    def close(self) -> None:
        """Ends vLLM's process."""
        self._llm.shutdown()

    def check(self, request: Request) -> None:
        """Refuses what vLLM cannot answer.

        Raises:
            ConfigError: Items would have to be searched for, or are retrieved, or the model does
                not know how they are written.
            SpanError: The prompt ends within a span.
        """
        check_followed(request)
        grounding, control = request.grounding, self._control
        if grounding is None or grounding.retriever is not None:
            raise ConfigError("grounding: the items of an answer by vLLM are written, and named")
        if open_span(request.prompt_ids, control.soi, control.eoi) is not None:
            raise SpanError("prompt_ids: end within an item span; close it, or leave it out")

    async def answer(self, request: Request) -> AsyncGenerator[list[Event], None]:
        """The events of one answer, as they come; closing it takes the request from vLLM.

        Raises:
            BackboneError: vLLM fails, or writes what no item allows.
            ConfigError: vLLM cannot answer it.
        """
        self.check(request)
        assert request.grounding is not None
        trie = request.grounding.trie
        followed = FollowedAnswer(request, trie, self._control, self._item_only)
        if begun := followed.begin():
            yield begun
        name = None
        while not followed.finished:
            if self._names_items:
                name = name or self._tries.name(trie)
            elif request.item_limit != 0:
                raise ConfigError(
                    "item_decode: the model was never trained on a catalog, so its items come from "
                    "a guide alone: ask for as many as are wanted, with guide_weight 1, or serve "
                    "with --engine incatalog"
                )
            async with aclosing(self._written(request, followed, name)) as tokens:
                async for token, logprob in tokens:
                    if events := followed.feed(token, logprob):
                        yield events
                    if followed.finished or followed.jumps():
                        break
                else:
                    raise BackboneError("vLLM ended an answer before it was complete; ask again")

    async def _written(
        self, request: Request, followed: FollowedAnswer, trie: str | None
    ) -> AsyncGenerator[tuple[int, float], None]:
        """The tokens that vLLM goes on with, and the logarithm of each one's probability."""
        from vllm import SamplingParams, TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        given, extra = followed.given, None
        if trie is not None:
            own = self._control, tuple(sorted(self._item_only)), tuple(given)
            extra = {KEY: AnswerTerms.of(request, trie, *own).to_args()}
        params = SamplingParams(
            max_tokens=followed.room,
            temperature=request.temperature,
            top_p=request.top_p,
            # What is begun anew within an answer must not draw the same numbers again.
            seed=(request.seed + len(given)) % (1 << 63) if request.temperature > 0 else None,
            stop_token_ids=sorted(self._control.stop),
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args=extra,
        )
        prompt = TokensPrompt(prompt_token_ids=[*map(int, request.prompt_ids), *given])
        number = f"incatalog-{next(self._numbers)}"
        try:
            async with aclosing(self._llm.generate(prompt, params, number)) as outputs:
                async for output in outputs:
                    [one] = output.outputs
                    logprobs = one.logprobs or ()
                    for token, known in zip(one.token_ids, logprobs, strict=True):
                        yield int(token), float(known[token].logprob)
        except (BackboneError, ConfigError, GeneratorExit):
            raise
        except Exception as error:
            why = f"{type(error).__name__}: {first_line(error)}"
            raise BackboneError(f"vLLM failed ({why}); its log tells more") from error


class RunningEngine(AsyncEngine):
    """One that was started here, with the folder that its process reads the tries from."""

    def __init__(self, llm: Any, folder: str, *known: Any, names_items: bool) -> None:
        super().__init__(llm, WrittenTries(Path(folder)), *known, names_items=names_items)
        self._folder = folder

    def close(self) -> None:
        """Ends vLLM's process, and lets the folder go; may be called more than once."""
        if Path(self._folder).exists():
            super().close()
            shutil.rmtree(self._folder, ignore_errors=True)


def start_engine(
    model: str | Path,
    control: ControlTokens,
    item_only: Collection[int],
    *,
    rows: int,
    names_items: bool,
    arguments: Sequence[str] = (),
    device: str = "auto",
) -> RunningEngine:
    """Starts vLLM on a model, in a process of its own.

    Args:
        model: Folder of the model.
        control: Tokens that open and close spans, and those that end an answer.
        item_only: Tokens that stand nowhere but inside of spans.
        rows: Answers that grow side by side at most.
        names_items: Whether the model knows the tokens of items.
        arguments: Arguments of vLLM's engine as NAME=VALUE.
        device: ``auto``, or the device that vLLM is built for.

    Raises:
        BackboneError: vLLM does not start.
        ConfigError: An argument cannot work.
        MissingExtraError: vLLM is not installed.
    """
    require("vllm.version", extra="vllm")
    given = checked_arguments(arguments)
    folder = tempfile.mkdtemp(prefix="incatalog-tries-")
    # What vLLM would fork holds threads of this process and its sockets.
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    # The newer runner takes no logits processor of this kind.
    os.environ["VLLM_USE_V2_MODEL_RUNNER"] = "0"
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        llm = _started(model, given, rows, device, folder if names_items else None)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return RunningEngine(llm, folder, control, item_only, names_items=names_items)


def checked_arguments(arguments: Sequence[str]) -> list[str]:
    """Arguments of vLLM as its command line has them.

    Raises:
        ConfigError: One has another form, or would undo what the service relies on.
    """
    found: list[str] = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        plain = name.replace("_", "-").removeprefix("no-")
        if not name or name.startswith("-") or not equals:
            why = "expected NAME=VALUE, such as tensor-parallel-size=2"
            raise ConfigError(f"--vllm {argument}: {why}")
        if plain in _OWN:
            raise ConfigError(f"--vllm {argument}: is not to be set, as {_OWN[plain]}")
        flag = f"--{name.replace('_', '-')}"
        if value in ("true", "false"):
            found.append(flag if value == "true" else flag.replace("--", "--no-", 1))
        else:
            found += [flag, value]
    return found


def _check_plugin() -> None:
    """Makes sure that vLLM will find what holds its answers."""
    if KEY not in {one.name for one in entry_points(group=_GROUP)}:
        raise BackboneError(
            f"vllm: finds no plugin {KEY!r} (entry point {_GROUP}), which holds answers to the "
            "catalog; install this package there: pip install 'incatalog[vllm]'"
        )


def _started(model: str | Path, given: list[str], rows: int, device: str, tries: str | None) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser
    from vllm.v1.engine.async_llm import AsyncLLM

    kind: str = current_platform.device_type
    if device not in ("auto", kind):
        why = f"vLLM is built for {kind} here; leave it out"
        raise ConfigError(f"--device {device}: {why}")
    parser = AsyncEngineArgs.add_cli_args(FlexibleArgumentParser(exit_on_error=False))
    own = ["--model", str(model), "--max-num-seqs", str(rows), "--logprobs-mode"]
    own += ["processed_logprobs", "--no-async-scheduling", "--disable-log-stats"]
    try:
        parsed, unknown = parser.parse_known_args([*own, *given])
    except (Exception, SystemExit) as error:
        why = first_line(error) if isinstance(error, Exception) else "vLLM does not take it"
        raise ConfigError(f"--vllm: {why}; see vllm serve --help=all") from error
    if unknown:
        raise ConfigError(f"--vllm: no argument of vLLM: {unknown[0]}; see vllm serve --help=all")
    arguments = AsyncEngineArgs.from_cli_args(parsed)
    if tries is not None:
        _check_plugin()
        arguments.additional_config = {KEY: {"catalogs": tries}}
        # What is forced is verified in one pass, in place of a pass a token.
        forced: dict[str, Any] = {"method": "custom_class", "model": PROPOSER}
        arguments.speculative_config = {**forced, "num_speculative_tokens": _DRAFTS}
    if kind == "cpu" and arguments.dtype == "auto":
        # As the engine of this package: answers are the same, and half the precision is no faster.
        arguments.dtype = "float32"
    try:
        return AsyncLLM.from_engine_args(arguments)
    except Exception as error:
        why = f"{type(error).__name__}: {first_line(error)}"
        raise BackboneError(f"{model}: vLLM does not start ({why}); its log tells more") from error
