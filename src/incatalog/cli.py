"""The command line: ``incatalog <stage> <verb>``, each verb one configuration and one function.

Nothing heavy is imported before a command runs, so that help answers at once.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from incatalog.batch.settings import BatchSettings
from incatalog.codes.settings import AssignSettings, QuantizeSettings
from incatalog.data.settings import (
    AmazonSettings,
    CheckSettings,
    ConvertSettings,
    MiniOneRecSettings,
    MovieLensSettings,
    SampleShopSettings,
    SteamSettings,
    TableSettings,
    ToUnirecSettings,
    YelpSettings,
)
from incatalog.embedding.settings import EmbedSettings
from incatalog.errors import ConfigError, IncatalogError
from incatalog.evaluation.settings import (
    EvaluateChatSettings,
    EvaluateCompareSettings,
    EvaluateGeneralSettings,
    EvaluateRecommendSettings,
    EvaluateReportSettings,
    EvaluateRetrievalSettings,
    GuideFitSettings,
)
from incatalog.flags import QUIET, near, parse, summary
from incatalog.grpo.settings import GrpoSettings
from incatalog.installation import missing, telling_broken, version_lines
from incatalog.publishing.settings import PublishSettings
from incatalog.quickstart.settings import (
    DemoSettings,
    QuickstartSettings,
    RecipesSettings,
    StudySettings,
)
from incatalog.recommender.settings import ModelImportSettings, RecommendSettings
from incatalog.rewrite.settings import (
    RewriteApplySettings,
    RewriteCatalogSettings,
    RewriteDataSettings,
    RewriteTrainSettings,
)
from incatalog.serving.settings import CatalogSyncSettings, ServeSettings
from incatalog.steering.settings import SteeringFitSettings
from incatalog.storage import storage_fault, writing
from incatalog.teacher.settings import (
    ImportUnirecSettings,
    TeacherBlendSettings,
    TeacherFitSettings,
)
from incatalog.teacher_service.settings import TeacherServeSettings
from incatalog.terminal.settings import ChatSettings
from incatalog.training.settings import MergeSettings, SftSettings

_UNTRAINABLE = 1
_USER_ERROR = 2
_INTERRUPTED = 130
_NO_READER = 141
_TRAINING = ("accelerate", "peft", "tensorboard")
_SERVICE = ("fastapi", "httpx", "prometheus_client", "uvicorn")
_REWARDED = (*_TRAINING, "datasets", "trl")


@dataclass(frozen=True)
class Command:
    """One verb of the command line.

    Its function is imported when it runs; a result with ``trainable`` false makes the exit code 1.
    """

    settings: type
    # "module:function"
    function: str
    # The flags whose values may stand alone right behind the command, in order.
    leading: str = ""
    # Optional dependencies, and which of their modules must be there before it begins.
    extra: str = ""
    needs: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """First line of the help."""
        return summary(self.settings)


COMMANDS: dict[str, Command] = {
    "quickstart": Command(
        QuickstartSettings,
        "incatalog.quickstart.quickstart:run_quickstart",
        leading="--orders --products",
        extra="serve",
        needs=_SERVICE,
    ),
    "sample": Command(
        SampleShopSettings, "incatalog.data.sample_shop:write_sample", leading="--out"
    ),
    "demo": Command(
        DemoSettings, "incatalog.quickstart.demo:run_demo", extra="serve", needs=_SERVICE
    ),
    "data amazon": Command(AmazonSettings, "incatalog.data.amazon:prepare_amazon"),
    "data movielens": Command(MovieLensSettings, "incatalog.data.movielens:prepare_movielens"),
    "data minionerec": Command(MiniOneRecSettings, "incatalog.data.minionerec:prepare_minionerec"),
    "data steam": Command(SteamSettings, "incatalog.data.steam:prepare_steam"),
    "data yelp": Command(YelpSettings, "incatalog.data.yelp:prepare_yelp"),
    "data table": Command(TableSettings, "incatalog.data.tables:prepare_table"),
    "data convert": Command(
        ConvertSettings, "incatalog.data.convert:convert_data", leading="--data"
    ),
    "data check": Command(CheckSettings, "incatalog.data.check:check", leading="--data"),
    "data to-unirec": Command(
        ToUnirecSettings, "incatalog.data.export_unirec:to_unirec", leading="--data"
    ),
    "teacher fit": Command(TeacherFitSettings, "incatalog.teacher.fit:fit_teacher"),
    "teacher blend": Command(
        TeacherBlendSettings, "incatalog.teacher.blending:blend_teachers", leading="--runs"
    ),
    "teacher import-unirec": Command(
        ImportUnirecSettings, "incatalog.teacher.import_unirec:import_unirec"
    ),
    "teacher serve": Command(
        TeacherServeSettings,
        "incatalog.teacher_service.serve_teacher:serve_teacher",
        extra="serve",
        needs=_SERVICE,
    ),
    "items embed": Command(EmbedSettings, "incatalog.embedding.embed:embed_items"),
    "items quantize": Command(QuantizeSettings, "incatalog.codes.quantize:quantize_items"),
    "items assign": Command(AssignSettings, "incatalog.codes.assign:assign_items"),
    "train sft": Command(
        SftSettings, "incatalog.training.sft:train_sft", extra="train", needs=_TRAINING
    ),
    "train grpo": Command(
        GrpoSettings, "incatalog.grpo.train_grpo:train_grpo", extra="grpo", needs=_REWARDED
    ),
    "train merge": Command(MergeSettings, "incatalog.training.merge:merge_run"),
    "model import": Command(
        ModelImportSettings, "incatalog.recommender.import_model:import_model", leading="--model"
    ),
    "rewrite data": Command(
        RewriteDataSettings, "incatalog.rewrite.rewrite_data:make_rewrite_data"
    ),
    "rewrite train": Command(
        RewriteTrainSettings,
        "incatalog.rewrite.train_rewrite:train_rewrite",
        extra="grpo",
        needs=_REWARDED,
    ),
    "rewrite apply": Command(RewriteApplySettings, "incatalog.rewrite.apply_rewrite:apply_rewrite"),
    "rewrite catalog": Command(
        RewriteCatalogSettings, "incatalog.rewrite.rewrite_catalog:rewrite_catalog"
    ),
    "evaluate recommend": Command(
        EvaluateRecommendSettings, "incatalog.evaluation.recommend:evaluate_recommend"
    ),
    "evaluate retrieval": Command(
        EvaluateRetrievalSettings, "incatalog.evaluation.retrieval:evaluate_retrieval"
    ),
    "evaluate chat": Command(EvaluateChatSettings, "incatalog.evaluation.chat:evaluate_chat"),
    "evaluate general": Command(
        EvaluateGeneralSettings, "incatalog.evaluation.general:evaluate_general"
    ),
    "evaluate compare": Command(
        EvaluateCompareSettings,
        "incatalog.evaluation.compare:evaluate_compare",
        leading="--runs",
    ),
    "evaluate report": Command(
        EvaluateReportSettings, "incatalog.evaluation.report:evaluate_report", leading="--runs"
    ),
    "guide fit": Command(GuideFitSettings, "incatalog.evaluation.guide_fit:fit_guide"),
    "steering fit": Command(SteeringFitSettings, "incatalog.steering.fit_steering:fit_steering"),
    "recommend": Command(RecommendSettings, "incatalog.recommender.command:recommend"),
    "batch": Command(
        BatchSettings,
        "incatalog.batch.batch_command:make_lists",
        extra="batch",
        needs=("pyarrow",),
    ),
    "chat": Command(ChatSettings, "incatalog.terminal.chat_command:chat"),
    "serve": Command(
        ServeSettings, "incatalog.serving.server:serve", extra="serve", needs=_SERVICE
    ),
    "catalog sync": Command(
        CatalogSyncSettings,
        "incatalog.serving.catalog_sync:sync_catalog",
        leading="--items",
        extra="serve",
        needs=("httpx",),
    ),
    "recipes": Command(
        RecipesSettings, "incatalog.quickstart.recipes_command:show_recipes", leading="--name"
    ),
    "publish": Command(PublishSettings, "incatalog.publishing.publish:publish", leading="--model"),
    "study": Command(
        StudySettings,
        "incatalog.quickstart.study:run_study",
        extra="train,items,evaluate",
        needs=(*_TRAINING, "faiss", "matplotlib", "sentence_transformers", "jinja2"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The command line without the program's name; ``sys.argv`` when omitted.

    Returns:
        The exit code: 0 for success, 1 for data that cannot be trained on (`incatalog data check`),
        2 for an error the user can act on (one line on standard error), 130 when interrupted, 141
        when nobody reads the output any more.
    """
    try:
        with writing("standard output"):
            code = _run(list(sys.argv[1:] if arguments is None else arguments))
            sys.stdout.flush()
    except IncatalogError as error:
        _complain(str(error))
        code = _USER_ERROR
    except KeyboardInterrupt:
        _complain("interrupted; a run with checkpoints goes on when its command is repeated")
        code = _INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough.
        code = _NO_READER
    except OSError as error:
        if error.filename is None:
            raise
        _complain(f"{error.filename}: {error.strerror}")
        code = _USER_ERROR
    _close_output()
    return code


