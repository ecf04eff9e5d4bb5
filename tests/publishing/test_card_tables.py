from __future__ import annotations

from pathlib import Path

import pytest

from incatalog.artifacts import fingerprint
from incatalog.cli import main
from incatalog.errors import ArtifactError, ConfigError, DataError
from incatalog.evaluation.methods import model_files
from incatalog.publishing.card_tables import card_tables
from incatalog.recommender.model_card import card_text
from scored import scored_run

DATA = {"metas.jsonl": "a", "sequential.jsonl": "b"}
K = {"k": 3}


def inputs(model: Path) -> dict[str, str]:
    """What an evaluation records of the model that it scored."""
    files = model_files(str(model))
    return DATA | {name: fingerprint([path]) for name, path in files.items()}


def beside(model: Path, name: str) -> Path:
    return model.parent / "evaluation" / name


def test_runs_of_the_model_stand_first_and_others_beside_them(trained: Path) -> None:
    own = scored_run(
        beside(trained, "own"), "cgen", [1, 0, 2], inputs=inputs(trained), config=K, decode="beam"
    )
    popular = scored_run(beside(trained, "popular"), "popularity", [0, 0, 3], inputs=DATA, config=K)
    [table] = card_tables(trained, [str(popular.folder), str(own.folder)])
    assert [(row.name, row.own) for row in table.rows] == [
        ("this model", True),
        ("popularity", False),
    ]
    assert table.k == 3
    assert table.asked == "The last item of 3 users, without items that a user has seen"
    assert table.rows[0].figures == own.summary["metrics"]
    # They are found where the commands put them, too.
    assert card_tables(trained, []) == [table]


def test_the_card_shows_the_figures_of_the_runs(trained: Path) -> None:
    own = scored_run(
        beside(trained, "own"), "cgen", [1, 0, 2], inputs=inputs(trained), config=K, decode="beam"
    )
    scored_run(beside(trained, "popular"), "popularity", [0, 0, 3], inputs=DATA, config=K)
    text = card_text(trained, "org/films", card_tables(trained, []))
    found = own.summary["metrics"]["HR@3"]
    assert found["value"] == 2 / 3
    cell = f"0.6667 ({found['low']:.4f} to {found['high']:.4f})"
    assert f"| **this model** | {cell} |" in text
    assert "| popularity | 0.3333 (" in text
    assert "No evaluation of it on test items" not in text


def test_evaluations_of_other_files_are_not_found_and_refused_where_named(trained: Path) -> None:
    other = inputs(trained) | {"model/model.safetensors": "another"}
    run = scored_run(
        beside(trained, "other"), "cgen", [1, 0], inputs=other, config=K, decode="beam"
    )
    assert card_tables(trained, []) == []
    with pytest.raises(ConfigError, match="scored another language model than the one in"):
        card_tables(trained, [str(run.folder)])
    popular = scored_run(beside(trained, "popular"), "popularity", [0, 3], inputs=DATA, config=K)
    with pytest.raises(ConfigError, match="none of them scored the model in the folder"):
        card_tables(trained, [str(popular.folder)])


def test_runs_that_asked_otherwise_do_not_stand_in_one_table(trained: Path) -> None:
    own = scored_run(
        beside(trained, "own"), "cgen", [1, 0], inputs=inputs(trained), config=K, decode="beam"
    )
    seen = scored_run(
        beside(trained, "seen"),
        "popularity",
        [0, 3],
        inputs=DATA,
        config={**K, "exclude_seen": False},
    )
    more = scored_run(beside(trained, "more"), "popularity", [0, 3, 1], inputs=DATA, config=K)
    with pytest.raises(ConfigError, match=r"was made with --exclude-seen False, and .* with True"):
        card_tables(trained, [str(own.folder), str(seen.folder)])
    with pytest.raises(DataError, match="scored on other users"):
        card_tables(trained, [str(own.folder), str(more.folder)])
    [table] = card_tables(trained, [])
    assert "seen" not in [row.name for row in table.rows]


def test_what_is_no_finished_evaluation_is_refused_where_named(trained: Path) -> None:
    with pytest.raises(ArtifactError, match=r"holds no manifest\.json"):
        card_tables(trained, [str(trained.parent / "nowhere")])
    with pytest.raises(ArtifactError, match="holds `incatalog train sft`"):
        card_tables(trained, [str(trained)])


def test_guided_runs_and_lists_say_so(trained: Path) -> None:
    for name, more in {
        "list": {"decode": "list"},
        "guided": {"decode": "beam", "guide_weight": 0.75},
    }.items():
        scored_run(beside(trained, name), "cgen", [1, 0], inputs=inputs(trained), config=K, **more)
    [table] = card_tables(trained, [])
    assert [row.name for row in table.rows] == [
        "this model (guided, weight 0.75)",
        "this model (list)",
    ]


@pytest.mark.long
def test_real_evaluations_are_found(trained: Path, data: Path) -> None:
    for name in (str(trained), "popularity"):
        out = beside(trained, Path(name).name)
        words = ["evaluate", "recommend", "--model", name, "--data", str(data), "--users", "8"]
        assert main([*words, "--exclude-seen", "--out", str(out), "--quiet"]) == 0
    [table] = card_tables(trained, [])
    assert [row.name for row in table.rows] == ["this model", "popularity"]
