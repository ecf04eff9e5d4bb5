from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from damage import drop_tensor
from incatalog.data.vector_blocks import TeacherBlock, TextBlock, VectorBlocks
from incatalog.errors import BackboneError, VectorError
from incatalog.model.head import HEAD_FILE, RetrievalHead, vectors_origin


def vectors(items: int, dim: int = 5, seed: int = 0) -> np.ndarray:
    return (3 + 2 * np.random.default_rng(seed).standard_normal((items, dim))).astype(np.float32)


def test_vectors_have_entries_of_mean_0_and_variance_1() -> None:
    given = vectors(40)
    head = RetrievalHead.create(8, given)
    torch.testing.assert_close(head.vectors.mean(0), torch.zeros(5), atol=1e-6, rtol=0)
    assert head.vectors.square().mean().item() == pytest.approx(1)
    # One centre and one scale for all: differences keep their proportions.
    np.testing.assert_allclose(
        (head.vectors[3] - head.vectors[9]).detach() * head.scale, given[3] - given[9], atol=1e-5
    )


def test_score_is_query_times_vector_over_the_root_of_the_width() -> None:
    head = RetrievalHead.create(8, vectors(6))
    states = torch.randn(3, 8)
    projected = states @ head.projection.weight.T + head.projection.bias
    expected = projected @ head.vectors.T / 5**0.5
    torch.testing.assert_close(head(states), expected)
    some = torch.tensor([4, 1])
    torch.testing.assert_close(head.scores(head.query(states), some), expected[:, some])
    half = head(states.to(torch.bfloat16))
    assert half.dtype == torch.float32


def test_centering_does_not_change_the_ranking() -> None:
    given, states = vectors(30), torch.randn(4, 8)
    one, other = RetrievalHead.create(8, given), RetrievalHead.create(8, given + 100)
    assert one(states).argsort(1).tolist() == other(states).argsort(1).tolist()