def _close_output() -> None:
    """Drops output that nobody takes, which Python would complain about when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str]) -> int:
    """Finds the command, parses its flags and calls its function."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        sys.stdout.write(_overview(COMMANDS))
        return 0
    if arguments[0] == "--version":
        sys.stdout.writelines(f"{line}\n" for line in version_lines())
        return 0
    stage = arguments[0]
    verbs = {name: command for name, command in COMMANDS.items() if name.split()[0] == stage}
    if not verbs:
        stages = list(dict.fromkeys(name.split()[0] for name in COMMANDS))
        raise ConfigError(f"{stage}: no such command{near(stage, stages)}; see incatalog --help")
    if stage in verbs:
        return _call(stage, verbs[stage], arguments[1:])
    if len(arguments) == 1 or arguments[1] in {"-h", "--help"}:
        sys.stdout.write(_overview(verbs))
        return 0
    name = f"{stage} {arguments[1]}"
    if name not in verbs:
        known = [verb.split()[1] for verb in verbs]
        raise ConfigError(
            f"{name}: no such command{near(arguments[1], known)}; see incatalog {stage} --help"
        )
    return _call(name, verbs[name], arguments[2:])


def with_leading(command: Command, flags: Sequence[str]) -> list[str]:
    """The flags with the names of those whose values may stand alone right behind the command."""
    named: list[str] = []
    for place, flag in enumerate(command.leading.split()):
        if place == len(flags) or flags[place].startswith("-"):
            break
        named += [flag, flags[place]]
    return [*named, *flags[len(named) // 2 :]]


def _call(name: str, command: Command, flags: list[str]) -> int:
    settings = parse(name, command.settings, with_leading(command, flags))
    for needed in command.needs:
        if importlib.util.find_spec(needed) is None:
            raise missing(needed, command.extra)
    # Read when torch is loaded. Threads that spin while they wait for one another make a step up to
    # twenty times as slow where something else runs on the cores too.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    threading.excepthook = _quiet_when_full
    module, function = command.function.split(":")
    out = getattr(settings, "out", None)
    try:
        with writing(out) if out else contextlib.nullcontext(), telling_broken():
            result = getattr(importlib.import_module(module), function)(settings)
    except ModuleNotFoundError as error:
        # Our own modules are another matter.
        if not error.name or error.name.partition(".")[0] == "incatalog":
            raise
        raise missing(error.name, command.extra) from error
    if not getattr(result, "trainable", True):
        return _UNTRAINABLE
    if QUIET not in flags and os.environ.get("RANK", "0") == "0":
        _tell_ending(name, settings)
    return 0


def _tell_ending(name: str, settings: Any) -> None:
    """Says what was written, how good it is and what comes next; one process of several does."""
    from incatalog.ending import ending

    sys.stdout.flush()
    for line in ending(name, settings).lines():
        sys.stderr.write(f"{line}\n")


def _quiet_when_full(raised: threading.ExceptHookArgs) -> None:
    """Says nothing of a writer's thread that has no room; the command tells of it in a line."""
    if raised.exc_value is None or storage_fault(raised.exc_value) is None:
        threading.__excepthook__(raised)


def _overview(commands: dict[str, Command]) -> str:
    width = max(map(len, commands)) + 2
    lines = [
        f"  incatalog {name:<{width}}{command.summary}\n" for name, command in commands.items()
    ]
    return (
        "usage: incatalog <stage> <verb> [--config FILE.yaml] [--flag value ...]\n\n"
        + "".join(lines)
        + "\nFlags of a command: incatalog <stage> <verb> --help\n"
    )


def _complain(message: str) -> None:
    sys.stderr.write(f"error: {' '.join(message.splitlines())}\n")


if __name__ == "__main__":
    sys.exit(main())
