from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from damage import edit_tensors
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, leave_one_out
from incatalog.embedding.teacher_vectors import reduced, taught_vectors, trained_items
from incatalog.errors import TeacherError, VectorError
from incatalog.teacher.sasrec import WEIGHTS_FILE, load_network


def read(data: Path) -> tuple[Catalog, Histories]:
    catalog = Catalog.load(data)
    return catalog, Histories.load(data, catalog)


def test_items_with_trainings_are_those_of_training_parts() -> None:
    # The last two of each history are held out.
    split = leave_one_out(Histories.from_lists(["u", "v"], [[0, 1, 2, 3], [1, 5, 4]]))
    assert np.flatnonzero(trained_items(split, 7)).tolist() == [0, 1]


def test_embeddings_of_a_network_are_centred_and_scaled(taken: Path, network: Path) -> None:
    catalog, histories = read(taken)
    split = leave_one_out(histories)
    (found,) = taught_vectors([str(network)], catalog, split, svd_dim=4, seed=0)
    known = trained_items(split, len(catalog))
    assert 0 < (~known).sum() < len(catalog) / 2
    given_ = load_network(network, "cpu")[0].item_embedding.weight[1:].detach().numpy()
    moved = given_ - given_[known].mean(axis=0)
    expected = moved / np.linalg.norm(moved[known], axis=1).mean()
    np.testing.assert_allclose(found.vectors[known], expected[known], atol=1e-5)
    assert not found.vectors[~known].any()
    assert (found.block.kind, found.block.width) == ("sasrec", 8)
    assert len(found.block.fingerprint) == 64


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 30), st.integers(1, 34), st.integers(0, 99))
def test_reduction_is_the_truncated_svd(items: int, dim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.random((items, items)) * (random.random((items, items)) < 0.3)
    matrix[0, 0] = 1.0
    vectors, led_to = reduced(sparse.csr_array(matrix), dim, seed)
    assert vectors.shape == (items, min(dim, items))
    assert led_to.tolist() == (matrix.sum(axis=0) > 0).tolist()
    # Products of items do not depend on the signs and turns of a decomposition.
    _, values, rows = np.linalg.svd(matrix)
    values[dim:] = 0
    gap = values[min(dim, items) - 1] - (values[dim] if dim < items else 0)
    if gap > 1e-6 or dim >= items:
        expected = rows.T @ np.diag(values) @ rows
        np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-3)


def test_the_same_seed_gives_the_same_vectors() -> None:
    matrix = sparse.random_array((300, 300), density=0.05, rng=np.random.default_rng(0)).tocsr()
    first, second = reduced(matrix, 8, 1)[0], reduced(matrix, 8, 1)[0]
    assert first.tobytes() == second.tobytes()


def test_a_teacher_of_another_catalog_is_refused(taken: Path, network: Path) -> None:
    catalog, histories = read(taken)
    items = [Item("other", "Other"), *catalog.items[1:]]
    other = Catalog.from_items(items, "others")
    with pytest.raises(TeacherError, match=r"^--teacher: .* another catalog than 'others'"):
        taught_vectors([str(network)], other, leave_one_out(histories), svd_dim=4, seed=0)


def test_what_is_no_teacher_is_refused(taken: Path, tmp_path: Path) -> None:
    catalog, histories = read(taken)
    with pytest.raises(TeacherError, match=r"^--teacher: .*holds no teacher\.json"):
        taught_vectors([str(tmp_path)], catalog, leave_one_out(histories), svd_dim=4, seed=0)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "the vectors of its sasrec are all alike"), (3e38, "are not finite")],
)
def test_vectors_that_say_nothing_are_refused(
    taken: Path, network: Path, value: float, said: str
) -> None:
    catalog, histories = read(taken)

    def change(tensors: dict) -> None:  # type: ignore[type-arg]
        tensors["item_embedding.weight"][:] = value
        if value > 1:
            tensors["item_embedding.weight"][::2] = -value

    edit_tensors(network / WEIGHTS_FILE, change)
    with pytest.raises(VectorError, match=rf"--teacher .*: {said}"):
        taught_vectors([str(network)], catalog, leave_one_out(histories), svd_dim=4, seed=0)
