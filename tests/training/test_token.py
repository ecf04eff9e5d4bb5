"""RecLM-token from index files to recommendations."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.torch import load_file

from incatalog import Catalog, Item, Recommender
from incatalog.codes.semantic_ids import SemanticIds, is_code_token
from incatalog.errors import ArtifactError, ConfigError, SemanticIdError, TokenizerError
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.model.saved import load_model
from incatalog.model.spec import load_spec
from incatalog.training.materials import with_item_form
from incatalog.training.merge import merge_run
from incatalog.training.settings import MergeSettings, SftSettings
from incatalog.training.sft import train_sft

Settings = Callable[..., SftSettings]


@pytest.fixture
def settings(tmp_path: Path, data: Path, index: Path) -> Settings:
    base = SftSettings(
        model="tiny", data=data, out=tmp_path / "run", method="token", index=str(index),
        tune="full", list_length=3, max_history=4, epochs=1, batch_size=8, max_steps=3,
        learning_rate=1e-2, validate_every=0, device="cpu", max_length=512,
        tiny_vocab=400, tiny_hidden=32, tiny_inner=32, tiny_layers=1,
    )  # fmt: skip

    def change(**changes: Any) -> SftSettings:
        return replace(base, **changes)

    return change


def check_answers(folder: Path, data: Path) -> Recommender:
    recommender = Recommender.from_pretrained(folder, device="cpu")
    catalog = Catalog.load(data)
    for history in (["i3", "i7"], [], ["i0"] * 9):
        found = recommender.recommend(history, k=len(catalog), exclude_seen=False)
        assert sorted(one.item_id for one in found) == sorted(i.item_id for i in catalog.items)
        for one in found:
            assert one.title == catalog.item(catalog.row(one.item_id)).title
            assert 0 < one.score <= 1
    return recommender


def test_fully_tuned_model_answers_with_items(
    settings: Settings, data: Path, index: Path, semantic_ids: SemanticIds, tmp_path: Path
) -> None:
    config = settings(align_ratio=0.5, loss_on_history=True)
    assert train_sft(config) == config.out
    spec = load_spec(config.out)
    assert (spec.method, spec.item_form, spec.history_form) == ("token", "codes", "span")
    assert spec.code_sizes == semantic_ids.sizes
    for name in ("films.index.json", "films.item2id"):
        assert (config.out / name).read_bytes() == (index / name).read_bytes()
    recommender = check_answers(config.out, data)
    assert recommender.item_tokens.row(0).tolist() == (
        recommender.backbone.tokenizer.convert_tokens_to_ids(list(semantic_ids.tokens(0)))
    )
    request = recommender.list_request([4, 9], 3)
    names = recommender.backbone.tokenizer.convert_ids_to_tokens(request.prompt_ids)
    shown = tuple(name for name in names if is_code_token(name))
    assert shown == (*semantic_ids.tokens(4), *semantic_ids.tokens(9))

    stamp = (config.out / "model.safetensors").stat().st_mtime_ns
    train_sft(config)  # finished: nothing to do
    assert (config.out / "model.safetensors").stat().st_mtime_ns == stamp
    other = tmp_path / "other"
    SemanticIds(semantic_ids.codes[::-1].copy(), semantic_ids.sizes).save(
        other, "films", Catalog.load(data)
    )
    with pytest.raises(ArtifactError, match=r"contents of index.index.json"):
        train_sft(replace(config, index=str(other)))


def test_paraphrases_are_for_histories_in_words(
    settings: Settings, data: Path, tmp_path: Path
) -> None:
    path = tmp_path / "paraphrases.jsonl"
    lines = [{"item_id": f"i{row}", "paraphrases": [f"Film {row}"]} for row in range(50)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    with pytest.raises(ConfigError, match="the history is written in codes; add --history-form"):
        train_sft(settings(paraphrases=path))
    config = settings(paraphrases=path, history_form="title", paraphrase_ratio=1.0)
    train_sft(config)
    recommender = check_answers(config.out, data)
    assert not recommender.aliases
    assert not (config.out / "aliases.jsonl").exists()


@pytest.mark.parametrize("embeddings", [False, True])
def test_adapter_trains_code_rows_and_merges(
    settings: Settings, data: Path, tmp_path: Path, embeddings: bool
) -> None:
    config = settings(tune="lora", train_embeddings=embeddings)
    train_sft(config)
    adapter = load_file(config.out / "adapter_model.safetensors")
    layer = "modules_to_save" if embeddings else "trainable_tokens"
    names = [name for name in adapter if "embed_tokens" in name]
    assert names
    base = load_file(config.out / "base" / "model.safetensors")["model.embed_tokens.weight"]
    rows = 2 + sum(load_spec(config.out).code_sizes)
    if embeddings:
        assert adapter[names[0]].shape[0] == len(base) + rows - 2
    else:
        assert layer in names[0]
        assert adapter[names[0]].shape[0] == rows
    adapted = check_answers(config.out, data)
    merged = merge_run(MergeSettings(run=config.out, out=tmp_path / "merged"))
    assert not (merged / "adapter_config.json").exists()
    recommender = check_answers(merged, data)
    expected = adapted.recommend(["i1", "i5"], k=10)
    found = recommender.recommend(["i1", "i5"], k=10)
    assert [one.item_id for one in found] == [one.item_id for one in expected]
    # Merging keeps the rows apart.
    backbone, _ = load_model(merged, "cpu")
    weight = backbone.model.get_input_embeddings().weight[list(backbone.code_token_ids)]
    assert len({tuple(row.tolist()) for row in weight}) == rows - 2


def test_evaluation_counts_items_and_shows_titles(
    settings: Settings, data: Path, index: Path, semantic_ids: SemanticIds, tmp_path: Path
) -> None:
    model = train_sft(settings(max_steps=1))
    config = EvaluateRecommendSettings(
        model=str(model), data=data, out=tmp_path / "eval", users=6, bootstrap=20, device="cpu"
    )
    evaluate_recommend(config)
    summary = json.loads((config.out / "summary.json").read_text())
    assert summary["method"] == "token"
    assert summary["metrics"]["OOD@10"]["value"] == 0
    assert summary["metrics"]["RightCount@10"]["value"] == 1
    users = pl.read_parquet(config.out / "users.parquet")
    titles = set(Catalog.load(data).titles)
    assert all(set(named) <= titles for named in users["named"].to_list())

    # Another domain: without its codes nothing can be held to it.
    far = tmp_path / "far"
    items = [Item(f"i{row}", f"Book {row}") for row in range(50)]
    books = Catalog.from_items(items, "books")
    books.save(far)
    shutil.copyfile(data / "sequential.jsonl", far / "sequential.jsonl")
    cross = replace(config, data=far, out=tmp_path / "cross")
    with pytest.raises(SemanticIdError, match=r"far holds no index files.*incatalog items assign"):
        evaluate_recommend(cross)
    semantic_ids.save(far, "books", books)
    evaluate_recommend(cross)
    users = pl.read_parquet(cross.out / "users.parquet")
    assert all(set(named) <= set(books.titles) for named in users["named"].to_list())


def test_another_catalog_needs_its_codes(settings: Settings, semantic_ids: SemanticIds) -> None:
    recommender = Recommender.from_pretrained(train_sft(settings(max_steps=1)), device="cpu")
    books = Catalog.from_items([Item("a", "A"), Item("b", "B")], "books")
    with pytest.raises(SemanticIdError, match=r"catalog books: .*comes without"):
        recommender.with_catalog(books)
    with pytest.raises(SemanticIdError, match="2 items, and codes of 50"):
        recommender.with_catalog(books, semantic_ids)
    foreign = SemanticIds(np.array([[0, 0, 0], [1, 1, 9]], dtype=np.int32), (4, 5, 10))
    with pytest.raises(TokenizerError, match="item row 1: the tokenizer has no code token <c_9>"):
        recommender.with_catalog(books, foreign)
    few = SemanticIds(np.array([[0, 0, 0], [3, 4, 5]], dtype=np.int32), (4, 5, 6))
    found = recommender.with_catalog(books, few).recommend([], k=10)
    assert sorted(one.item_id for one in found) == ["a", "b"]


def test_model_folder_without_its_index_is_refused(settings: Settings) -> None:
    model = train_sft(settings(max_steps=1))
    (model / "films.item2id").unlink()
    with pytest.raises(SemanticIdError, match=r"holds films.index.json, but no films.item2id"):
        Recommender.from_pretrained(model, device="cpu")


def test_auto_falls_back_to_titles_and_says_so(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    config = settings(index="", max_steps=1)
    found = with_item_form(config)
    assert (found.item_form, found.shown_history) == ("titles", "title")
    said = " ".join(capsys.readouterr().err.split())
    assert "notice: --item-form auto:" in said
    assert "holds no index files" in said
    assert "items are written as their titles, not as codes" in said
    train_sft(config)
    spec = load_spec(config.out)
    assert (spec.item_form, spec.code_sizes) == ("titles", ())
    assert with_item_form(settings()).item_form == "codes"
    assert with_item_form(settings(item_form="titles")).item_form == "titles"
    assert with_item_form(settings(method="cgen")).item_form == "titles"
    assert capsys.readouterr().err.count("notice") == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"item_form": "codes", "index": ""}, "--item-form codes: .*holds no index files"),
        ({"item_form": "codes", "method": "cgen"}, "--item-form codes: --method cgen"),
        ({"index": "nowhere"}, "--index nowhere: no such folder"),
        ({"align_ratio": -1.0}, "--align-ratio -1.0: expected at least 0"),
        ({"align_ratio": 1.0, "method": "cgen"}, "--align-ratio 1.0: teaches what codes mean"),
        ({"loss_on_history": True, "item_form": "titles"}, "--loss-on-history: needs item spans"),
    ],
)
def test_wrong_settings_name_the_flag(
    settings: Settings, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        train_sft(settings(**changes))
    assert not settings().out.exists()


def test_codes_that_collide_are_refused_before_the_model_is_made(
    settings: Settings, semantic_ids: SemanticIds, data: Path, tmp_path: Path
) -> None:
    codes = semantic_ids.codes.copy()
    codes[7] = codes[3]
    SemanticIds(codes, semantic_ids.sizes).save(tmp_path / "ids", "films", Catalog.load(data))
    config = settings(index=str(tmp_path / "ids"), model="no/such-model")
    with pytest.raises(SemanticIdError, match="1 of 50 items share all their codes"):
        train_sft(config)
    assert not config.out.exists()