def test_same_seed_same_projection() -> None:
    one, same, other = (RetrievalHead.create(8, vectors(6), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.projection.weight, same.projection.weight)
    assert not torch.equal(one.projection.weight, other.projection.weight)


def test_an_mlp_asks_by_two_layers_with_gelu_between() -> None:
    head = RetrievalHead.create(8, vectors(6), inner=7)
    states = torch.randn(3, 8)
    first, second = head.projection[0], head.projection[2]
    between = torch.nn.functional.gelu(states @ first.weight.T + first.bias)
    assert between.shape == (3, 7)
    projected = between @ second.weight.T + second.bias
    torch.testing.assert_close(head.query(states), projected / 5**0.5)
    assert head(states.to(torch.bfloat16)).dtype == torch.float32
    assert (head.kind, RetrievalHead.create(8, vectors(6)).kind) == ("mlp", "linear")


@pytest.mark.parametrize("inner", [0, 7])
@pytest.mark.parametrize("trained", [False, True])
def test_saved_head_comes_back(tmp_path: Path, trained: bool, inner: int) -> None:
    head = RetrievalHead.create(8, vectors(6), inner=inner, train_vectors=trained, origin="x.npy")
    assert head.vectors.requires_grad == trained
    head.vectors.data.mul_(2)
    head.save(tmp_path)
    loaded = RetrievalHead.load(tmp_path)
    states = torch.randn(2, 8)
    assert torch.equal(loaded(states), head(states))
    assert loaded.origin == "x.npy"
    assert (loaded.hidden, loaded.inner, loaded.dim) == (8, inner, 5)
    assert loaded.with_vectors(vectors(9)).projection is loaded.projection
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_head_written_under_the_former_name_comes_back(tmp_path: Path) -> None:
    head = RetrievalHead.create(8, vectors(6), origin="x.npy")
    origin = "reclm items embed --source causal --model minilm"
    former = {"reclm": json.dumps({"origin": origin})}
    tensors = {name: tensor.contiguous() for name, tensor in head.state_dict().items()}
    save_file(tensors, tmp_path / HEAD_FILE, metadata=former)
    loaded = RetrievalHead.load(tmp_path)
    assert loaded.origin == "incatalog items embed --encoder causal --model minilm"
    save_file(tensors, tmp_path / HEAD_FILE)
    with pytest.raises(BackboneError, match="not a readable retrieval head"):
        RetrievalHead.load(tmp_path)


def test_blocks_go_with_the_head_and_say_how_to_embed(tmp_path: Path) -> None:
    text = TextBlock("sentence", "minilm", "td", 512, (1.0, 2.0), 3.0)
    blocks = VectorBlocks(text, (TeacherBlock("runs/teacher", "sasrec", "ab", 3),))
    RetrievalHead.create(8, vectors(6), blocks=blocks).save(tmp_path)
    loaded = RetrievalHead.load(tmp_path)
    others = loaded.with_vectors(vectors(9, seed=1)).with_rows([2], vectors(1, seed=2))
    assert loaded.blocks == others.blocks == blocks
    hint = "make them with `incatalog items embed --like MODEL --data DATA --out OUT`"
    with pytest.raises(VectorError, match=f"7 numbers.*{hint}, MODEL being the folder"):
        others.with_vectors(vectors(4, dim=7))
    with pytest.raises(VectorError, match="4 numbers an item; 5 by the description"):
        RetrievalHead.create(8, vectors(6, dim=4), blocks=blocks)


def test_given_vectors_are_neither_centred_nor_scaled() -> None:
    head = RetrievalHead.create(8, vectors(6))
    np.testing.assert_allclose(head.given_vectors(), vectors(6), atol=1e-5)


def test_another_catalog_shares_everything_but_the_vectors() -> None:
    head = RetrievalHead.create(8, vectors(6), origin="movies.emb-bge-m3-t.npy")
    other = head.with_vectors(vectors(9, seed=1))
    assert len(other) == 9
    assert other.projection is head.projection
    expected = (torch.from_numpy(vectors(9, seed=1)) - head.center) / head.scale
    torch.testing.assert_close(other.vectors.data, expected)
    with pytest.raises(VectorError, match=r"7 numbers.*trained with 5.*as those of movies\.emb"):
        head.with_vectors(vectors(4, dim=7))


def test_origin_is_the_command_of_the_run_that_made_the_file(tmp_path: Path) -> None:
    path = tmp_path / "movies.emb-minilm-td.npy"
    assert vectors_origin(path) == path.name
    settings = {
        "source": "text", "encoder": "sentence", "model": "minilm", "wording": "td",
        "max_tokens": 512, "like": "",
    }  # fmt: skip
    manifest = {"stage": "items embed", "config": settings, "results": {"file": path.name}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    flags = "--encoder sentence --model minilm --wording td --max-tokens 512"
    command = f"incatalog items embed {flags}"
    assert vectors_origin(path) == command
    assert vectors_origin(tmp_path / "other.npy") == "other.npy"
    for change in ({"source": "both"}, {"like": "runs/model"}):
        other = {**manifest, "config": {**settings, **change}}
        (tmp_path / "manifest.json").write_text(json.dumps(other), encoding="utf-8")
        assert vectors_origin(path) == path.name
    # As earlier versions wrote it.
    former = {"source": "sentence", "model": "minilm", "wording": "td", "max_tokens": 512}
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "config": former}))
    assert vectors_origin(path) == command
    head = RetrievalHead.create(8, vectors(6), origin=command)
    assert head.how_to_embed() == f"make them with `{command} --data DATA --out OUT`"


@pytest.mark.parametrize("manifest", ["[]", '{"stage": "items embed"}', '{"stage": []}'])
def test_origin_is_the_file_where_the_manifest_says_nothing(tmp_path: Path, manifest: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    assert vectors_origin(tmp_path / "films.npy") == "films.npy"


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VectorError, match="all 4 are the same"):
        RetrievalHead.create(8, np.ones((4, 3), dtype=np.float32))
    with pytest.raises(BackboneError, match="no such file"):
        RetrievalHead.load(tmp_path)
    (tmp_path / HEAD_FILE).write_bytes(b"x" * 100)
    with pytest.raises(BackboneError, match="not a readable retrieval head"):
        RetrievalHead.load(tmp_path)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, 1e30, -2e12])
def test_vectors_that_no_score_can_be_made_of_are_refused(tmp_path: Path, wrong: float) -> None:
    given = vectors(6)
    head = RetrievalHead.create(8, given)
    broken = given.copy()
    broken[3, 1] = wrong
    for use in (
        lambda: RetrievalHead.create(8, broken),
        lambda: head.with_vectors(broken),
        lambda: head.with_rows([6, 7, 8, 9, 10, 11], broken),
    ):
        with pytest.raises(VectorError, match=r"^item vectors: row 3 holds .*; expected numbers"):
            use()
    head.vectors.data[3, 1] = wrong
    head.save(tmp_path)
    with pytest.raises(BackboneError, match="a vector holds NaN, infinity or a number beyond"):
        RetrievalHead.load(tmp_path)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    for part in ("projection.bias", "center", "vectors"):
        RetrievalHead.create(8, vectors).save(tmp_path)
        drop_tensor(tmp_path / HEAD_FILE, part)
        with pytest.raises(BackboneError, match=f"not a readable retrieval head .*{part}"):
            RetrievalHead.load(tmp_path)
