from __future__ import annotations

import dataclasses
import json
import shutil
import warnings
from importlib.metadata import version

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2Config, Gemma2ForCausalLM

from incatalog.devices import resolve_device
from incatalog.errors import ArtifactError, BackboneError, ConfigError, TokenizerError
from incatalog.items.tokens import ControlNames
from incatalog.model.backbone import (
    base_model,
    create_tiny,
    load_backbone,
    load_plain_backbone,
    output_rows,
)
from incatalog.model.head import RetrievalHead
from incatalog.model.lora import add_lora
from incatalog.model.saved import load_model, save_backbone, save_model
from incatalog.model.spec import ModelSpec, load_spec
from incatalog.model.tiny import TinyConfig
from incatalog.training.merge import merge_run
from incatalog.training.settings import MergeSettings

WHOLE_LAYERS = [(False, False), (True, False), (False, True), (True, True)]


def tiny(titles, tied=True, seed=0):
    sizes = TinyConfig(vocab_size=400, hidden=32, inner=64, layers=2, heads=4, tied=tied, seed=seed)
    return create_tiny(titles, sizes)


def lora(backbone, **options):
    return add_lora(backbone, **({"r": 4, "alpha": 8.0, "dropout": 0.0, "seed": 3} | options))


def some_ids(backbone, seed=0):
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, len(backbone.tokenizer) - 2, (2, 12), generator=generator)
    ids[0, 4], ids[0, 9] = backbone.soi_token_id, backbone.eoi_token_id
    return ids


def train(backbone, steps=3):
    """A few steps of what a loss does: hidden states times the rows of the output layer."""
    ids = some_ids(backbone)
    trained = [p for p in backbone.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=0.05)
    for _ in range(steps):
        weight, bias = output_rows(backbone.model)
        logits = functional.linear(base_model(backbone.model)(ids).last_hidden_state, weight, bias)
        functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad()
    backbone.model.eval()


@torch.no_grad()
def logits_of(model, ids):
    return model(ids).logits


# Loading and control tokens


def test_a_saved_backbone_loads_with_the_same_logits(tiny_backbone, tmp_path):
    save_backbone(tmp_path, tiny_backbone)
    loaded = load_backbone(tmp_path, device="cpu")
    assert not loaded.model.training
    assert loaded.soi_token_id == tiny_backbone.soi_token_id
    ids = some_ids(tiny_backbone)
    assert torch.equal(logits_of(loaded.model, ids), logits_of(tiny_backbone.model, ids))
    assert loaded.tokenizer.get_vocab() == tiny_backbone.tokenizer.get_vocab()
    assert loaded.tokenizer.chat_template == tiny_backbone.tokenizer.chat_template


def test_a_model_that_knows_the_control_tokens_is_not_asked_as_plain(tiny_backbone, tmp_path):
    tiny_backbone.model.save_pretrained(tmp_path)
    tiny_backbone.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="trained on a catalog elsewhere; `incatalog model imp"):
        load_plain_backbone(tmp_path, "cpu")


@pytest.mark.parametrize("tied", [True, False])
def test_missing_control_tokens_are_added_beside_the_old_rows(titles, tied):
    backbone = tiny(titles, tied)
    model, tokenizer = backbone.model, backbone.tokenizer
    assert tokenizer.convert_ids_to_tokens([backbone.soi_token_id, backbone.eoi_token_id]) == [
        "<SOI>",
        "<EOI>",
    ]
    assert model.config.vocab_size == len(tokenizer) == 402
    assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        old, new = layer.weight[:400], layer.weight[400:]
        spread = old.std(0)
        assert ((new - old.mean(0)).abs() < 0.2 * spread).all()
        assert not torch.equal(new[0], new[1])


def test_control_tokens_are_added_the_same_way_each_time(titles):
    one, two = tiny(titles), tiny(titles)
    assert torch.equal(output_rows(one.model)[0], output_rows(two.model)[0])


