from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from damage import drop_tensor
from incatalog.errors import TeacherError
from incatalog.teacher.sasrec import (
    TEACHER_FILE,
    WEIGHTS_FILE,
    SasRec,
    SasRecSizes,
    load_network,
    save_network,
)


def test_pads_on_the_left_and_keeps_the_newest(network: SasRec) -> None:
    batch = network.pad([np.array([3]), np.arange(10), np.array([], dtype=np.int64)])
    assert batch.tolist() == [[0, 0, 0, 0, 0, 4], [5, 6, 7, 8, 9, 10], [0] * 6]


def test_padding_changes_nothing(network: SasRec) -> None:
    history = np.array([5, 2, 9])
    alone = network.last_hidden(network.pad([history]))
    beside = network.last_hidden(network.pad([np.arange(6), history]))
    torch.testing.assert_close(beside[1:], alone, atol=1e-5, rtol=1e-5)


def test_later_items_do_not_reach_back(network: SasRec) -> None:
    items = network.pad([np.array([1, 2, 3, 4, 5, 6]), np.array([1, 2, 3, 9, 9, 9])])
    first, second = network(items)
    torch.testing.assert_close(first[:3], second[:3])
    assert not torch.allclose(first[3:], second[3:])


def test_the_newest_item_alone_has_the_state_it_has_among_all(network: SasRec) -> None:
    items = network.pad([np.array([4]), np.array([1, 2, 3, 4, 5, 6]), np.arange(3)])
    torch.testing.assert_close(network.last_hidden(items), network(items)[:, -1])


def test_the_order_of_items_matters(network: SasRec) -> None:
    hidden = network.last_hidden(network.pad([np.array([1, 2, 3]), np.array([2, 1, 3])]))
    assert not torch.allclose(hidden[0], hidden[1])


def test_blocks_equal_torch_post_norm_encoder(network: SasRec, sizes: SasRecSizes) -> None:
    layer = nn.TransformerEncoderLayer(
        sizes.hidden,
        sizes.heads,
        sizes.inner,
        dropout=0.0,
        activation="gelu",
        batch_first=True,
        layer_norm_eps=1e-12,
    )
    block = network.blocks[0]
    attention = block.attention
    projections = [attention.query, attention.key, attention.value]
    layer.load_state_dict(
        {
            "self_attn.in_proj_weight": torch.cat([p.weight for p in projections]),
            "self_attn.in_proj_bias": torch.cat([p.bias for p in projections]),
            "self_attn.out_proj.weight": attention.dense.weight,
            "self_attn.out_proj.bias": attention.dense.bias,
            "norm1.weight": attention.norm.weight,
            "norm1.bias": attention.norm.bias,
            "linear1.weight": block.feed_forward.dense_1.weight,
            "linear1.bias": block.feed_forward.dense_1.bias,
            "linear2.weight": block.feed_forward.dense_2.weight,
            "linear2.bias": block.feed_forward.dense_2.bias,
            "norm2.weight": block.feed_forward.norm.weight,
            "norm2.bias": block.feed_forward.norm.bias,
        }
    )
    hidden = torch.randn(2, 5, sizes.hidden, generator=torch.Generator().manual_seed(0))
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    torch.testing.assert_close(
        block(hidden, causal[None, None], 5),
        layer.train()(hidden, src_mask=~causal),
        atol=1e-5,
        rtol=1e-5,
    )


def test_scores_are_products_with_item_embeddings(network: SasRec) -> None:
    hidden = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    scores = network.item_scores(hidden)
    assert scores.shape == (3, 24)
    expected = (hidden[2] * network.item_embedding.weight[8]).sum()
    torch.testing.assert_close(scores[2, 7], expected)


def test_heads_divide_the_width(sizes: SasRecSizes) -> None:
    with pytest.raises(TeacherError, match=r"hidden: found 16.*heads \(3\)"):
        SasRec(SasRecSizes(**(vars(sizes) | {"heads": 3})))


def test_saved_weights_come_back(network: SasRec, tmp_path: Path) -> None:
    save_network(tmp_path, network, "print")
    loaded, fingerprint = load_network(tmp_path)
    assert fingerprint == "print"
    assert loaded.sizes == network.sizes
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name].cpu(), value), name


def _edit(folder: Path, **changes: object) -> None:
    path = folder / TEACHER_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_runs_of_before_activation_and_norm_eps_load(network: SasRec, tmp_path: Path) -> None:
    save_network(tmp_path, network, "print")
    old = {k: v for k, v in vars(network.sizes).items() if k not in ("activation", "norm_eps")}
    _edit(tmp_path, sizes=old)
    assert load_network(tmp_path)[0].sizes == network.sizes


def test_an_unknown_activation_is_named(sizes: SasRecSizes) -> None:
    with pytest.raises(TeacherError, match=r"activation: found 'elu'; expected one of gelu"):
        SasRec(SasRecSizes(**(vars(sizes) | {"activation": "elu"})))


def test_damage_is_named(network: SasRec, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match=r"holds no teacher\.json"):
        load_network(tmp_path)

    save_network(tmp_path, network, "print")
    weights = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(weights[:-100])
    with pytest.raises(TeacherError, match="damaged teacher"):
        load_network(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(TeacherError, match="damaged teacher"):
        load_network(tmp_path)

    save_network(tmp_path, network, "print")
    _edit(tmp_path, sizes={"num_items": 3})
    with pytest.raises(TeacherError, match="damaged teacher"):
        load_network(tmp_path)
    _edit(tmp_path, sizes=vars(network.sizes) | {"hidden": 32})
    with pytest.raises(TeacherError, match="damaged teacher"):
        load_network(tmp_path)
    _edit(tmp_path, kind="other")
    with pytest.raises(TeacherError, match="kind 'other'; expected 'sasrec'"):
        load_network(tmp_path)
    (tmp_path / TEACHER_FILE).write_text("{")
    with pytest.raises(TeacherError, match=r"teacher\.json:1: not valid JSON"):
        load_network(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("heads", 0), ("num_items", -1), ("hidden", "16")])
def test_sizes_that_cannot_be_are_one_line(
    network: SasRec, tmp_path: Path, name: str, value: object
) -> None:
    save_network(tmp_path, network, "print")
    _edit(tmp_path, sizes=vars(network.sizes) | {name: value})
    with pytest.raises(TeacherError, match="damaged teacher") as caught:
        load_network(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_tensor_is_named(network: SasRec, tmp_path: Path) -> None:
    save_network(tmp_path, network, "print")
    name = drop_tensor(tmp_path / WEIGHTS_FILE, "position")
    with pytest.raises(TeacherError, match=f'damaged teacher .*Missing key.*"{name}"'):
        load_network(tmp_path)


def test_weights_that_are_not_finite_are_refused(network: SasRec, tmp_path: Path) -> None:
    save_network(tmp_path, network, "print")
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["item_embedding.weight"][4, 2] = float("nan")
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(TeacherError, match="not finite"):
        load_network(tmp_path)
