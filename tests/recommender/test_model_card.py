from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from hub_fixtures import trained_folder
from incatalog import Catalog, Item, Recommender
from incatalog.artifacts import write_json
from incatalog.checksums import file_checksums, verify_checksums
from incatalog.model.backbone import Backbone
from incatalog.model.saved import save_spec
from incatalog.model.spec import load_spec
from incatalog.recommender.model_card import CardRow, CardTable, card_text, own_words, write_card


@pytest.fixture
def folder(tmp_path: Path, tiny_backbone: Backbone, catalog: Catalog, data: Path) -> Path:
    return trained_folder(tmp_path / "films", tiny_backbone, catalog, data)


def table(name: str = "this model") -> CardTable:
    own = {"HR@10": {"value": 0.25, "low": 0.2, "high": 0.3}}
    own |= {"NDCG@10": {"value": 0.125, "low": 0.1, "high": 0.15}}
    low = {metric: dict.fromkeys(figure, 0.01) for metric, figure in own.items()}
    rows = [CardRow(name, own, own=True), CardRow("popularity", low)]
    return CardTable("The last item of 40 users", rows, 10)


def cells(text: str) -> list[list[str]]:
    """The rows of the first table, as a reader of Markdown finds them."""
    tokens = MarkdownIt().enable("table").parse(ModelCard(text).text)
    rows: list[list[str]] = []
    for at, token in enumerate(tokens):
        if token.type == "tr_open":
            rows.append([])
        elif token.type in ("td_open", "th_open"):
            rows[-1].append(tokens[at + 1].content)
    return rows


def test_a_trained_folder_has_a_card_that_the_hub_reads(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    card = ModelCard(text)
    assert card.data.to_dict() == {
        "library_name": "incatalog",
        "license": "unknown",
        "pipeline_tag": "text-generation",
        "tags": ["recommendation", "recommender-system", "constrained-decoding", "cgen"],
    }
    assert "A chat model that recommends the 50 items" in text
    assert "`tune` full, `epochs` 3" in text
    assert "lora_r" not in text
    assert "On validation items at the end of its training: HR@10 0.2500, NDCG@10 0.1250." in text
    assert "No evaluation of it on test items is known here." in text


def test_the_lines_of_a_card_work(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 10
    exec(compile(code, "README.md", "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    found = Recommender.from_pretrained(folder).recommend(["i0", "i1"], k=5)
    assert lines == [f"{one.rank} {one.title} {round(one.score, 4)}" for one in found]


def test_figures_stand_beside_those_of_others_and_in_the_metadata(folder: Path) -> None:
    text = card_text(folder, "org/films", [table()])
    assert cells(text) == [
        ["", "HR@10", "NDCG@10"],
        ["**this model**", "0.2500 (0.2000 to 0.3000)", "0.1250 (0.1000 to 0.1500)"],
        ["popularity", "0.0100 (0.0100 to 0.0100)", "0.0100 (0.0100 to 0.0100)"],
    ]
    data = ModelCard(text).data
    assert data.metrics == ["hr", "ndcg"]
    assert data.model_name == "films"
    assert [(one.metric_name, one.metric_value) for one in data.eval_results] == [
        ("HR@10", 0.25),
        ("NDCG@10", 0.125),
    ]
    assert "No evaluation" not in text


def test_names_cannot_break_the_page(folder: Path, tiny_backbone: Backbone) -> None:
    text = card_text(folder, "org/films", [table("this | model\n\n# <b>x")])
    assert cells(text)[1][0] == "**this model # bx**"
    ids = ['i"0', "i'1 |<b>```"]
    odd = Catalog.from_items([Item(one, f"Title {one}") for one in ids])
    odd.save(folder)
    card = ModelCard(card_text(folder, "org/films"))
    assert card.data.library_name == "incatalog"
    [code] = [one.content for one in MarkdownIt().parse(card.text) if one.info == "python"]
    assert repr(ids) in code
    compile(code, "README.md", "exec")


def test_the_licence_is_that_of_the_base_or_the_one_given(
    folder: Path, tiny_backbone: Backbone
) -> None:
    save_spec(folder, replace(load_spec(folder), base="smollm2"), tiny_backbone.tokenizer)
    data = ModelCard(card_text(folder, "org/films")).data
    assert data.license == "apache-2.0"
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    given = card_text(folder, "org/films", licence="cc-by-nc-4.0")
    assert ModelCard(given).data.license == "cc-by-nc-4.0"
    assert "cc-by-nc-4.0, as its publisher says." in given


def test_a_guide_is_told_with_what_was_fitted(folder: Path) -> None:
    (folder / "guide").mkdir()
    write_json(folder / "guide" / "teacher.json", {"kind": "knn"})
    means = {"0": 0.1, "0.5": 0.3, "1": 0.2}
    fitted = {"users": 30, "NDCG@10": {"ranking": means, "list": means}}
    write_json(folder / "guide.json", {"ranking": 0.5, "list": 0.5, "fitted": fitted})
    write_card(folder)
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "A teacher (knn) that lies beside it guides its answers, with the weight 0.5" in text
    assert "NDCG@10 of ranking on 30 users' validation items" in text
    assert "0: 0.1000, 0.5: 0.3000, 1: 0.2000." in text
    # The record of the training's files says nothing of the card.
    verify_checksums(folder)
    assert "README.md" not in file_checksums(folder)


def test_what_somebody_wrote_is_kept(folder: Path) -> None:
    assert own_words(folder) is None
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8")
    changed = text.replace("<!-- Written by incatalog.", "<!-- By hand.")
    path.write_text(changed, encoding="utf-8")
    write_card(folder)
    assert path.read_text(encoding="utf-8") == own_words(folder) == changed
    path.unlink()
    assert own_words(folder) is None
    write_card(folder)
    assert path.read_text(encoding="utf-8") == text


def test_without_its_run_and_data_a_card_claims_nothing(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    text = card_text(folder, "org/films")
    assert "how it was trained is not recorded here" in text
    assert "On validation items" not in text
    assert "interactions" not in text