def test_spare_embedding_rows_are_used_before_the_layer_grows(titles, tmp_path):
    backbone = tiny(titles)
    backbone.model.resize_token_embeddings(420, mean_resizing=False)
    vocabulary = tmp_path / "tokenizer.json"
    save_backbone(tmp_path, backbone)
    state = json.loads(vocabulary.read_text())
    state["added_tokens"] = [t for t in state["added_tokens"] if "OI>" not in t["content"]]
    vocabulary.write_text(json.dumps(state))
    loaded = load_backbone(tmp_path, device="cpu")
    assert (loaded.soi_token_id, loaded.eoi_token_id) == (400, 401)
    assert loaded.model.config.vocab_size == 420


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(BackboneError, match="nowhere: no such folder"):
        load_backbone(tmp_path / "nowhere", device="cpu")
    with pytest.raises(BackboneError, match=r"holds no config\.json"):
        load_backbone(tmp_path, device="cpu")


def test_unreachable_hub_name_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(BackboneError, match=r"nobody/no-model: config\.json cannot be") as caught:
        load_backbone("nobody/no-model", device="cpu")
    assert "\n" not in str(caught.value)


def test_truncated_weights_are_refused(tiny_backbone, tmp_path):
    save_backbone(tmp_path, tiny_backbone)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_backbone(tmp_path, device="cpu")


def test_model_without_chat_template_is_refused(tiny_backbone, tmp_path):
    save_backbone(tmp_path, tiny_backbone)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(BackboneError, match="no chat template"):
        load_backbone(tmp_path, device="cpu")


def test_tokenizer_of_another_model_is_refused(tiny_backbone, titles, tmp_path):
    save_backbone(tmp_path, tiny_backbone)
    longer = tiny_backbone.tokenizer.__class__.from_pretrained(tmp_path)
    longer.add_tokens([f"word{i}" for i in range(30)])
    longer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="do not belong together"):
        load_backbone(tmp_path, device="cpu")


def test_scores_changed_after_the_output_layer_are_refused(tiny_backbone, tmp_path):
    config = Gemma2Config(
        vocab_size=len(tiny_backbone.tokenizer),
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        final_logit_softcapping=0.5,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tiny_backbone.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="transforms the scores of its output layer"):
        load_backbone(tmp_path, device="cpu")


def test_unknown_device_and_quantization_name_the_flag(tiny_backbone, tmp_path):
    save_backbone(tmp_path, tiny_backbone)
    with pytest.raises(ConfigError, match="--device toaster"):
        load_backbone(tmp_path, device="toaster")
    with pytest.raises(ConfigError, match="--quantization 3bit: expected none, 8bit or 4bit"):
        load_backbone(tmp_path, device="cpu", quantization="3bit")
    with pytest.raises(ConfigError, match="--quantization 4bit: needs a CUDA device"):
        load_backbone(tmp_path, device="cpu", quantization="4bit")
    assert resolve_device("cpu") == torch.device("cpu")


# Output layer and adapters


@pytest.mark.parametrize("tied", [True, False])
def test_output_rows_times_hidden_states_are_the_logits(titles, tied):
    backbone = tiny(titles, tied)
    ids = some_ids(backbone)
    weight, bias = output_rows(backbone.model)
    hidden = base_model(backbone.model)(ids).last_hidden_state
    torch.testing.assert_close(
        functional.linear(hidden, weight, bias), backbone.model(ids).logits, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("embeddings", "head"), WHOLE_LAYERS)
