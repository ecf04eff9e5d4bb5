"""One contender of `benchmarks.vllm_constraint`, in a process of its own: a line of JSON a stage.

    python benchmarks/vllm_contender.py NAME JOB

JOB is a file of JSON: the model's folder, the titles, and of each user the prompt and the items
that are left out. It is run by the Python of vLLM's environment, and imports nothing of this
package but where the contender is of it.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

_MEGABYTE = 1 << 20
_STEPS = 12
_WAIT = 0.002
ROWS = (1, 8)
Step = Callable[[], list[str] | None]
"""Makes one step of all rows; the texts that ended in it, None where no row was ready for one."""


def tell(stage: str, **found: Any) -> None:
    """Tells the benchmark how far it has come."""
    print(json.dumps({"stage": stage, **found}), flush=True)


def resident() -> float:
    """Megabytes of memory that the process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / _MEGABYTE


class Vllm:
    """vLLM in this process, its scheduler stepped by hand."""

    def __init__(self, job: dict[str, Any], **options: Any) -> None:
        os.environ |= {
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        }
        from vllm import LLM

        self._engine = LLM(
            model=job["model"],
            dtype="float32",
            enforce_eager=True,
            max_model_len=1024,
            max_num_seqs=8,
            disable_log_stats=True,
            **options,
        ).llm_engine
        self._number = 0

    def ask(self, prompts: Sequence[list[int]], params: Sequence[Any]) -> Step:
        """Takes some rows in."""
        for prompt, own in zip(prompts, params, strict=True):
            self._number += 1
            self._engine.add_request(str(self._number), {"prompt_token_ids": prompt}, own)

        def step() -> list[str] | None:
            made = self._engine.step()
            return [one.outputs[0].text for one in made if one.finished] if made else None

        return step


def plain(job: dict[str, Any]) -> Iterator[Any]:
    """The model's own step, with nothing to hold it."""
    from vllm import SamplingParams

    engine = Vllm(job)
    yield None

    def ask(users: Sequence[int], most: int) -> Step:
        tokens = min(most, _STEPS)
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        return engine.ask(_prompts(job, users), [params] * len(users))

    yield ask


