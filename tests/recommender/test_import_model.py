"""Models that come without a description: those of other programs, or of this one without it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken
from transformers import AutoModelForCausalLM, AutoTokenizer

from incatalog import Catalog, Recommender
from incatalog.artifacts import read_json
from incatalog.cli import main
from incatalog.codes.semantic_ids import SemanticIds
from incatalog.errors import ArtifactError, BackboneError, ConfigError, DataError, IncatalogError
from incatalog.evaluation.recommend import evaluate_recommend
from incatalog.evaluation.settings import EvaluateRecommendSettings
from incatalog.model.spec import load_spec
from incatalog.recommender.import_model import import_model
from incatalog.recommender.settings import ModelImportSettings
from incatalog.training.merge import merge_run
from incatalog.training.settings import MergeSettings, SftSettings
from incatalog.training.sft import train_sft

# What transformers writes of a model.
_FOREIGN = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_SYSTEM = "You know films, and recommend them."
# How each is asked, as flags of the training and of the import alike.
_ASKED: dict[str, dict[str, Any]] = {
    "cgen": {"list_form": "plain", "wording": "test-as-trained", "max_history": 4},
    "token": {
        "method": "token",
        "soi_token": "[item]",
        "eoi_token": "<|end of item|>",
        "system": _SYSTEM,
        "wording": "test-two-turns-mention",
        "list_form": "indented",
        "list_length": 3,
    },
}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, data: Path, index: Path
) -> Callable[[str], Path]:
    """Trains a tiny model of a method, a merged adapter for titles, and keeps it."""
    made: dict[str, Path] = {}

    def train(method: str) -> Path:
        if method not in made:
            folder = tmp_path_factory.mktemp(method)
            tune = "lora" if method == "cgen" else "full"
            settings = SftSettings(
                model="tiny", data=data, out=folder / "run", index=str(index), tune=tune,
                max_steps=3, learning_rate=1e-2, validate_every=0, device="cpu", max_length=512,
                tiny_vocab=500, tiny_hidden=32, tiny_inner=32, tiny_layers=1,
            )  # fmt: skip
            made[method] = train_sft(replace(settings, **_ASKED[method]))
            if tune == "lora":
                merge_run(MergeSettings(run=folder / "run", out=folder / "merged"))
                made[method] = folder / "merged"
        return made[method]

    return train


def foreign(folder: Path, out: Path) -> Path:
    """A copy of a model without anything of this program."""
    out.mkdir(parents=True)
    for name in _FOREIGN:
        shutil.copyfile(folder / name, out / name)
    return out


def settings_for(method: str, model: Path, out: Path, data: Path, index: Path) -> Any:
    coded = {"index": str(index)} if method == "token" else {}
    return ModelImportSettings(
        model, data, out, max_length=512, device="cpu", **coded, **_ASKED[method]
    )


def scores(model: Path, data: Path, out: Path) -> Any:
    evaluate_recommend(
        EvaluateRecommendSettings(model=str(model), data=data, out=out, k=5, device="cpu")
    )
    return read_json(out / "summary.json")


@pytest.mark.parametrize("method", ["cgen", "token"])
def test_an_imported_model_answers_as_the_one_it_was(
    method: str, trained: Callable[[str], Path], data: Path, index: Path, tmp_path: Path
) -> None:
    before = trained(method)
    merged = foreign(before, tmp_path / "merged")
    after = import_model(settings_for(method, merged, tmp_path / "imported", data, index))
    described, again = load_spec(before), load_spec(after)
    assert replace(again, base=described.base, versions=described.versions) == described
    assert "trained elsewhere and imported" in (after / "README.md").read_text(encoding="utf-8")
    for name in _FOREIGN:
        assert (after / name).read_bytes() == (before / name).read_bytes()
    models = [Recommender.from_pretrained(folder, device="cpu") for folder in (before, after)]
    histories = [["i3", "i7"], [], ["i0"] * 9, ["i40", "i41", "i2", "i5", "i6"]]
    for decode in ("beam", "list", "greedy"):
        found = [one.recommend_batch(histories, k=6, decode=decode) for one in models]  # type: ignore[arg-type]
        assert found[0] == found[1]
        assert all(len(items) == 6 for items in found[0])
    said = [
        one.chat([{"role": "user", "content": "A train?"}], max_new_tokens=40) for one in models
    ]
    assert said[0] == said[1]
    assert scores(before, data, tmp_path / "a") == scores(after, data, tmp_path / "b")


def test_an_imported_model_knows_items_by_the_field_it_was_trained_on(
    trained: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    named = tmp_path / "named"
    shutil.copytree(data, named)
    metas = read_json(named / "metas.jsonl")
    for number, fields in enumerate(metas.values()):
        fields["title_t"] = f"Number {number}"
    (named / "metas.jsonl").write_text(json.dumps(metas), encoding="utf-8")
    merged = foreign(trained("cgen"), tmp_path / "merged")
    asked = settings_for("cgen", merged, tmp_path / "imported", named, named)
    after = import_model(replace(asked, title_field="title_t"))
    recommender = Recommender.from_pretrained(after, "cpu")
    assert recommender.catalog.title_field == "title_t"
    assert recommender.catalog.names[3] == "Number 3"
    own = Catalog.load(data).titles
    found = recommender.recommend(["i3"], k=4)
    assert all(one.title == own[recommender.catalog.row(one.item_id)] for one in found)
    with pytest.raises(DataError, match="nothing_t"):
        import_model(replace(asked, out=tmp_path / "other", title_field="nothing_t"))


@pytest.mark.long
def test_grpo_and_merging_go_on_from_an_imported_model(
    trained: Callable[[str], Path], data: Path, index: Path, tmp_path: Path
) -> None:
    pytest.importorskip("trl", reason="GRPO needs trl: pip install 'incatalog[grpo]'")
    merged = foreign(trained("token"), tmp_path / "merged")
    model = import_model(settings_for("token", merged, tmp_path / "imported", data, index))
    flags = "--list-length 2 --batch-size 4 --num-generations 4 --max-samples 1 --device cpu"
    flags += " --validation-users 0 --checkpoint-every 1 --learning-rate 0.01"
    run = tmp_path / "grpo"
    told = ["train", "grpo", "--model", model, "--data", data, "--out", run, *flags.split()]
    assert main([*map(str, told)]) == 0
    assert main(["train", "merge", "--run", str(run), "--out", str(tmp_path / "again")]) == 0
    for folder in (run, tmp_path / "again"):
        spec = load_spec(folder)
        assert (spec.soi_token, spec.eoi_token) == ("[item]", "<|end of item|>")
        assert spec.system == _SYSTEM
        found = Recommender.from_pretrained(folder, device="cpu").recommend(["i3"], k=3)
        assert len({one.item_id for one in found}) == 3


def test_tokens_that_are_not_special_become_so_and_keep_their_ids(
    trained: Callable[[str], Path], data: Path, index: Path, tmp_path: Path
) -> None:
    before = trained("token")
    merged = foreign(before, tmp_path / "merged")
    state = json.loads((merged / "tokenizer.json").read_text(encoding="utf-8"))
    used = {token for row in read_json(index / "films.index.json").values() for token in row}
    for token in state["added_tokens"]:
        token["special"] = token["special"] and token["content"] not in {*used, "[item]"}
    (merged / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    config = json.loads((merged / "tokenizer_config.json").read_text(encoding="utf-8"))
    config.pop("additional_special_tokens", None)
    config.pop("extra_special_tokens", None)
    (merged / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    stock = AutoTokenizer.from_pretrained(merged)
    plain = {token.content for token in stock.added_tokens_decoder.values() if not token.special}
    assert used | {"[item]"} <= plain
    after = import_model(settings_for("token", merged, tmp_path / "imported", data, index))
    models = [Recommender.from_pretrained(folder, device="cpu") for folder in (before, after)]
    found = [one.recommend(["i3", "i7"], k=6) for one in models]
    assert found[0] == found[1]
    vocabularies = [one.backbone.tokenizer.get_vocab() for one in models]
    assert vocabularies[0] == vocabularies[1]


def test_codes_that_no_item_has_need_no_tokens(
    trained: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """LC-Rec and its kin add codes by `add_tokens`, and only those that some item has."""
    merged, catalog = foreign(trained("cgen"), tmp_path / "merged"), Catalog.load(data)
    rows = np.arange(len(catalog))
    codes = np.stack([rows // 8 * 3, rows % 8 * 5], axis=1).astype(np.int32)
    ids = SemanticIds(codes, (3 * 6 + 2, 36))
    ids.save(tmp_path / "index", "films", catalog)
    used = sorted({token for row in rows.tolist() for token in ids.tokens(row)})
    tokenizer = AutoTokenizer.from_pretrained(merged)
    model = AutoModelForCausalLM.from_pretrained(merged)
    tokenizer.add_tokens(used)
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.save_pretrained(merged)
    model.save_pretrained(merged)
    out = tmp_path / "imported"
    settings = ModelImportSettings(
        merged, data, out, method="token", index=str(tmp_path / "index"), max_length=512
    )
    import_model(settings)
    recommender = Recommender.from_pretrained(out, device="cpu")
    assert recommender.spec.code_sizes == (19, 36)
    assert sorted(recommender.backbone.code_token_ids) == sorted(
        tokenizer.convert_tokens_to_ids(used)
    )
    found = recommender.recommend(["i1"], k=len(catalog), exclude_seen=False)
    assert {one.item_id for one in found} == {item.item_id for item in catalog.items}
    for row in (0, 7, 49):
        assert recommender.items.tokens.decode(row, tokenizer) == "".join(ids.tokens(row))


def test_a_run_that_was_killed_is_no_model_and_goes_on(
    trained: Callable[[str], Path], data: Path, index: Path, tmp_path: Path
) -> None:
    merged = foreign(trained("cgen"), tmp_path / "merged")
    settings = settings_for("cgen", merged, tmp_path / "imported", data, index)
    out = import_model(settings)
    manifest = read_json(out / "manifest.json")
    kept = {key: manifest[key] for key in ("stage", "config", "data", "seed", "versions")}
    (out / "manifest.json").write_text(json.dumps(kept | {"status": "running"}))
    (out / "incatalog.json").unlink()
    (out / "model.safetensors").write_bytes(b"half")
    with pytest.raises(BackboneError, match=r"holds no incatalog.json"):
        Recommender.from_pretrained(out, device="cpu")
    assert import_model(settings) == out
    Recommender.from_pretrained(out, device="cpu")
    with pytest.raises(ArtifactError, match=r"other settings \(list_form\)"):
        import_model(replace(settings, list_form="numbered"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(ArtifactError, match=r"holds files but no manifest.json"):
        import_model(replace(settings, out=tmp_path / "other"))


def _without_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink()


def _with_template_of(token: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
        (folder / "chat_template.jinja").write_text(token + template, encoding="utf-8")

    return write


def _with_fewer_rows(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(model.config.vocab_size - 1)
    model.save_pretrained(folder)


def _with_another_shape(folder: Path) -> None:
    config = read_json(folder / "config.json")
    (folder / "config.json").write_text(json.dumps(config | {"hidden_size": 48}))


def _without_weights(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _with_an_unknown_token(folder: Path) -> None:
    """A vocabulary of words that are few, as none of bytes is."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("unknown")])
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (None, {"model": Path("nowhere")}, "--model nowhere: no such folder; expected a Hugging"),
        (lambda f: (f / "incatalog.json").touch(), {}, "--model .*holds incatalog.json, so all"),
        (lambda f: (f / "adapter_config.json").touch(), {}, "--model .*is an adapter; merge it"),
        (_without_weights, {}, r"--model .*holds no model\*.safetensors; save the model"),
        (_without_template, {}, "its tokenizer has no chat template"),
        (_with_template_of("<SOI>"), {}, "its chat template writes <SOI>, which is a control"),
        (_with_fewer_rows, {}, "embedding rows for .* tokens; model and tokenizer do not belong"),
        (_with_another_shape, {}, "has the shape .*; expected"),
        (_with_an_unknown_token, {}, "embedding rows for .* tokens; model and tokenizer"),
        (None, {"soi_token": "<item>"}, "--soi-token <item>: not in the vocabulary of .*name the"),
        (None, {"eoi_token": "<EOI]"}, r"--eoi-token <EOI\]: not in the .*\(near: <EOI>\)"),
        (None, {"eoi_token": "e"}, "e is no token that was added to its vocabulary"),
        (None, {"eoi_token": "<SOI>"}, "--eoi-token <SOI>: is that of --soi-token too"),
        (None, {"soi_token": " "}, "--soi-token ' ': expected the text of a token"),
        (None, {"eoi_token": "EOS"}, "<.*> is its eos token; name a token"),
        (None, {"wording": "polite"}, "--wording: no wording is named 'polite'"),
        (None, {"wording": "test-select"}, "--wording test-select: offers candidates"),
        (None, {"data": Path("nowhere")}, "--data nowhere: no such folder"),
        (None, {"index": "somewhere"}, "--index somewhere: --method cgen writes titles"),
        (None, {"method": "token"}, "--method token: .* holds no index files"),
        (None, {"method": "token", "index": "INDEX"}, "--index .*: item row 0 has the code <a_"),
        (None, {"max_length": 100_000}, "--max-length 100000: .* reads 512 at most"),
        (None, {"out": Path("MODEL")}, "--out .*: is the model; name another folder"),
    ],
)
def test_what_cannot_be_imported_is_named(
    spoil: Callable[[Path], Any] | None,
    changes: dict[str, Any],
    message: str,
    trained: Callable[[str], Path],
    data: Path,
    index: Path,
    tmp_path: Path,
) -> None:
    merged = foreign(trained("cgen"), tmp_path / "merged")
    if spoil is not None:
        spoil(merged)
    eos = AutoTokenizer.from_pretrained(trained("cgen")).eos_token
    stand_in = {"INDEX": str(index), "EOS": eos, Path("MODEL"): merged}
    changes = {name: stand_in.get(value, value) for name, value in changes.items()}
    settings = settings_for("cgen", merged, tmp_path / "imported", data, index)
    with pytest.raises(IncatalogError, match=message) as raised:
        import_model(replace(settings, **changes))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "imported").exists()