def test_adapter_trains_what_it_says_and_nothing_else(titles, tied, embeddings, head):
    backbone = tiny(titles, tied)
    before = {k: v.clone() for k, v in backbone.model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped = lora(backbone, train_embeddings=embeddings, train_lm_head=head)
    ids = some_ids(wrapped)
    torch.testing.assert_close(
        logits_of(wrapped.model, ids), functional.linear(*_hidden_and_head(before, backbone, ids))
    )
    train(wrapped)

    weight, bias = output_rows(wrapped.model)
    hidden = base_model(wrapped.model)(ids).last_hidden_state
    torch.testing.assert_close(
        functional.linear(hidden, weight, bias), wrapped.model(ids).logits, rtol=0, atol=1e-5
    )
    changed = (weight != before["lm_head.weight"]).any(1).nonzero().flatten().tolist()
    if head or (tied and embeddings):
        assert len(changed) > 300
    else:
        assert changed == [wrapped.soi_token_id, wrapped.eoi_token_id]
    inputs = wrapped.model.get_input_embeddings().weight
    changed = (inputs != before["model.embed_tokens.weight"]).any(1).nonzero().flatten().tolist()
    if tied:
        assert torch.equal(inputs, weight)
    elif embeddings:
        assert set(changed) == set(ids[:, :-1].flatten().tolist())
    else:
        assert changed == [wrapped.soi_token_id, wrapped.eoi_token_id]
    for name, value in wrapped.model.get_base_model().state_dict().items():
        plain = name.replace(".base_layer", "").replace(".token_adapter", "")
        plain = plain.replace(".original_module", "")
        if plain in before:
            assert torch.equal(value, before[plain]), name


def _hidden_and_head(state, backbone, ids):
    with torch.no_grad():
        return base_model(backbone.model)(ids).last_hidden_state, state["lm_head.weight"]


def test_trained_rows_get_gradients_from_the_output_layer_alone(titles):
    wrapped = lora(tiny(titles))
    weight, _ = output_rows(wrapped.model)
    weight[[3, wrapped.soi_token_id]].sum().backward()
    gradients = {n: p.grad for n, p in wrapped.model.named_parameters() if p.grad is not None}
    (name,) = gradients
    assert "trainable_tokens_delta" in name
    assert gradients[name].tolist() == [[1.0] * 32, [0.0] * 32]


def test_adapters_start_from_their_seed_alone(titles):
    states = []
    for noise, seed in ((1, 3), (2, 3), (1, 4)):
        torch.manual_seed(noise)
        states.append(lora(tiny(titles), seed=seed).model.state_dict())
    same, other = [
        all(torch.equal(states[0][name], state[name]) for name in states[0]) for state in states[1:]
    ]
    assert same
    assert not other


def test_impossible_adapters_name_the_flag(own_tiny_backbone):
    with pytest.raises(ConfigError, match="--lora-r 0"):
        lora(own_tiny_backbone, r=0)
    with pytest.raises(ConfigError, match="--lora-dropout 1"):
        lora(own_tiny_backbone, dropout=1.0)
    with pytest.raises(ConfigError, match="--lora-targets z_proj"):
        lora(own_tiny_backbone, targets="z_proj")


@pytest.mark.parametrize("rank", [3, 4])
def test_orthogonal_adapters_change_nothing_at_first(titles, rank):
    plain = tiny(titles)
    ids = some_ids(plain)
    expected = logits_of(plain.model, ids)
    model = lora(plain, r=rank, init="orthogonal").model
    assert torch.equal(logits_of(model.eval(), ids), expected)
    found = [(n, p.detach()) for n, p in model.named_parameters() if "lora_" in n]
    for name, weight in found:
        if "lora_A" in name:
            torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(rank))
        else:
            assert not weight.any()
    other = lora(tiny(titles), r=rank, init="orthogonal", seed=4).model.state_dict()
    assert not any(torch.equal(w, other[n]) for n, w in found if "lora_A" in n)


def test_named_targets_get_adapters(own_tiny_backbone):
    wrapped = lora(own_tiny_backbone, targets="q_proj, v_proj")
    adapted = {n.split(".")[-4] for n, _ in wrapped.model.named_parameters() if "lora_A" in n}
    assert adapted == {"q_proj", "v_proj"}


def test_biased_output_layer_is_refused_rather_than_losing_its_bias(titles):
    backbone = tiny(titles, tied=False)
    head = backbone.model.lm_head
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
    with pytest.raises(BackboneError, match="--train-lm-head"):
        lora(backbone)
    lora(backbone, train_lm_head=True)


# Trained models: save, load, merge


@pytest.mark.parametrize("tied", [True, False])
def test_a_trained_model_comes_back_with_its_spec(titles, tied, tmp_path):
    backbone = tiny(titles, tied)
    spec = ModelSpec(base="tiny", history_form="span", list_form="plain", max_history=7)
    save_model(tmp_path, backbone, spec)
    loaded, found = load_model(tmp_path, "cpu")
    assert found.tokenizer_fingerprint
    assert found.versions["torch"] == version("torch")
    assert dataclasses.replace(found, tokenizer_fingerprint="", versions={}) == spec
    ids = some_ids(backbone)
    assert torch.equal(logits_of(loaded.model, ids), logits_of(backbone.model, ids))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("embeddings", "head"), WHOLE_LAYERS)
