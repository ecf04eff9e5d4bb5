from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from damage import edit_json
from incatalog import Catalog, Item, Recommender
from incatalog.cli import main
from incatalog.errors import BackboneError, IncatalogError
from incatalog.model.backbone import Backbone
from incatalog.model.lora import add_lora
from incatalog.model.saved import save_backbone, save_model
from incatalog.model.spec import ModelSpec, described, load_spec, spec_file, untrained_warning

GOOD = {"base": "tiny", "tokenizer_fingerprint": "abc"}


def written(folder: Path, **fields: Any) -> Path:
    (folder / "incatalog.json").write_text(json.dumps(GOOD | fields))
    return folder


def test_what_is_not_said_is_the_default(tmp_path: Path) -> None:
    assert load_spec(written(tmp_path)) == ModelSpec("tiny", tokenizer_fingerprint="abc")
    spec = load_spec(written(tmp_path, method="token", item_form="codes", code_sizes=[3, 2]))
    assert spec.code_sizes == (3, 2)
    assert spec.trained


def test_folders_of_the_former_name_are_read(tmp_path: Path) -> None:
    written(tmp_path, method="cgen", max_history=7).joinpath("incatalog.json").rename(
        tmp_path / "reclm.json"
    )
    assert load_spec(tmp_path).max_history == 7
    assert spec_file(tmp_path) == tmp_path / "reclm.json"
    # What is written now wins.
    assert load_spec(written(tmp_path, max_history=9)).max_history == 9
    (tmp_path / "incatalog.json").unlink()
    (tmp_path / "reclm.json").write_text("{")
    with pytest.raises(IncatalogError, match=r"reclm\.json"):
        load_spec(tmp_path)


WRONG = [
    ({"method": "x"}, "method: found 'x'; expected one of 'cgen', 'token', 'ret'"),
    ({"method": None}, "method: found None; expected one of"),
    ({"method": ["cgen"]}, r"method: found \['cgen'\]; expected one of"),
    ({"item_form": 3}, "item_form: found 3; expected one of 'titles', 'codes'"),
    ({"history_form": "auto"}, "history_form: found 'auto'; expected one of 'title', 'span'"),
    ({"projection": 1}, "projection: found 1; expected one of 'linear', 'mlp'"),
    ({"list_form": {}}, "list_form: found {}; expected one of"),
    ({"wording": 5}, "wording: found 5; expected text"),
    ({"system": None}, "system: found None; expected text"),
    ({"first_share": "much"}, "first_share: found 'much'; expected a number"),
    ({"first_share": True}, "first_share: found True; expected a number"),
    ({"first_share": 1}, "first_share: found 1; expected 0 to less than 1"),
    ({"first_share": -0.5}, "first_share: found -0.5; expected 0 to less than 1"),
    ({"soi_token": 3}, "soi_token: found 3; expected text"),
    ({"soi_token": "<EOI>"}, "eoi_token: found '<EOI>', which is soi_token too"),
    ({"base": ["tiny"]}, r"base: found \['tiny'\]; expected text"),
    ({"tokenizer_fingerprint": 1}, "tokenizer_fingerprint: found 1; expected text"),
    ({"max_history": "10"}, "max_history: found '10'; expected a whole number"),
    ({"max_history": 0}, "max_history: found 0; expected at least 1"),
    ({"list_length": 2.0}, r"list_length: found 2\.0; expected a whole number"),
    ({"max_length": True}, "max_length: found True; expected a whole number"),
    ({"aliases": -1}, "aliases: found -1; expected at least 0"),
    ({"trained": "yes"}, "trained: found 'yes'; expected true or false"),
    ({"code_sizes": 4}, "code_sizes: found 4; expected a list of numbers above 0"),
    ({"code_sizes": [4, "5"]}, r"code_sizes: found \[4, '5'\]; expected a list"),
    ({"code_sizes": [4]}, r"code_sizes: found \[4\]; expected a number a level for codes"),
    ({"method": "token", "item_form": "codes"}, "code_sizes: found None; expected"),
    ({"item_form": "codes", "code_sizes": [4]}, "item_form: found 'codes' beside method None"),
    ({"versions": "1.0"}, "versions: found '1.0'; expected texts by their names"),
    ({"versions": {"torch": 2}}, "versions: found .*; expected texts by their names"),
    ({"temperature": 1}, "temperature: no such field in this version of incatalog"),
]


