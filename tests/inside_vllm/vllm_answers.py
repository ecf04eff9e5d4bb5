"""Runs in the environment of vLLM: answers requests of a JSON file, and writes what happened.

`python vllm_answers.py JOBS OUT`. A job has `model`, `engine` (arguments of `LLM`) and `batches` of
`requests` (each `prompt`, `sampling` and `items`), some with `beams`. Written are tokens, ends and
passes of each batch, or an error. One process runs all jobs, as to import vLLM takes long.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any


def run(job: dict[str, Any]) -> dict[str, Any]:
    from vllm import LLM, SamplingParams

    if job.get("blind"):
        leave_scores_as_they_are()
    try:
        llm = LLM(job["model"], dtype="float32", enforce_eager=True, **job["engine"])
    except Exception as error:
        return {"start_error": _said(error)}
    found: dict[str, Any] = {"batches": []}
    for batch in job["batches"]:
        passes.clear()
        began = time.perf_counter()
        try:
            if "beams" in batch:
                from vllm.sampling_params import BeamSearchParams

                params = BeamSearchParams(beam_width=batch["beams"], max_tokens=8)
                prompts = [{"prompt_token_ids": one["prompt"]} for one in batch["requests"]]
                done = [one.sequences[0].tokens for one in llm.beam_search(prompts, params)]
                found["batches"].append({"tokens": done})
                continue
            asked = [
                SamplingParams(
                    **one["sampling"],
                    extra_args=None if one["items"] is None else {"incatalog": one["items"]},
                )
                for one in batch["requests"]
            ]
            prompts = [{"prompt_token_ids": one["prompt"]} for one in batch["requests"]]
            done = llm.generate(prompts, asked, use_tqdm=False)
        except Exception as error:
            found["batches"].append({"error": _said(error)})
            continue
        outputs = [sequence for one in done for sequence in one.outputs]
        found["batches"].append(
            {
                "tokens": [list(one.token_ids) for one in outputs],
                "ends": [one.finish_reason for one in outputs],
                "passes": len(passes),
                "fed": sum(passes),
                "seconds": time.perf_counter() - began,
            }
        )
    return found


passes: list[int] = []


def count_passes() -> None:
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    plain = CPUModelRunner.execute_model

    def counted(self: Any, scheduler_output: Any, *args: Any, **named: Any) -> Any:
        if scheduler_output.total_num_scheduled_tokens:
            passes.append(scheduler_output.total_num_scheduled_tokens)
        return plain(self, scheduler_output, *args, **named)

    CPUModelRunner.execute_model = counted


def leave_scores_as_they_are() -> None:
    """A runner that asks no processor, for the rest of the process."""
    from incatalog.vllm.logits_processor import ItemLogitsProcessor

    ItemLogitsProcessor.apply = lambda self, logits: logits  # type: ignore[method-assign]


def _said(error: BaseException) -> str:
    """An error with those behind it."""
    told = []
    while error is not None:
        told.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return " <- ".join(told)


def main() -> None:
    from vllm.distributed import cleanup_dist_env_and_memory

    jobs = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    count_passes()
    found = []
    for job in jobs:
        found.append(run(job))
        # Each time anew, so that what was done is not lost with what fails.
        Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")
        gc.collect()
        cleanup_dist_env_and_memory()


if __name__ == "__main__":
    main()
