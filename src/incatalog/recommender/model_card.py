"""The card of a model folder, `README.md`: what it is, how good, and how it is used."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from incatalog.artifacts import MANIFEST, atomic_path, read_json
from incatalog.checksums import CARD
from incatalog.data.catalog import METAS, Catalog
from incatalog.data.model_catalog import model_catalog
from incatalog.data.parquet_documents import document
from incatalog.errors import DataError
from incatalog.model.spec import ModelSpec, load_spec
from incatalog.reading import read_text
from incatalog.recommender.base_model import BaseModel
from incatalog.recommender.settings import GUIDE_FILE

# A card without this line was written by somebody and is kept.
_OURS = "<!-- Written by incatalog. Take this line out, and the page is kept as it is. -->"
_METHODS = {
    "cgen": "It writes the title of an item into a span, token by token",
    "token": "It writes the code of an item (a semantic ID) into a span, token by token",
    "ret": "Where it opens a span, its hidden state finds the item among vectors of all items",
}
# Settings of a training that say most about it, as far as it has them.
_TOLD = (
    *("tune", "lora_r", "epochs", "max_steps", "batch_size", "learning_rate", "loss", "scope"),
    *("distill", "history_form", "list_form", "max_history", "list_length", "seed"),
)
_DATA_SETS = ("amazon", "movielens", "minionerec", "steam", "yelp")
_VERSIONS = ("incatalog", "torch", "transformers")
HERE = "."
_OWN_NAME = "this model"
_FIGURE = r"(HR|NDCG|MRR)@\d+"


@dataclass(frozen=True)
class CardRow:
    """Figures of one method, each with the ends of its interval."""

    name: str
    figures: Mapping[str, Mapping[str, float]]  # value, low and high, by the name of the metric
    own: bool = False  # of the model that the card is about


@dataclass(frozen=True)
class CardTable:
    """Methods that were asked the same of the same users."""

    asked: str  # Whom, and what for.
    rows: Sequence[CardRow]
    k: int  # Items of an answer.


def write_card(folder: str | Path, results: Mapping[str, float] | None = None) -> None:
    """Writes or renews the card of a model folder; one that somebody wrote or changed is kept.

    A folder without a catalog, as other programs leave it, gets none.

    Args:
        folder: Folder of a trained model.
        results: What a run that is just ending is about to record.
    """
    path = Path(folder) / CARD
    if document(Path(folder), METAS).exists() and own_words(folder) is None:
        with atomic_path(path) as partial:
            partial.write_text(card_text(folder, results=results), encoding="utf-8")


def own_words(folder: str | Path) -> str | None:
    """The card of a folder if somebody wrote or changed it; None for one of ours, or for none."""
    path = Path(folder) / CARD
    if not path.exists():
        return None
    text = read_text(path)
    return None if _OURS in text else text


def card_text(
    folder: str | Path,
    name: str = HERE,
    tables: Sequence[CardTable] = (),
    *,
    results: Mapping[str, float] | None = None,
    licence: str = "",
) -> str:
    """The card of a model folder, with its metadata in front as the hub reads it.

    Args:
        folder: Folder of a trained model.
        name: What it is loaded by: its name on the hub, or from within the folder.
        tables: Evaluations of it.
        results: What its run records, where the manifest does not say so yet.
        licence: Identifier of its licence; if empty that of its base, where that is known.

    Raises:
        BackboneError: It is no trained model.
        DataError: Its catalog is missing or broken.
    """
    folder = Path(folder)
    spec, catalog = load_spec(folder), model_catalog(folder)
    run = _run(folder)
    base = BaseModel.of(folder, spec.base)
    title = Path(name).name or folder.resolve().name
    head = _metadata(spec, base, run.source or title, tables, title, licence)
    parts = [
        f"---\n{head}\n---\n{_OURS}\n",
        f"# {title}\n",
        _about(spec, catalog),
        "## How to use it\n",
        _use(spec, catalog, name),
        "## What it was made of\n",
        _made_of(spec, catalog, base, run),
        "## How good it is\n",
        *_figures(run, results, tables),
        *_guide(folder),
        "## Licence\n",
        _licence(base, licence),
    ]
    return "\n".join(parts)


def _metadata(
    spec: ModelSpec,
    base: BaseModel,
    source: str,
    tables: Sequence[CardTable],
    name: str,
    licence: str,
) -> str:
    """The YAML that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    found = [
        EvalResult(
            task_type="recommendation",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", source.lower()).strip("-") or "items",
            dataset_name=source,
            metric_type=metric.split("@")[0].lower(),
            metric_name=metric if row.name == _OWN_NAME else f"{metric} ({row.name})",
            metric_value=round(figure["value"], 4),
        )
        for table in tables
        for row in table.rows
        if row.own
        for metric, figure in row.figures.items()
        if re.fullmatch(_FIGURE, metric) and metric.endswith(f"@{table.k}")
    ]
    data = ModelCardData(
        license=licence or base.licence,
        library_name="incatalog",
        pipeline_tag="text-generation",
        base_model=base.repository or None,
        tags=["recommendation", "recommender-system", "constrained-decoding", spec.method],
        metrics=sorted({str(one.metric_type) for one in found}) or None,
        model_name=name if found else None,
        eval_results=found or None,
    )
    return str(data.to_yaml(line_break="\n"))


