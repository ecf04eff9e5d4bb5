from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import ConfigError
from incatalog.evaluation.general import evaluate_general, side_by_side
from incatalog.evaluation.settings import EvaluateGeneralSettings

if TYPE_CHECKING:
    from incatalog.model.backbone import Backbone

QUESTIONS = [
    {"question": "Sea of", "choices": ["Glass", "Tuesday"], "label": 0},
    {"question": "Robot", "choices": ["Paris", "Circus"], "label": 1},
    {"question": "Night", "choices": ["Train", "Ink", "Pine"], "label": 2},
    {"question": "Silent", "choices": ["Boats", "Pine"], "label": 0},
]


@pytest.fixture(scope="module")
def model(
    tmp_path_factory: pytest.TempPathFactory, tiny_backbone: Backbone, titles: tuple[str, ...]
) -> Path:
    from incatalog.model.saved import save_model
    from incatalog.model.spec import ModelSpec

    folder = tmp_path_factory.mktemp("model")
    save_model(folder, tiny_backbone, ModelSpec(base="tiny"))
    Catalog.from_items([Item(title, title) for title in titles]).save(folder)
    return folder


def tasks(folder: Path) -> Path:
    """A task of four questions whose files are all local."""
    data = folder / "questions.jsonl"
    folder.mkdir()
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    task = {
        "task": "films", "dataset_path": "json", "output_type": "multiple_choice",
        "dataset_kwargs": {"data_files": {"test": str(data)}}, "test_split": "test",
        "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    (folder / "films.yaml").write_text(json.dumps(task))
    return folder


@pytest.mark.long
def test_a_local_task_is_scored_as_by_hand(
    tmp_path: Path, model: Path, tiny_backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs the extra: pip install 'incatalog[lm-eval]'")
    import torch

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    config = EvaluateGeneralSettings(
        str(model), ("films",), tmp_path / "out", before=str(model),
        task_path=tasks(tmp_path / "tasks"), only_local=True, device="cpu",
    )  # fmt: skip
    evaluate_general(config)
    right = 0
    tokenizer = tiny_backbone.tokenizer
    for question in QUESTIONS:
        scores = []
        prompt = tokenizer(question["question"], add_special_tokens=False).input_ids
        for choice in question["choices"]:
            whole = tokenizer(f"{question['question']} {choice}", add_special_tokens=False)
            ids = torch.tensor([whole.input_ids])
            with torch.no_grad():
                logits = tiny_backbone.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            found = logits.gather(1, ids[0, 1:, None])[len(prompt) - 1 :]
            scores.append(found.sum().item())
        right += scores.index(max(scores)) == question["label"]
    [row] = json.loads((tmp_path / "out" / "summary.json").read_text())["tasks"]
    assert (row["task"], row["metric"]) == ("films", "acc")
    assert row["after"]["value"] == right / 4
    assert row["before"] == row["after"]


def test_models_stand_side_by_side() -> None:
    def found(value: float) -> dict[str, Any]:
        return {"task": {"acc": {"value": value, "error": 0.1}}}

    [row] = side_by_side({"before": found(0.5), "after": found(0.25)})
    assert (row["before"]["value"], row["after"]["value"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 0}, "--batch-size 0: expected at least 1"),
        ({"limit": -1}, "--limit -1: expected at least 0"),
        ({"only_local": True}, "--only-local: needs a folder"),
        ({"task_path": Path("nowhere")}, "--task-path nowhere: no such folder"),
        ({}, "--model nowhere: no language model"),
    ],
)
def test_settings_that_cannot_work_are_named(
    tmp_path: Path, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate_general(EvaluateGeneralSettings("nowhere", ("a",), tmp_path / "out", **settings))
