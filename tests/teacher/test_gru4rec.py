from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from incatalog.artifacts import read_json
from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.fit import fit_teacher, full_softmax_loss
from incatalog.teacher.gru4rec import Gru4Rec
from incatalog.teacher.sasrec import SasRecSizes, load_network
from incatalog.teacher.settings import TeacherFitSettings
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_validation import VALIDATION_FILE


def network(layers: int = 1) -> Gru4Rec:
    torch.manual_seed(0)
    sizes = SasRecSizes(
        num_items=9, max_length=6, hidden=4, inner=8, layers=layers, heads=3, dropout=0.0
    )
    return Gru4Rec(sizes).double().eval()


def by_hand(net: Gru4Rec, rows: list[int]) -> np.ndarray:
    """States after each item, by the equations of a gated recurrent unit."""
    weights = {name: weight.detach().numpy() for name, weight in net.named_parameters()}
    state, found = np.zeros(4), []
    for row in rows:
        item = weights["item_embedding.weight"][row + 1]
        given = weights["gru.weight_ih_l0"] @ item + weights["gru.bias_ih_l0"]
        kept = weights["gru.weight_hh_l0"] @ state + weights["gru.bias_hh_l0"]
        reset, update = (
            1 / (1 + np.exp(-(given + kept)[part])) for part in (slice(4), slice(4, 8))
        )
        new = np.tanh(given[8:] + reset * kept[8:])
        state = (1 - update) * new + update * state
        found.append(weights["dense.weight"] @ state + weights["dense.bias"])
    return np.array(found)


def test_states_are_those_of_a_recurrent_unit_whatever_pads_them() -> None:
    net, histories = network(), [[3, 1, 4, 1], [5], [2, 7], []]
    padded = net.pad([np.array(rows, dtype=np.int64) for rows in histories])
    with torch.no_grad():
        states = net(padded).numpy()
        last = net.last_hidden(padded).numpy()
    for line, own, rows in zip(states, last, histories, strict=True):
        if rows:
            expected = by_hand(net, rows)
            np.testing.assert_allclose(line[-len(rows) :], expected, atol=1e-12)
            np.testing.assert_allclose(own, expected[-1], atol=1e-12)


def test_no_state_knows_what_follows() -> None:
    net = network(layers=2)
    items = torch.tensor([[0, 4, 2, 7], [1, 2, 3, 4]])
    changed = items.clone()
    changed[:, 3] = 9
    with torch.no_grad():
        before, after = net(items), net(changed)
    # The first place of the first line is padding.
    known = (items != 0) & (torch.arange(4) < 3)
    assert torch.equal(before[known], after[known])
    assert (before[:, 3] != after[:, 3]).any(1).all()


def test_padding_gets_no_gradient() -> None:
    net = network()
    items = torch.tensor([[0, 0, 2], [1, 2, 3]])
    targets = torch.tensor([[0, 0, 5], [2, 3, 4]])
    loss = full_softmax_loss(net, items, targets)
    with torch.no_grad():
        states = np.concatenate([by_hand(net, [1]), by_hand(net, [0, 1, 2])])
        logits = torch.from_numpy(states) @ net.item_embedding.weight[1:].T
    wanted = torch.tensor([4, 1, 2, 3])
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, wanted).item())
    assert net.item_embedding.weight.grad is not None
    assert not net.item_embedding.weight.grad[0].any()


def test_a_fit_learns_the_walk(walks: Path, catalog: Catalog, tmp_path: Path) -> None:
    settings = TeacherFitSettings(
        data=walks, out=tmp_path / "run", kind="gru4rec", max_length=8, hidden=16, layers=1,
        heads=3, dropout=0.1, batch_size=16, learning_rate=1e-2, device="cpu", epochs=40,
    )  # fmt: skip
    out = fit_teacher(settings)
    teacher = load_teacher(out, catalog, "cpu")
    assert teacher.kind == "gru4rec"
    assert read_json(out / VALIDATION_FILE)["method"] == "gru4rec"
    found = teacher.top_k([[row, row + 1, row + 2] for row in range(20)], 1)
    assert (found[:, 0] == np.arange(20) + 3).mean() >= 0.9
    # An answer depends on its own question alone.
    alone = teacher.scores([[4]])
    assert np.array_equal(alone, teacher.scores([[1, 2, 3, 4, 5], [4]])[1:])
    with pytest.raises(TeacherError, match="kind 'gru4rec'; expected 'sasrec'"):
        load_network(out, "cpu")