def test_merged_folder_loads_plainly_with_the_adapters_logits(
    titles, tied, embeddings, head, tmp_path
):
    run, out = tmp_path / "run", tmp_path / "merged"
    backbone = tiny(titles, tied)
    save_backbone(run / "base", backbone)
    wrapped = lora(backbone, train_embeddings=embeddings, train_lm_head=head)
    train(wrapped)
    ids = some_ids(wrapped)
    expected = logits_of(wrapped.model, ids)
    save_model(run, wrapped, ModelSpec(base="base"))
    (run / "metas.jsonl").write_text('{"1": {"title": "Harbour"}}')
    (run / "category.jsonl").write_text("{}")

    unmerged, _ = load_model(run, "cpu", merge_adapter=False)
    torch.testing.assert_close(logits_of(unmerged.model, ids), expected, rtol=0, atol=1e-5)
    in_memory, _ = load_model(run, "cpu")
    torch.testing.assert_close(logits_of(in_memory.model, ids), expected, rtol=0, atol=1e-4)

    assert merge_run(MergeSettings(run=run, out=out)) == out
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = AutoModelForCausalLM.from_pretrained(out)
    torch.testing.assert_close(logits_of(plain, ids), expected, rtol=0, atol=1e-4)
    assert plain.config.tie_word_embeddings == tied
    assert (plain.lm_head.weight is plain.model.embed_tokens.weight) == tied
    assert AutoTokenizer.from_pretrained(out).convert_tokens_to_ids("<SOI>") == (
        wrapped.soi_token_id
    )
    assert (out / "metas.jsonl").read_text() == '{"1": {"title": "Harbour"}}'
    assert not (out / "adapter_config.json").exists()
    assert json.loads((out / "manifest.json").read_text())["status"] == "finished"
    loaded, spec = load_model(out, "cpu")
    assert spec.base == "./base"
    assert "how it was trained is not recorded" in (out / "README.md").read_text(encoding="utf-8")
    torch.testing.assert_close(logits_of(loaded.model, ids), expected, rtol=0, atol=1e-4)


@pytest.fixture
def adapter_run(titles, tmp_path):
    backbone = tiny(titles)
    save_backbone(tmp_path / "run" / "base", backbone)
    save_model(tmp_path / "run", lora(backbone), ModelSpec(base="base"))
    return tmp_path / "run"


def test_adapter_folder_holds_the_adapter_only(adapter_run):
    names = {path.name for path in adapter_run.iterdir()}
    assert "adapter_model.safetensors" in names
    assert "model.safetensors" not in names
    assert "README.md" not in names
    assert (adapter_run / "adapter_model.safetensors").stat().st_size < 60_000


def test_merge_is_repeatable_and_keeps_foreign_folders(adapter_run, tmp_path):
    out = tmp_path / "merged"
    merge_run(MergeSettings(run=adapter_run, out=out))
    written = (out / "model.safetensors").stat().st_mtime_ns
    merge_run(MergeSettings(run=adapter_run, out=out))
    assert (out / "model.safetensors").stat().st_mtime_ns == written

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ArtifactError, match=r"holds files but no manifest\.json"):
        merge_run(MergeSettings(run=adapter_run, out=tmp_path / "mine"))
    with pytest.raises(ArtifactError, match="is the run itself"):
        merge_run(MergeSettings(run=adapter_run, out=adapter_run))


