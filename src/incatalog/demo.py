"""The first run: MovieLens-100K from raw files to a table, in minutes on a laptop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from incatalog.artifacts import read_json, write_json
from incatalog.codes.settings import AssignSettings, QuantizeSettings
from incatalog.config import DemoSettings, Method
from incatalog.data.settings import MovieLensSettings
from incatalog.embedding.settings import EmbedSettings
from incatalog.evaluation.settings import EvaluateRecommendSettings, EvaluateReportSettings
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.training.settings import SftSettings

_SHOWN_METRICS = ("HR@10", "NDCG@10", "OOD@10")
_SHOWN_HISTORY = 5
_SHOWN_ITEMS = 5


@dataclass(frozen=True)
class Budget:
    """What a demo may spend.

    Attributes:
        teacher_epochs: Epochs of the teacher at most.
        hidden: Width of the language model.
        inner: Width of its feed-forward layers.
        layers: Number of its blocks.
        heads: Number of its attention heads.
        cgen_epochs: Samples per user that the model which writes titles is trained on.
        token_epochs: The same of the model which writes codes.
        ret_epochs: The same of the model which retrieves.
        batch_size: Samples per step.
        learning_rate: Peak learning rate of the language model.
        codebooks: Codes of an item at each level.
        users: Users to evaluate; 0 evaluates all.
    """

    teacher_epochs: int
    hidden: int
    inner: int
    layers: int
    heads: int
    cgen_epochs: int
    token_epochs: int
    ret_epochs: int
    batch_size: int
    learning_rate: float
    codebooks: tuple[int, ...]
    users: int


METHODS = ("popularity", "sasrec", "cgen", "token", "ret")
_PUBLISHED_CODEBOOKS = (256, 256, 256, 256)

BUDGETS = {
    "smoke": Budget(
        teacher_epochs=1,
        hidden=32,
        inner=64,
        layers=1,
        heads=2,
        cgen_epochs=1,
        token_epochs=1,
        ret_epochs=1,
        batch_size=64,
        learning_rate=3e-3,
        codebooks=(16, 16, 16, 16),
        users=32,
    ),
    "laptop": Budget(
        teacher_epochs=60,
        hidden=128,
        inner=256,
        layers=2,
        heads=2,
        cgen_epochs=40,
        token_epochs=36,
        ret_epochs=22,
        batch_size=32,
        learning_rate=4e-3,
        codebooks=_PUBLISHED_CODEBOOKS,
        users=0,
    ),
    "hour": Budget(
        teacher_epochs=200,
        hidden=192,
        inner=512,
        layers=3,
        heads=3,
        cgen_epochs=200,
        token_epochs=150,
        ret_epochs=60,
        batch_size=32,
        learning_rate=2e-3,
        codebooks=_PUBLISHED_CODEBOOKS,
        users=0,
    ),
}


def run_demo(config: DemoSettings) -> Path:
    """Prepares MovieLens-100K, trains a teacher and three tiny recommenders, and compares them.

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
    from incatalog.evaluation.recommend import evaluate_recommend
    from incatalog.evaluation.report import evaluate_report
    from incatalog.teacher.fit import fit_teacher
    from incatalog.training.sft import train_sft

    console = Console()
    budget = BUDGETS[config.budget]
    out = config.out
    data, teacher = out / "data", out / "teacher"
    vectors, quantizer, codes = out / "vectors", out / "quantizer", out / "codes"
    vectors_file = vectors / "movielens.emb-minilm-tc.npy"
    started = time.monotonic()

    def stage(number: int, title: str, *runs: Callable[[], object]) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        heading = f"[bold]{number}/7  {title}[/bold]  [dim]{minutes}:{seconds:02d}[/dim]"
        console.rule(heading, align="left")
        for run in runs:
            run()

    def train(method: Method, **settings: Any) -> Callable[[], object]:
        return lambda: train_sft(
            sft_settings(
                budget, method, data=data, teacher=str(teacher), out=out / method, **settings
            )
        )

    def evaluate(name: str) -> Callable[[], object]:
        model = name if name == "popularity" else out / ("teacher" if name == "sasrec" else name)
        return lambda: evaluate_recommend(
            EvaluateRecommendSettings(
                model=str(model),
                data=data,
                out=out / "evaluation" / name,
                exclude_seen=True,
                users=budget.users,
                seed=config.seed,
            )
        )

    source = Path(config.source) if config.source else recbole_movielens()
    stage(
        1,
        "MovieLens-100K: ratings to catalog and histories",
        lambda: prepare_movielens(MovieLensSettings(source=source, out=data)),
    )
    stage(
        2,
        "SASRec teacher",
        lambda: fit_teacher(
            TeacherFitSettings(
                data=data,
                out=teacher,
                epochs=budget.teacher_epochs,
                exclude_seen=True,
                seed=config.seed,
            )
        ),
    )
    stage(
        3,
        "RecLM-cgen: a tiny language model that writes titles of the catalog",
        train("cgen", seed=config.seed),
    )
    stage(
        4,
        "Items as vectors of their texts, and as codes",
        lambda: embed_items(
            EmbedSettings(data=data, out=vectors, dataset="movielens", wording="tc")
        ),
        lambda: quantize_items(
            QuantizeSettings(
                vectors=vectors_file,
                out=quantizer,
                method="rqkmeans",
                codebooks=budget.codebooks,
                seed=config.seed,
            )
        ),
        lambda: assign_items(
            AssignSettings(
                data=data,
                out=codes,
                model=str(quantizer),
                vectors=vectors_file,
                dataset="movielens",
                seed=config.seed,
            )
        ),
    )
    stage(
        5,
        "RecLM-token: the same model, writing codes",
        train("token", index=str(codes), seed=config.seed),
    )
    stage(
        6,
        "RecLM-ret: the same model, retrieving titles by their vectors",
        train("ret", vectors=str(vectors_file), seed=config.seed),
    )
    stage(7, "Held-out last item of every user", *map(evaluate, METHODS))

    rows = [read_json(out / "evaluation" / name / "summary.json") for name in METHODS]
    write_json(out / "summary.json", {"rows": rows})
    console.rule("[bold]Result[/bold]", align="left")
    console.print(comparison(rows))
    show_answer(console, out / "cgen", data)
    evaluate_report(
        EvaluateReportSettings(
            runs=tuple(str(out / "evaluation" / name) for name in METHODS),
            out=out / "report",
            title="MovieLens-100K: held-out last movie of every user",
            resamples=500,
            seed=config.seed,
        )
    )
    return out / "summary.json"


def sft_settings(budget: Budget, method: Method, **settings: Any) -> SftSettings:
    """Settings that train a language model from scratch on item spans, on a CPU.

    Args:
        budget: Size of the model and length of the training.
        method: How the model writes items.
        settings: What else is to be set.
    """
    import torch

    epochs = {
        "cgen": budget.cgen_epochs,
        "token": budget.token_epochs,
        "ret": budget.ret_epochs,
    }
    return SftSettings(
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
        epochs=epochs[method],
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


def comparison(rows: Sequence[dict[str, Any]]) -> Table:
    """One line per method, each metric with its 95 % interval."""
    users = rows[0]["users"]
    table = Table(title=f"{users} users, seen items excluded, 95 % intervals")
    table.add_column("method")
    for metric in _SHOWN_METRICS:
        table.add_column(metric, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            f"{m['value']:.3f} [dim]({m['low']:.3f}–{m['high']:.3f})[/dim]"
            for m in (row["metrics"][metric] for metric in _SHOWN_METRICS)
        ]
        table.add_row(row["method"], *cells)
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