def _about(spec: ModelSpec, catalog: Catalog) -> str:
    kinds = f" of {len(catalog.categories)} categories" if catalog.categories else ""
    return (
        f"A chat model that recommends the {len(catalog):,} items{kinds} of one catalog, which "
        f"lies beside the weights. {_METHODS[spec.method]}; what may come next is held to the "
        "catalog, so that it cannot name an item outside of it. "
        "Made with [incatalog](https://pypi.org/project/incatalog/).\n"
    )


def _use(spec: ModelSpec, catalog: Catalog, name: str) -> str:
    history = [item.item_id for item in catalog.live_items][:2]
    if spec.answer_form == "title":
        return (
            "It names items in plain text, without item spans, so nothing holds them to the "
            "catalog: it is a baseline for `incatalog evaluate recommend` alone.\n"
        )
    # A folder may be moved, and where it lies is nobody else's concern.
    place = "In this folder:\n\n" if name == HERE else ""
    return (
        f"{place}```bash\npip install incatalog\n```\n\n```python\n"
        "from incatalog import Recommender\n\n"
        f"recommender = Recommender.from_pretrained({name!r})\n"
        f"history = {history!r}  # ids of items, oldest first\n"
        "for item in recommender.recommend(history, k=5):\n"
        "    print(item.rank, item.title, round(item.score, 4))\n```\n\n"
        f"`incatalog chat --model {name}` talks with it, `incatalog serve --model {name}` serves "
        "it.\n"
    )


def _made_of(spec: ModelSpec, catalog: Catalog, base: BaseModel, run: _TrainedRun) -> str:
    ids = f", known by their `{catalog.title_field}`" if catalog.title_field != "title" else ""
    lines = [
        f"* Data: {len(catalog):,} items{ids}{run.data}.",
        f"* Base: {base.told}.",
        f"* Method: `{spec.method}`, items written as {spec.item_form}; {run.made}.",
    ]
    if told := run.told:
        values = ", ".join(f"`{name}` {_plain(value)}" for name, value in told.items())
        lines.append(f"* Settings: {values}.")
    if run.teacher:
        lines.append(f"* Teacher of the training: {_plain(run.teacher)}.")
    found = {name: spec.versions[name] for name in _VERSIONS if name in spec.versions}
    lines.append(f"* Versions: {', '.join(f'{name} {found[name]}' for name in found)}.")
    return "\n".join(lines) + "\n"


def _figures(
    run: _TrainedRun,
    results: Mapping[str, float] | None,
    tables: Sequence[CardTable],
) -> list[str]:
    told = []
    for table in tables:
        metrics = [f"{metric}@{table.k}" for metric in ("HR", "NDCG", "MRR")]
        metrics = [one for one in metrics if all(one in row.figures for row in table.rows)]
        lines = [
            f"{table.asked}; in brackets the 95 % bootstrap interval over users.\n",
            f"| | {' | '.join(metrics)} |",
            f"|---|{'---:|' * len(metrics)}",
        ]
        for row in table.rows:
            cells = [_interval(row.figures[metric]) for metric in metrics]
            label = f"**{_plain(row.name)}**" if row.own else _plain(row.name)
            lines.append(f"| {label} | {' | '.join(cells)} |")
        lines.append(
            f"\nHR@{table.k} is the share of users whose held-out item is among the {table.k} "
            "named; NDCG and MRR count it the more the earlier it stands."
        )
        told.append("\n".join(lines) + "\n")
    known = run.results if results is None else results
    validation = {one: known[one] for one in ("HR@10", "NDCG@10") if one in known}
    if "ndcg_start" in known and "ndcg_best" in known:
        validation = {
            "NDCG@10": known["ndcg_best"],
            "NDCG@10 of the model it started from": known["ndcg_start"],
        }
    if validation:
        values = ", ".join(f"{metric} {value:.4f}" for metric, value in validation.items())
        told.append(f"On validation items at the end of its training: {values}.\n")
    if not tables:
        told.append(
            "No evaluation of it on test items is known here. `incatalog evaluate recommend` makes "
            "one, and `incatalog publish --evaluation` puts its figures into this card.\n"
        )
    return told


