"""The study: MovieLens-100K from raw files to a report on three trained methods."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from incatalog.artifacts import read_json, write_json
from incatalog.codes.settings import AssignSettings, QuantizeSettings
from incatalog.config import Method
from incatalog.data.settings import MovieLensSettings
from incatalog.embedding.settings import EmbedSettings
from incatalog.evaluation.settings import (
    EvaluateRecommendSettings,
    EvaluateReportSettings,
    GuideFitSettings,
)
from incatalog.quickstart.settings import StudySettings
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.training.settings import SftSettings

_SHOWN_METRICS = ("HR@10", "NDCG@10", "OOD@10")
_SHOWN_HISTORY = 5
_SHOWN_ITEMS = 5


@dataclass(frozen=True)
class Budget:
    """What a study may use: the sizes of the tiny language model, the length of its training."""

    teacher_epochs: int
    hidden: int
    inner: int
    layers: int
    heads: int
    epochs: dict[Method, int]
    batch_size: int
    learning_rate: float
    codebooks: tuple[int, ...] = (256, 256, 256, 256)
    # 0 evaluates all.
    users: int = 0
    # Users that the weight of a guide is fitted on, and how finely.
    guide_users: int = 200
    refinements: int = 1
    # What a method has beside the others, or in place of theirs.
    own: dict[Method, dict[str, Any]] = field(default_factory=dict)


TRAINED: tuple[Method, ...] = ("cgen", "token", "ret")
METHODS = ("popularity", "sasrec", "blend", *TRAINED)
# How else a trained model is asked: by a list as a chat writes it, alone and guided by the blend.
LISTS = {"list": "off", "list, guided": "own"}

BUDGETS = {
    "smoke": Budget(
        teacher_epochs=1, hidden=32, inner=64, layers=1, heads=2, batch_size=64,
        learning_rate=3e-3, codebooks=(16, 16, 16, 16), users=32, guide_users=16, refinements=0,
        epochs={"cgen": 1, "token": 1, "ret": 1},
    ),
    "laptop": Budget(
        teacher_epochs=60, hidden=128, inner=256, layers=2, heads=2, batch_size=32,
        learning_rate=4e-3, epochs={"cgen": 40, "token": 36, "ret": 26},
        own={"ret": {"batch_size": 16, "learning_rate": 3e-3, "tiny_dropout": 0.1,
                     "unseen_only": True}},
    ),
    "hour": Budget(
        teacher_epochs=200, hidden=192, inner=512, layers=3, heads=3, batch_size=32,
        learning_rate=2e-3, epochs={"cgen": 200, "token": 150, "ret": 60},
    ),
}  # fmt: skip


def run_study(settings: StudySettings) -> Path:
    """Prepares MovieLens-100K, fits teachers, trains three tiny recommenders, and compares them.

    A finished stage is kept when the command is repeated, an interrupted one resumes.

    Returns:
        The path of ``summary.json``: ``{"rows": [summary of each method]}``.

    Raises:
        DataError: MovieLens-100K is not there; names the package that ships it.
    """
    from incatalog.codes.assign import assign_items
    from incatalog.codes.quantize import quantize_items
    from incatalog.data.movielens import prepare_movielens, recbole_movielens
    from incatalog.embedding.embed import embed_items
    from incatalog.evaluation.guide_fit import fit_guide
    from incatalog.evaluation.recommend import evaluate_recommend
    from incatalog.evaluation.report import evaluate_report
    from incatalog.teacher.fit import fit_teacher
    from incatalog.training.sft import train_sft

    console = Console()
    budget, out, seed = BUDGETS[settings.budget], settings.out, settings.seed
    data, teacher, quantizer, codes = (out / n for n in ("data", "teacher", "quantizer", "codes"))
    vectors = out / "vectors" / "movielens.emb-minilm-tc.npy"
    known = out / "vectors-teacher" / "movielens.emb-minilm-tc-teacher.npy"
    blend, knn = out / "blend", out / "knn"
    started = time.monotonic()

    def stage(number: int, title: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        heading = f"[bold]{number}/8  {title}[/bold]  [dim]{minutes}:{seconds:02d}[/dim]"
        console.rule(heading, align="left")

    def train(method: Method, **more: Any) -> None:
        # The lists that a model learns to write are the blend's; of RecLM-ret, whose vectors know
        # what SASRec learned, they are SASRec's.
        lists = str(teacher if method == "ret" else blend)
        more |= {"data": data, "teacher": lists, "out": out / method, "seed": seed}
        train_sft(sft_settings(budget, method, **more))

    source = Path(settings.source) if settings.source else recbole_movielens()
    stage(1, "MovieLens-100K: ratings to catalog and histories")
    prepare_movielens(MovieLensSettings(source=source, out=data))
    stage(2, "Teachers: SASRec, teachers that count, and their blend")
    fit_teacher(
        TeacherFitSettings(
            data=data, out=teacher, epochs=budget.teacher_epochs, exclude_seen=True, seed=seed
        )
    )
    # The kNN's vectors find the items of RecLM-ret; the blend fits its parts itself.
    fit_teacher(TeacherFitSettings(data=data, out=knn, kind="knn", exclude_seen=True))
    fit_teacher(
        TeacherFitSettings(
            data=data, out=blend, kind="blend", sasrec=str(teacher), exclude_seen=True, seed=seed
        )
    )
    stage(3, "RecLM-cgen: a tiny language model that writes titles of the catalog")
    train("cgen")
    stage(4, "Items as vectors of their texts, and as codes")
    embed_items(EmbedSettings(data=data, out=vectors.parent, dataset="movielens", wording="tc"))
    embed_items(
        EmbedSettings(
            data=data,
            out=known.parent,
            dataset="movielens",
            wording="tc",
            source="both",
            teacher=(str(teacher), str(knn)),
            seed=seed,
        )
    )
    quantize_items(
        QuantizeSettings(
            vectors=vectors, out=quantizer, method="rqkmeans", codebooks=budget.codebooks, seed=seed
        )
    )
    assign_items(
        AssignSettings(
            data=data,
            out=codes,
            model=str(quantizer),
            vectors=vectors,
            dataset="movielens",
            seed=seed,
        )
    )
    stage(5, "RecLM-token: the same model, writing codes")
    train("token", index=str(codes))
    stage(6, "RecLM-ret: the same model, retrieving titles by their vectors")
    train("ret", vectors=str(known), train_item_vectors=True)
    stage(7, "How much the blend should count beside each model, on validation items")
    for method in TRAINED:
        fit_guide(
            GuideFitSettings(
                model=out / method,
                teacher=str(blend),
                data=data,
                users=budget.guide_users,
                refinements=budget.refinements,
                exclude_seen=True,
                seed=seed,
            )
        )
    stage(8, "Held-out last item of every user")
    runs = {name: out / "evaluation" / name for name in METHODS}

    def evaluate(model: str, run: Path, **more: Any) -> dict[str, Any]:
        common: dict[str, Any] = {"data": data, "exclude_seen": True, "users": budget.users}
        common |= {"seed": seed}
        evaluate_recommend(EvaluateRecommendSettings(model=model, out=run, **common, **more))
        summary: dict[str, Any] = read_json(run / "summary.json")
        return summary

    models = {name: str(out / name) for name in METHODS}
    models |= {"popularity": "popularity", "sasrec": str(teacher)}
    rows = [evaluate(models[name], run, guide="off") if name in TRAINED
            else evaluate(models[name], run) for name, run in runs.items()]  # fmt: skip
    for method in TRAINED:
        for asked, guide in LISTS.items():
            run = out / "evaluation" / f"{method}-{asked.replace(', ', '-')}"
            rows.append(evaluate(models[method], run, decode="list", guide=guide))
    write_json(out / "summary.json", {"rows": rows})
    console.rule("[bold]Result[/bold]", align="left")
    console.print(comparison(rows))
    show_answer(console, out / "cgen", data)
    evaluate_report(
        EvaluateReportSettings(
            runs=tuple(map(str, runs.values())),
            out=out / "report",
            resamples=500,
            seed=seed,
            title="MovieLens-100K: held-out last movie of every user",
        )
    )
    return out / "summary.json"


def sft_settings(budget: Budget, method: Method, **settings: Any) -> SftSettings:
    """Settings that train a language model from scratch on item spans, on a CPU."""
    import torch

    common = SftSettings(
        model="tiny",
        method=method,
        tiny_hidden=budget.hidden,
        tiny_inner=budget.inner,
        tiny_layers=budget.layers,
        tiny_heads=budget.heads,
        wording="test-as-trained",
        window="full",
        teacher_sees="history",
        tune="full",
        history_form="span",
        loss_on_history=True,
        list_form="plain",
        fixed_list_length=True,
        mention_control_tokens=False,
        epochs=budget.epochs[method],
        batch_size=budget.batch_size,
        learning_rate=budget.learning_rate,
        # With a shorter warm-up a model from scratch was seen to learn far more slowly.
        warmup_ratio=0.1,
        adam_beta2=0.98,
        validate_every=0,
        checkpoint_every=500,
        logging_steps=50,
        # Twice as fast where the processor multiplies bfloat16, slower where it only imitates it.
        bf16=bool(torch.cpu._is_avx512_bf16_supported()),
        attention="eager",
        **settings,
    )
    return replace(common, **budget.own.get(method, {}))


def comparison(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per method, each metric with its 95 % interval."""
    users = rows[0]["users"]
    table = Table(title=f"{users} users, seen items excluded, 95 % intervals")
    table.add_column("method", no_wrap=True)
    for metric in _SHOWN_METRICS:
        table.add_column(metric, justify="right", no_wrap=True)
    for row in rows:
        name = row["method"] + (", list" if row.get("decode") == "list" else "")
        cells = [
            f"{m['value']:.3f}"
            + (f" [dim]({m['low']:.3f}–{m['high']:.3f})[/dim]" if m["low"] < m["high"] else "")
            for m in (row["metrics"][metric] for metric in _SHOWN_METRICS)
        ]
        table.add_row(name, *cells)
    return table


def show_answer(console: Console, model: Path, data: Path) -> None:
    """Prints what the model recommends to the first user, and the command that asks for it."""
    from incatalog.data.catalog import Catalog
    from incatalog.data.interactions import Histories
    from incatalog.recommender.recommender import Recommender

    catalog = Catalog.load(data)
    history = Histories.load(data, catalog).history(0)
    watched = [catalog.item(int(row)) for row in history]
    shown = Recommender.from_pretrained(model).recommend(
        [item.item_id for item in watched],
        k=_SHOWN_ITEMS,
        exclude=[item.item_id for item in watched],
    )
    console.print("\nSomeone who watched last")
    for item in watched[-_SHOWN_HISTORY:]:
        console.print(f"   {item.title}", highlight=False)
    console.print("is recommended")
    for recommendation in shown:
        console.print(f"   {recommendation.rank}. {recommendation.title}", highlight=False)
    ids = ",".join(item.item_id for item in watched[-_SHOWN_HISTORY:])
    console.print(
        f"\nAsk it yourself:  incatalog recommend --model {model} --history {ids} --k 10\n"
    )
