"""The evaluations of a model, as tables of its card."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from incatalog.artifacts import MANIFEST, fingerprint, read_json
from incatalog.errors import ConfigError, DataError, IncatalogError
from incatalog.evaluation.finished import RECOMMEND, FinishedRun, check_same_users
from incatalog.evaluation.methods import model_files
from incatalog.recommender.model_card import CardRow, CardTable

# What two runs have to agree in to stand in one table.
_ASKED = ("split", "k", "users", "seed", "exclude_seen", "max_history")


def card_tables(model: Path, named: Sequence[str]) -> list[CardTable]:
    """Tables of the runs that are named, or else of those that lie where they usually do.

    A run is one of the model if the files that it scored are those in the folder, byte by byte.

    Raises:
        ArtifactError: A named folder holds no finished evaluation, or one that was changed.
        ConfigError: A named run is one of another language model, or none is of this one.
        DataError: Named runs asked other users, or for other items.
    """
    identity = {name: fingerprint([path]) for name, path in model_files(str(model)).items()}
    if named:
        runs = [FinishedRun.load(folder, RECOMMEND) for folder in named]
        return _of_named(runs, identity)
    return _of_found(list(_found(model)), identity)


def _of_named(runs: Sequence[FinishedRun], identity: dict[str, str]) -> list[CardTable]:
    own = [run for run in runs if _is_of(run, identity)]
    for run in runs:
        if run not in own and run.is_language_model:
            why = "scored another language model than the one in the folder, or other files of it"
            raise ConfigError(
                f"--evaluation {run.folder}: {why}; evaluate this one, or leave it out"
            )
    if not own:
        why = "none of them scored the model in the folder, byte by byte"
        raise ConfigError(f"--evaluation {' '.join(str(run.folder) for run in runs)}: {why}")
    for run in runs[1:]:
        for name in _ASKED:
            first, other = runs[0].manifest["config"].get(name), run.manifest["config"].get(name)
            if first != other:
                flag = name.replace("_", "-")
                told = f"was made with --{flag} {other}, and {runs[0].folder} with {first}"
                raise ConfigError(f"--evaluation {run.folder}: {told}; give runs that agree")
    check_same_users(runs)
    return [_table([*own, *(run for run in runs if run not in own)], own)]


def _of_found(runs: Sequence[FinishedRun], identity: dict[str, str]) -> list[CardTable]:
    """A table for each way in which the model was asked, with whatever else was asked so."""
    tables: dict[str, list[FinishedRun]] = {}
    for run in runs:
        if _is_of(run, identity):
            tables.setdefault(_question(run), []).append(run)
    found = []
    for question, own in tables.items():
        others = [run for run in runs if not run.is_language_model and _question(run) == question]
        found.append(_table([*own, *others], own))
    return found


def _found(model: Path) -> Iterator[FinishedRun]:
    """Evaluations that lie where the commands propose to put them; what cannot be read is none."""
    folder = model.resolve()
    beside = sorted((folder.parent / "evaluation").glob("*"))
    for place in (folder.with_name(f"{folder.name}-evaluation"), *beside):
        try:
            stage = read_json(place / MANIFEST).get("stage")
            if stage == RECOMMEND:
                yield FinishedRun.load(place, RECOMMEND)
        except (IncatalogError, OSError, AttributeError, KeyError, TypeError, ValueError):
            continue


def _is_of(run: FinishedRun, identity: dict[str, str]) -> bool:
    """Whether a run scored exactly these files, with a guide or without."""
    data = run.manifest.get("data", {})
    return {name: data[name] for name in data if name.startswith("model/")} == identity


def _question(run: FinishedRun) -> str:
    """What a run asked, and of which data."""
    config, data = run.manifest.get("config", {}), run.manifest.get("data", {})
    own: dict[str, Any] = {name: config.get(name) for name in _ASKED}
    own |= {name: data[name] for name in data if name.endswith((".jsonl", ".parquet"))}
    return json.dumps(own, sort_keys=True)


def _table(runs: Sequence[FinishedRun], own: Sequence[FinishedRun]) -> CardTable:
    config, k = runs[0].manifest["config"], runs[0].k
    split = "last" if config["split"] == "test" else "last but one"
    seen = "without" if config.get("exclude_seen") else "with"
    asked = (
        f"The {split} item of {runs[0].summary['users']:,} users, {seen} items that a user has seen"
    )
    rows = []
    for run in runs:
        if "metrics" not in run.summary:
            raise DataError.at(run.folder / "summary.json", "holds no metrics; evaluate again")
        name = _own_name(run) if run in own else run.name
        rows.append(CardRow(name, run.summary["metrics"], own=run in own))
    return CardTable(asked, rows, k)


def _own_name(run: FinishedRun) -> str:
    told = [run.form] if run.form else []
    if run.guided:
        told.append(f"guided, weight {run.summary['guide_weight']:g}")
    return f"this model ({', '.join(told)})" if told else "this model"