def _guide(folder: Path) -> list[str]:
    """What is known of the teacher that guides it; nothing where none does."""
    if not (folder / GUIDE_FILE).exists():
        return []
    found = read_json(folder / GUIDE_FILE)
    shares = f"with the weight {found['ranking']:g} in rankings and {found['list']:g} in lists"
    kind = _kind(folder / "guide")
    lines = [f"A teacher ({_plain(kind)}) that lies beside it guides its answers, {shares}."]
    fitted = found.get("fitted") or {}
    if isinstance(tried := fitted.get("NDCG@10"), dict):
        for what, means in tried.items():
            values = ", ".join(f"{share}: {mean:.4f}" for share, mean in means.items())
            lines.append(
                f"NDCG@10 of {what} on {fitted.get('users')} users' validation items by weight (0 "
                f"is the model alone, 1 the teacher alone): {values}."
            )
    return ["\n".join(f"{line}\n" for line in lines)]


def _licence(base: BaseModel, licence: str) -> str:
    if licence:
        return f"{_plain(licence)}, as its publisher says.\n"
    if base.licence == "unknown":
        return "Unknown: none is known of its base, and none was given.\n"
    return f"{_plain(base.licence)}, that of its base. The data may have another one.\n"


@dataclass(frozen=True)
class _TrainedRun:
    """What the manifest of a folder says of the run that made it."""

    stage: str
    config: Mapping[str, Any]
    results: Mapping[str, Any]

    @property
    def made(self) -> str:
        """How it was made, in words."""
        told = {
            "train sft": "trained on conversations (`incatalog train sft`)",
            "train grpo": "trained on rewards for its own answers (`incatalog train grpo`)",
            "model import": "trained elsewhere and imported (`incatalog model import`)",
        }
        return told.get(self.stage, "how it was trained is not recorded here")

    @property
    def data(self) -> str:
        """Size and origin of the data, where it still lies there; goes on with a sentence."""
        found = self._data
        size, told = found.get("results"), ""
        if isinstance(size, dict) and {"users", "interactions"} <= size.keys():
            told = f", {size['users']:,} users with {size['interactions']:,} interactions"
        stage = str(found.get("stage", ""))
        return f"{told}, prepared by `incatalog {stage}`" if stage.startswith("data ") else told

    @property
    def source(self) -> str:
        """What the data is called: a known data set, or its folder; empty where none is known."""
        known = str(self._data.get("stage", "")).removeprefix("data ")
        return known if known in _DATA_SETS else Path(str(self.config.get("data", ""))).name

    @property
    def told(self) -> dict[str, Any]:
        """The settings that say most about it, those that it does without left out."""
        found = {name: self.config.get(name) for name in _TOLD}
        if found["tune"] != "lora":
            del found["lora_r"]
        return {name: value for name, value in found.items() if value or name == "seed"}

    @property
    def _data(self) -> dict[str, Any]:
        folder = self.config.get("data")
        return _manifest(Path(folder)) if isinstance(folder, str) else {}

    @property
    def teacher(self) -> str:
        """What kind of teacher the training had; empty without one."""
        named = self.config.get("teacher")
        if not named:
            return ""
        return "one that is served elsewhere" if "://" in str(named) else _kind(Path(str(named)))


def _run(folder: Path) -> _TrainedRun:
    """The run that trained a model; of a merged one the run of its adapter."""
    found = _manifest(folder)
    if found.get("stage") == "train merge":
        found = _manifest(Path(str(found.get("config", {}).get("run", ""))))
    config, results = found.get("config", {}), found.get("results", {})
    return _TrainedRun(str(found.get("stage")), dict(config), dict(results))


def _manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a folder; empty where there is none that can be read."""
    try:
        found = read_json(folder / MANIFEST)
    except (DataError, OSError):
        return {}
    return found if isinstance(found, dict) else {}


def _kind(folder: Path) -> str:
    """What kind of teacher lies in a folder."""
    try:
        return str(read_json(folder / "teacher.json")["kind"])
    except (DataError, OSError, KeyError, TypeError):
        return "one of a kind that is not recorded here"


def _interval(figure: Mapping[str, float]) -> str:
    low, high = (f"{figure[end]:.4f}" for end in ("low", "high"))
    return f"{figure['value']:.4f} ({low} to {high})"


def _plain(value: object) -> str:
    """A value as text that neither ends a line nor a cell nor begins a tag."""
    if not isinstance(value, str):
        return str(value)
    return " ".join(re.sub(r"[|<>`*_\[\]]", "", value).split())