def test_merging_a_full_model_is_refused(tiny_backbone, tmp_path):
    save_model(tmp_path / "run", tiny_backbone, ModelSpec(base="tiny"))
    with pytest.raises(BackboneError, match="holds no adapter_config"):
        merge_run(MergeSettings(run=tmp_path / "run", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_adapter_without_its_base_is_refused(adapter_run):
    shutil.rmtree(adapter_run / "base")
    with pytest.raises(BackboneError, match="base: no such folder"):
        load_model(adapter_run, "cpu")


def test_damaged_adapter_is_refused(adapter_run):
    weights = adapter_run / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(BackboneError, match="cannot be loaded"):
        load_model(adapter_run, "cpu")


def test_a_path_as_base_is_kept_absolute(titles, tmp_path, monkeypatch):
    backbone = tiny(titles)
    save_backbone(tmp_path / "models" / "mine", backbone)
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "run", lora(backbone), ModelSpec(base="models/mine"))
    monkeypatch.chdir("/")
    _, spec = load_model(tmp_path / "run", "cpu")
    assert spec.base == str(tmp_path / "models" / "mine")


def test_a_base_seen_from_the_model_may_move_with_it(titles, tmp_path):
    backbone = tiny(titles)
    save_backbone(tmp_path / "a" / "models" / "mine", backbone)
    save_backbone(tmp_path / "a" / "run" / "inside", backbone)
    wrapped = lora(backbone)
    for number, base in enumerate(("../models/mine", "inside")):
        save_model(tmp_path / "a" / "run", wrapped, ModelSpec(base=base))
        (tmp_path / "a").rename(tmp_path / f"moved{number}")
        _, spec = load_model(tmp_path / f"moved{number}" / "run", "cpu")
        assert spec.base == ("../models/mine", "./inside")[number]
        (tmp_path / f"moved{number}").rename(tmp_path / "a")


def test_folder_without_its_mark_is_incomplete(tiny_backbone, tmp_path):
    save_model(tmp_path, tiny_backbone, ModelSpec(base="tiny"))
    spec = tmp_path / "incatalog.json"
    text = spec.read_text()
    spec.unlink()
    with pytest.raises(
        BackboneError, match=r"holds no incatalog\.json; expected the folder of a fin"
    ):
        load_model(tmp_path, "cpu")
    spec.write_text(text[:20])
    with pytest.raises(BackboneError, match="not valid JSON"):
        load_spec(tmp_path)
    spec.write_text("[]")
    with pytest.raises(BackboneError, match="not written by this version"):
        load_spec(tmp_path)


def test_foreign_tokenizer_or_lost_control_token_is_refused(titles, tiny_backbone, tmp_path):
    save_model(tmp_path / "a", tiny_backbone, ModelSpec(base="tiny"))
    save_model(tmp_path / "b", tiny(titles[:25]), ModelSpec(base="tiny"))
    vocabulary = tmp_path / "a" / "tokenizer.json"
    kept = vocabulary.read_text()
    shutil.copyfile(tmp_path / "b" / "tokenizer.json", vocabulary)
    with pytest.raises(TokenizerError, match="its tokenizer is not the one"):
        load_model(tmp_path / "a", "cpu")
    state = json.loads(kept)
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] != "<EOI>"]
    vocabulary.write_text(json.dumps(state))
    with pytest.raises(TokenizerError, match="<EOI>"):
        load_model(tmp_path / "a", "cpu")


def test_a_head_of_another_width_is_refused(own_tiny_backbone, tmp_path):
    vectors = np.eye(4, dtype=np.float32)
    for width, fits in ((32, True), (16, False)):
        head = RetrievalHead.create(width, vectors)
        own = dataclasses.replace(own_tiny_backbone, head=head)
        save_model(tmp_path, own, ModelSpec(base="tiny", method="ret"))
        if fits:
            assert load_model(tmp_path, "cpu")[0].head is not None
        else:
            with pytest.raises(BackboneError, match=r"retrieval\.safetensors: reads 16 numbers a"):
                load_model(tmp_path, "cpu")


def test_control_tokens_may_have_other_names(titles, tiny_backbone, tmp_path):
    save_backbone(tmp_path / "a", tiny_backbone)
    names = ControlNames("<SOI>", "[end]")
    backbone = load_backbone(tmp_path / "a", device="cpu", control=names)
    # One is there already, with its row; the other is added.
    assert backbone.soi_token_id == tiny_backbone.soi_token_id
    assert backbone.eoi_token_id == len(tiny_backbone.tokenizer)
    assert backbone.control == names
    save_model(tmp_path / "b", backbone, ModelSpec(base="tiny"))
    loaded, spec = load_model(tmp_path / "b", "cpu")
    assert spec.control == loaded.control == names
    adapted = lora(load_backbone(tmp_path / "a", device="cpu", control=names))
    train(adapted)
    save_model(tmp_path / "c", adapted, ModelSpec(base=str(tmp_path / "a")))
    again, spec = load_model(tmp_path / "c", "cpu")
    assert again.control == names
    ids = some_ids(backbone)
    assert torch.allclose(
        logits_of(again.model, ids), logits_of(adapted.model, ids), rtol=1e-4, atol=1e-5
    )
    tiny_one = create_tiny(titles, TinyConfig(vocab_size=400, hidden=32, inner=32), names)
    assert tiny_one.control == names
    eos = tiny_backbone.tokenizer.eos_token
    with pytest.raises(TokenizerError, match="is its eos token; name a token"):
        load_backbone(tmp_path / "a", device="cpu", control=ControlNames("<SOI>", eos))