@pytest.mark.parametrize(("fields", "message"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_wrong_values_name_file_and_field(
    fields: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=rf"incatalog\.json: {message}") as caught:
        load_spec(written(tmp_path, **fields))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 250


def test_missing_fields_and_broken_files_are_named(tmp_path: Path) -> None:
    for name in GOOD:
        edit_json(written(tmp_path) / "incatalog.json", lambda found, name=name: found.pop(name))
        with pytest.raises(BackboneError, match=rf"incatalog\.json: {name}: is missing"):
            load_spec(tmp_path)
    for text in ("", "{", "[" * 100_000, '{"a":' * 100_000):
        (tmp_path / "incatalog.json").write_text(text)
        with pytest.raises(BackboneError, match=r"incatalog\.json") as caught:
            load_spec(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tiny_backbone: Backbone, titles: tuple[str, ...], tmp_path: Path) -> Path:
    save_model(tmp_path, tiny_backbone, ModelSpec(base="tiny"))
    Catalog.from_items([Item(f"i{row}", title) for row, title in enumerate(titles)]).save(tmp_path)
    return tmp_path


def test_an_unknown_wording_is_named(folder: Path) -> None:
    edit_json(folder / "incatalog.json", lambda found: found.update(wording="polite"))
    with pytest.raises(
        BackboneError, match=r"incatalog\.json: wording: no wording is named 'polite'"
    ):
        Recommender.from_pretrained(folder, "cpu")


OTHERS = [
    ("config.json", "hidden_size", "wide", "hidden_size"),
    ("config.json", "num_hidden_layers", [2], "num_hidden_layers"),
    ("config.json", "num_hidden_layers", -1, ""),
    ("config.json", "num_hidden_layers", 1, r"has no place for the weights model\.layers\.1"),
    ("config.json", "vocab_size", 0, "cannot be loaded"),
    ("config.json", "hidden_act", 7, ""),
    ("config.json", "model_type", "abacus", "abacus"),
    ("tokenizer_config.json", "model_max_length", "long", "model_max_length: found 'long'"),
    ("tokenizer_config.json", "eos_token", 7, ""),
    ("generation_config.json", "eos_token_id", "x", "eos_token_id"),
    ("generation_config.json", "eos_token_id", [2, -4], r"eos_token_id: found \[2, -4\]"),
    ("generation_config.json", "pad_token_id", {}, ""),
]


@pytest.mark.parametrize(("name", "field", "value", "message"), OTHERS)
def test_wrong_values_in_files_of_others_name_the_file(
    folder: Path, name: str, field: str, value: Any, message: str
) -> None:
    edit_json(folder / name, lambda found: found.update({field: value}))
    with pytest.raises(IncatalogError, match=message or name) as caught:
        Recommender.from_pretrained(folder, "cpu").recommend(["i1"], k=2)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"]
)
@pytest.mark.parametrize("text", ["", "{", "[]", '{"a":' * 100_000])
def test_broken_files_of_others_are_one_line(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(IncatalogError, match=name) as caught:
        Recommender.from_pretrained(folder, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [("r", "4"), ("lora_alpha", None), ("target_modules", 3), ("peft_type", "X"), ("bias", [1])],
)
def test_wrong_values_in_an_adapter_name_the_file(
    own_tiny_backbone: Backbone, tmp_path: Path, field: str, value: Any
) -> None:
    save_backbone(tmp_path / "base", own_tiny_backbone)
    wrapped = add_lora(own_tiny_backbone, r=2, alpha=4.0, dropout=0.0)
    save_model(tmp_path, wrapped, ModelSpec(base="base"))
    Catalog.from_items([Item("a", "Night"), Item("b", "Zebra")]).save(tmp_path)
    edit_json(tmp_path / "adapter_config.json", lambda found: found.update({field: value}))
    with pytest.raises(IncatalogError, match=r"adapter_config\.json") as caught:
        Recommender.from_pretrained(tmp_path, "cpu")
    assert "\n" not in str(caught.value)


def test_a_model_that_was_never_trained_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert described(ModelSpec("x", "ret")) == "ret model"
    assert untrained_warning(ModelSpec("x")) is None
    assert described(ModelSpec("smollm2", trained=False)) == "untrained chat model"
    command = ["recommend", "--model", str(folder), "--history", "i1", "--k", "2"]
    assert main([*command, "--device", "cpu"]) == 0
    assert "never trained" not in capsys.readouterr().err
    edit_json(folder / "incatalog.json", lambda found: found.update(trained=False, base="smollm2"))
    assert main([*command, "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: smollm2 was never trained on a catalog")
    assert "train it first: incatalog train sft --model smollm2 --data" in said


def test_a_model_may_be_asked_in_other_words(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path, wording="test-as-trained", system="Be kind."))
    assert spec.asked() == spec
    other = spec.asked("test-two-turns", "")
    assert (other.wording, other.system) == ("test-two-turns", "")
    assert spec.asked(system="Be brief.") == dataclasses.replace(spec, system="Be brief.")
    assert spec.first_share == 0.5
    assert spec.asked(first_share=0.0) == dataclasses.replace(spec, first_share=0.0)
    assert spec.control == ("<SOI>", "<EOI>")
    named = load_spec(written(tmp_path, soi_token="[item]", eoi_token="[/item]"))
    assert named.control == ("[item]", "[/item]")
