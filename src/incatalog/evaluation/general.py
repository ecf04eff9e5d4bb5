"""General ability before and after training, by EleutherAI's lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from incatalog.artifacts import open_run, read_json, write_json
from incatalog.errors import ConfigError, require
from incatalog.evaluation.finished import SUMMARY
from incatalog.evaluation.methods import check_language_model, model_files
from incatalog.evaluation.result_tables import general_table
from incatalog.evaluation.settings import EvaluateGeneralSettings
from incatalog.model.hub import with_model_here

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone


def evaluate_general(settings: EvaluateGeneralSettings) -> Path:
    """Runs tasks of lm-eval on a trained model and on the backbone it was before, side by side.

    Tasks may be local: YAML files in ``settings.task_path`` whose data sets are local files need no
    hub. The result of each model is kept, so an interrupted run goes on with the other. Writes
    ``summary.json``: ``tasks``, each with ``task``, ``metric``, and ``value`` and ``error`` (the
    standard error lm-eval gives) of ``before`` and ``after``.

    Returns:
        ``settings.out``.

    Raises:
        ConfigError: A setting cannot work, or lm-eval does not know a task.
        ArtifactError: ``settings.out`` holds something else.
        MissingExtraError: lm-eval is not installed.
    """
    if settings.only_local and settings.task_path is None:
        raise ConfigError("--only-local: needs a folder of tasks; name it with --task-path")
    if settings.task_path is not None and not settings.task_path.is_dir():
        raise ConfigError(f"--task-path {settings.task_path}: no such folder")
    require("lm_eval", extra="lm-eval")
    settings = with_model_here(settings)
    check_language_model(settings.model)
    inputs = {**model_files(settings.model), "tasks": settings.task_path}
    stage, free = "evaluate general", ("verify",)
    run = open_run(settings.out, stage, settings, inputs=inputs, free_fields=free)
    if not run.finished:
        found = {}
        for name in ("before", "after") if settings.before else ("after",):
            part = settings.out / f"{name}.json"
            if not part.exists():
                write_json(part, run_tasks(_load(settings, name), settings))
            found[name] = read_json(part)
        write_json(settings.out / SUMMARY, {"tasks": side_by_side(found)})
        run.finish()
    Console().print(general_table(read_json(settings.out / SUMMARY)))
    return settings.out


def run_tasks(backbone: Backbone, settings: EvaluateGeneralSettings) -> dict[str, Any]:
    """Scores as ``{task: {metric: {"value": …, "error": …}}}``; an error may be null."""
    names = ("evaluator", "tasks", "models.huggingface")
    evaluator, tasks, models = (require(f"lm_eval.{name}", extra="lm-eval") for name in names)
    path = None if settings.task_path is None else str(settings.task_path)
    manager = tasks.TaskManager(include_path=path, include_defaults=not settings.only_local)
    if unknown := sorted(set(settings.tasks) - set(manager.all_tasks)):
        place = f" in {path}" if settings.only_local else ""
        raise ConfigError(f"--tasks {' '.join(unknown)}: lm-eval knows no such task{place}")
    model, device = backbone.model, str(backbone.model.device)
    given = {"pretrained": model, "tokenizer": backbone.tokenizer, "device": device}
    seeds = ("random_seed", "numpy_random_seed", "torch_random_seed", "fewshot_random_seed")
    results = evaluator.simple_evaluate(
        model=models.HFLM(**given, batch_size=settings.batch_size),
        tasks=list(settings.tasks),
        task_manager=manager,
        num_fewshot=None if settings.few_shot < 0 else settings.few_shot,
        limit=settings.limit or None,
        apply_chat_template=settings.chat_template,
        log_samples=False,
        bootstrap_iters=1000,
        **dict.fromkeys(seeds, settings.seed),
    )
    return {task: _metrics(found) for task, found in sorted(results["results"].items())}


def side_by_side(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row each task and metric, with the values of each model."""
    shown = [(task, metric) for task, metrics in found["after"].items() for metric in metrics]
    return [
        {"task": task, "metric": metric, **{name: of[task][metric] for name, of in found.items()}}
        for task, metric in shown
    ]


def _metrics(found: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Values of one task; lm-eval calls them `name,filter` and `name_stderr,filter`."""
    numbers = {key: float(v) for key, v in found.items() if isinstance(v, (int, float))}
    values: dict[str, dict[str, float | None]] = {}
    for key, value in numbers.items():
        name, _, kept = key.partition(",")
        if kept and not name.endswith("_stderr"):
            shown = name if kept == "none" else f"{name} ({kept})"
            values[shown] = {"value": value, "error": numbers.get(f"{name}_stderr,{kept}")}
    return values


def _load(settings: EvaluateGeneralSettings, name: str) -> Backbone:
    from incatalog.model.backbone import load_backbone
    from incatalog.model.saved import load_model

    if name == "before":
        return load_backbone(settings.before, device=settings.device, verify=settings.verify)
    return load_model(settings.model, settings.device, verify=settings.verify)[0]
