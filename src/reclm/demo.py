"""The first run: MovieLens-100K from raw files to a table, in minutes on a laptop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from reclm.artifacts import read_json, write_json
from reclm.config import (
    DemoConfig,
    EvaluateRecommendConfig,
    MovieLensConfig,
    SftConfig,
    TeacherFitConfig,
)

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
        sft_epochs: Samples per user that the language model is trained on.
        batch_size: Samples per step.
        learning_rate: Peak learning rate of the language model.
        users: Users to evaluate; 0 evaluates all.
    """

    teacher_epochs: int
    hidden: int
    inner: int
    layers: int
    heads: int
    sft_epochs: int
    batch_size: int
    learning_rate: float
    users: int


BUDGETS = {
    "smoke": Budget(
        teacher_epochs=1,
        hidden=32,
        inner=64,
        layers=1,
        heads=2,
        sft_epochs=1,
        batch_size=64,
        learning_rate=3e-3,
        users=32,
    ),
    "laptop": Budget(
        teacher_epochs=60,
        hidden=128,
        inner=256,
        layers=2,
        heads=2,
        sft_epochs=56,
        batch_size=32,
        learning_rate=4e-3,
        users=0,
    ),
    "hour": Budget(
        teacher_epochs=200,
        hidden=192,
        inner=512,
        layers=3,
        heads=3,
        sft_epochs=400,
        batch_size=32,
        learning_rate=2e-3,
        users=0,
    ),
}


def run_demo(config: DemoConfig) -> Path:
    """Prepares MovieLens-100K, trains a teacher and a tiny RecLM-cgen, and compares them.

    A finished stage is kept when the command is repeated, an interrupted one resumes.

    Returns:
        The path of ``summary.json``: ``{"rows": [summary of each method]}``.

    Raises:
        DataError: MovieLens-100K is not there; names the package that ships it.
    """
    from reclm.data.movielens import prepare_movielens, recbole_movielens
    from reclm.evaluation.recommend import evaluate_recommend
    from reclm.teacher.fit import fit_teacher
    from reclm.training.sft import train_sft

    console = Console()
    budget = BUDGETS[config.budget]
    out = config.out
    data, teacher, model = out / "data", out / "teacher", out / "cgen"
    started = time.monotonic()

    def stage(title: str, run: Callable[[], object]) -> None:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        console.rule(f"[bold]{title}[/bold]  [dim]{minutes}:{seconds:02d}[/dim]", align="left")
        run()

    source = Path(config.source) if config.source else recbole_movielens()
    stage(
        "1/4  MovieLens-100K: ratings to catalog and histories",
        lambda: prepare_movielens(MovieLensConfig(source=source, out=data)),
    )
    stage(
        "2/4  SASRec teacher",
        lambda: fit_teacher(
            TeacherFitConfig(
                data=data,
                out=teacher,
                epochs=budget.teacher_epochs,
                exclude_seen=True,
                seed=config.seed,
            )
        ),
    )
    stage(
        "3/4  RecLM-cgen: a tiny language model that writes titles of the catalog",
        lambda: train_sft(sft_settings(budget, data, teacher, model, config.seed)),
    )

    def evaluate() -> None:
        for name, scored in (("popularity", "popularity"), ("sasrec", teacher), ("cgen", model)):
            evaluate_recommend(
                EvaluateRecommendConfig(
                    model=str(scored),
                    data=data,
                    out=out / "evaluation" / name,
                    exclude_seen=True,
                    users=budget.users,
                    seed=config.seed,
                )
            )

    stage("4/4  Held-out last item of every user", evaluate)

    rows = [
        read_json(out / "evaluation" / name / "summary.json")
        for name in ("popularity", "sasrec", "cgen")
    ]
    write_json(out / "summary.json", {"rows": rows})
    console.rule("[bold]Result[/bold]", align="left")
    console.print(comparison(rows))
    show_answer(console, model, data)
    return out / "summary.json"


def sft_settings(budget: Budget, data: Path, teacher: Path, out: Path, seed: int) -> SftConfig:
    """Settings that train a language model from scratch on item spans, on a CPU."""
    import torch

    return SftConfig(
        model="tiny",
        tiny_hidden=budget.hidden,
        tiny_inner=budget.inner,
        tiny_layers=budget.layers,
        tiny_heads=budget.heads,
        wording="test-as-trained",
        window="full",
        data=data,
        out=out,
        teacher=str(teacher),
        teacher_sees="history",
        tune="full",
        history_form="span",
        loss_on_history=True,
        list_form="plain",
        fixed_list_length=True,
        mention_control_tokens=False,
        epochs=budget.sft_epochs,
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
        seed=seed,
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
    from reclm.data.catalog import Catalog
    from reclm.data.interactions import Histories
    from reclm.recommender import Recommender

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
    console.print(f"\nAsk it yourself:  reclm recommend --model {model} --history {ids} --k 10\n")