def test_a_title_that_the_vocabulary_cannot_spell_is_named(
    trained: Callable[[str], Path], data: Path, index: Path, tmp_path: Path
) -> None:
    merged = foreign(trained("cgen"), tmp_path / "merged")
    state = json.loads((merged / "tokenizer.json").read_text(encoding="utf-8"))
    state["normalizer"] = {"type": "Replace", "pattern": {"String": "v"}, "content": "vv"}
    (merged / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    settings = settings_for("cgen", merged, tmp_path / "imported", data, index)
    with pytest.raises(IncatalogError, match=r"item 'i\d+': title .*v.* changes each time"):
        import_model(settings)


def test_the_command_says_what_came_of_it(
    trained: Callable[[str], Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    merged = foreign(trained("cgen"), tmp_path / "merged")
    (tmp_path / "data").mkdir()
    titles = {"i0": {"title": "Sea &amp; Sky"}, "i1": {"title": "Night"}}
    (tmp_path / "data" / "metas.jsonl").write_text(json.dumps(titles))
    flags = ["--data", tmp_path / "data", "--out", tmp_path / "out", "--device", "cpu"]
    told = ["model", "import", merged, *flags, "--max-length", 512]
    assert main([*map(str, told)]) == 0
    said = capsys.readouterr().err
    assert f"{tmp_path / 'out'}: cgen model, 2 items, asked with test-single-turn" in said
    assert "notice: 1 of 2 titles are not written as they stand" in said
    assert "'Sea &amp; Sky' as 'Sea & Sky'" in said
    history = ["--model", str(tmp_path / "out"), "--history", "i0", "--device", "cpu", "--k", "1"]
    assert main(["recommend", *history]) == 0
    assert "Night" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="--wording"):
        Recommender.from_pretrained(tmp_path / "out", wording="polite")