def choices(job: dict[str, Any], backend: str) -> Iterator[Any]:
    """Structured outputs as vLLM has them, every title a choice."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    engine = Vllm(job, structured_outputs_config={"backend": backend})
    yield None

    def ask(users: Sequence[int], most: int) -> Step:
        params = []
        for user in users:
            gone = set(job["users"][user]["excluded"])
            left = [title for row, title in enumerate(job["titles"]) if row not in gone]
            held = StructuredOutputsParams(choice=left)
            own = {"temperature": 0, "max_tokens": most, "structured_outputs": held}
            params.append(SamplingParams(**own))
        return engine.ask(_prompts(job, users), params)

    yield ask


def grammar(job: dict[str, Any]) -> Iterator[Any]:
    """The grammar of this package in vLLM."""
    from vllm import SamplingParams

    settings = {"incatalog": {"through": "processor", "catalogs": job["tries"]}}
    engine = Vllm(job, async_scheduling=False, additional_config=settings)
    yield None
    from incatalog.vllm.answer_terms import AnswerTerms
    from incatalog.vllm.item_request import KEY
    from incatalog.vllm.shared_tries import WrittenTries

    recommender = _recommender(job, weights=False)
    tries = WrittenTries(Path(job["tries"]))
    control = _control(recommender)

    def ask(users: Sequence[int], most: int) -> Step:
        params = []
        for user in users:
            request = _request(recommender, job, user)
            name = tries.name(recommender.grounding.trie)
            terms = AnswerTerms.of(request, name, control, (), ())
            own: Any = {"temperature": 0, "max_tokens": most, "skip_special_tokens": False}
            own["stop_token_ids"] = sorted(control.stop)
            params.append(SamplingParams(**own, extra_args={KEY: terms.to_args()}))
        return engine.ask(_prompts(job, users), params)

    yield ask


def engine(job: dict[str, Any]) -> Iterator[Any]:
    """The engine of this package."""
    from incatalog.model.saved import load_model

    loaded = load_model(job["model"], "cpu", verify=False)
    yield None
    recommender = _recommender(job, loaded=loaded)
    tokens = recommender.backbone.tokenizer

    def ask(users: Sequence[int], most: int) -> Step:
        session = recommender.engine.session()
        for user in users:
            session.add(_request(recommender, job, user))

        def step() -> list[str]:
            from incatalog.decoding.events import Finished

            events = session.step()
            if most == 1:
                session.close()
                return [""]
            ended = [one.index for one in events if isinstance(one, Finished)]
            return [tokens.decode(list(session.completion(one).token_ids)) for one in ended]

        return step

    yield ask


def _prompts(job: dict[str, Any], users: Sequence[int]) -> list[list[int]]:
    return [job["users"][user]["prompt"] for user in users]


def _recommender(job: dict[str, Any], *, weights: bool = True, loaded: Any = None) -> Any:
    from incatalog.data.catalog import Catalog
    from incatalog.packed.model import PackedModel
    from incatalog.recommender.recommender import Recommender

    if loaded is None:
        return Recommender.from_pretrained(job["model"], "cpu", verify=False, weights=weights)
    backbone, spec = loaded
    packed = PackedModel(backbone.model, frozen=True)
    return Recommender(backbone, spec, Catalog.load(job["model"]), packed=packed)


def _control(recommender: Any) -> Any:
    from incatalog.constraint.control import ControlTokens

    backbone, stop = recommender.backbone, recommender.prompts.stop_token_ids
    return ControlTokens(backbone.soi_token_id, backbone.eoi_token_id, frozenset(stop))


def _request(recommender: Any, job: dict[str, Any], user: int) -> Any:
    from dataclasses import replace

    asked = job["users"][user]
    excluded = recommender.excluded(history=asked["excluded"], exclude_seen=True)
    request = recommender.list_request([], 1, excluded, item_decode="token")
    return replace(request, prompt_ids=asked["prompt"])


CONTENDERS: dict[str, Callable[[dict[str, Any]], Iterator[Any]]] = {
    "plain": plain,
    "xgrammar": lambda job: choices(job, "xgrammar"),
    "guidance": lambda job: choices(job, "guidance"),
    "grammar": grammar,
    "engine": engine,
}


def run(name: str, job: dict[str, Any]) -> None:
    """All that is measured of a contender."""
    # On a machine that others use too, the time of the processor says more.
    now = time.process_time if job["clock"] == "processor" else time.perf_counter
    started = now()
    parts = CONTENDERS[name](job)
    next(parts)
    tell("started", seconds=now() - started)
    before, started = resident(), now()
    ask = next(parts)
    first_step(ask([0], 1))
    tell("prepared", seconds=now() - started, megabytes=resident() - before)
    started = now()
    first_step(ask([1], 1))
    tell("another", seconds=now() - started)
    started = now()
    first_step(ask([1], 1))
    tell("again", seconds=now() - started)
    for rows in ROWS:
        # Those who have not been seen yet, each with items of their own that are left out.
        users = range(rows + 1, 2 * rows + 1)
        began = now()
        step, steps, texts = ask(users, 200), list[float](), list[str]()
        while len(texts) < rows:
            started = now()
            ended = step()
            if ended is None:
                time.sleep(_WAIT)  # a grammar is compiled by other threads
                continue
            texts += ended
            steps.append(now() - started)
        whole = now() - began
        # The first step reads the prompt, and may have compiled something.
        tell(f"rows {rows}", ms=1000 * statistics.median(steps[1:] or steps), steps=len(steps),
             item=whole, texts=texts)  # fmt: skip


def first_step(step: Step) -> None:
    """Steps until the row has its first token, which is its last."""
    while not (ended := step()):
        if ended is None:
            time.sleep(_WAIT)


if __name__ == "__main__":
    run(sys.argv[1], json.loads(Path(sys.argv[2]).read_text(encoding="utf-8")))
