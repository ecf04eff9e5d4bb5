from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

from damage import edit_tensors
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories, LeaveOneOut, leave_one_out
from incatalog.embedding.teacher_vectors import (
    reduced,
    reduced_words,
    taught_vectors,
    trained_items,
)
from incatalog.errors import TeacherError, VectorError
from incatalog.teacher.blend import BlendPart, BlendTeacher
from incatalog.teacher.counted import training_counts
from incatalog.teacher.ease import Ease, EaseOptions, gram_matrix
from incatalog.teacher.knn import ItemKnn, KnnOptions
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import WEIGHTS_FILE, load_network
from incatalog.teacher.teacher import load_teacher
from incatalog.teacher.teacher_folder import PARTS, copy_teacher, numbers_checksum, save_teacher
from incatalog.teacher.words import WordsTeacher


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
@given(st.integers(2, 11), st.integers(1, 14), st.integers(0, 99))
def test_reduction_is_the_truncated_svd(items: int, dim: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.random((items, items)) * (random.random((items, items)) < 0.3)
    matrix[0, 0] = 1.0
    vectors, led_to = reduced(sparse.csr_array(matrix), dim, seed)
    assert vectors.shape == (items, min(dim, items))
    assert led_to.tolist() == (matrix.sum(axis=0) > 0).tolist()
    _, values, rows = np.linalg.svd(matrix)
    assume(dim >= items or values[dim - 1] - values[dim] > 1e-3)
    # Products of items do not depend on the signs and turns of a decomposition.
    expected = rows[:dim].T @ np.diag(values[:dim]) @ rows[:dim]
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-3)


def test_a_large_matrix_is_reduced_to_what_is_strong_in_it() -> None:
    random = np.random.default_rng(0)
    strong = random.normal(size=(400, 6)) @ random.normal(size=(6, 400))
    vectors, _ = reduced(strong + 0.01 * random.normal(size=strong.shape), 6, 0)
    _, values, rows = np.linalg.svd(strong)
    expected = rows[:6].T @ np.diag(values[:6]) @ rows[:6]
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=0.1)


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


def test_embeddings_that_are_all_alike_are_refused(taken: Path, network: Path) -> None:
    catalog, histories = read(taken)
    edit_tensors(
        network / WEIGHTS_FILE, lambda tensors: tensors["item_embedding.weight"].fill_(0.5)
    )
    with pytest.raises(VectorError, match=r"--teacher .*: the vectors of its sasrec are all alike"):
        taught_vectors([str(network)], catalog, leave_one_out(histories), svd_dim=4, seed=0)


def lists_of(split: LeaveOneOut) -> list[np.ndarray]:
    return [split.train(user) for user in range(len(split))]


def test_similarities_are_reduced_centred_and_scaled(taken: Path, tmp_path: Path) -> None:
    catalog, histories = read(taken)
    split = leave_one_out(histories)
    knn = ItemKnn.from_histories(lists_of(split), catalog)
    ease = Ease.from_histories(lists_of(split), catalog, EaseOptions(regularisation=2.0))
    runs = []
    for teacher in (knn, ease):
        runs.append(str(tmp_path / teacher.kind))
        save_teacher(runs[-1], teacher, catalog)
    found = taught_vectors(runs, catalog, split, svd_dim=64, seed=0)
    known = trained_items(split, len(catalog))
    # What a history adds to a score is a row of the matrix.
    gram = gram_matrix(lists_of(split), len(catalog), 0).toarray()
    inverse = np.linalg.inv(gram + 2 * np.eye(50))
    ridge = -inverse / np.diag(inverse)
    np.fill_diagonal(ridge, 0)
    np.testing.assert_allclose(ease.similarity, ridge, atol=1e-5)
    for taught, matrix in zip(found, (knn.similarity.toarray(), ridge), strict=True):
        _, values, rows = np.linalg.svd(matrix)
        vectors = rows.T * np.sqrt(values)
        moved = vectors - vectors[known].mean(axis=0)
        moved /= np.linalg.norm(moved[known], axis=1).mean()
        moved[~known] = 0
        np.testing.assert_allclose(taught.vectors @ taught.vectors.T, moved @ moved.T, atol=1e-3)
        assert not taught.vectors[~known].any()
    assert [taught.block.kind for taught in found] == ["knn", "ease"]


def test_an_item_that_stands_beside_no_other_is_unknown(taken: Path, tmp_path: Path) -> None:
    catalog, histories = read(taken)
    split = leave_one_out(histories)
    lists = [rows[rows != rows[0]] for rows in lists_of(split)[:1]]
    save_teacher(tmp_path / "knn", ItemKnn.from_histories(lists, catalog), catalog)
    (found,) = taught_vectors([str(tmp_path / "knn")], catalog, split, svd_dim=4, seed=0)
    assert set(np.flatnonzero(found.vectors.any(axis=1))) == set(lists[0].tolist())


def test_a_blend_gives_the_vectors_of_its_parts(taken: Path, network: Path, tmp_path: Path) -> None:
    catalog, histories = read(taken)
    split = leave_one_out(histories)
    knn = ItemKnn.from_histories(lists_of(split), catalog)
    counts = training_counts(lists_of(split), len(catalog))
    others = {"knn": knn, "popularity": Popularity(counts, catalog)}
    for name, teacher in others.items():
        save_teacher(tmp_path / name, teacher, catalog)
    blend, parts = tmp_path / "blend", []
    for name, folder in (
        ("0-knn", tmp_path / "knn"),
        ("1-popularity", tmp_path / "popularity"),
        ("2-sasrec", network),
    ):
        copy_teacher(folder, blend / PARTS / name)
        part = load_teacher(folder, catalog, "cpu")
        parts.append(BlendPart(part, 1.0, 1.0, name, numbers_checksum(folder)))
    save_teacher(blend, BlendTeacher(catalog, counts, parts), catalog)
    found = taught_vectors([str(blend)], catalog, split, svd_dim=4, seed=0)
    alone = taught_vectors([str(tmp_path / "knn"), str(network)], catalog, split, svd_dim=4, seed=0)
    assert [one.block.kind for one in found] == ["knn", "sasrec"]
    for one, other in zip(found, alone, strict=True):
        assert np.array_equal(one.vectors, other.vectors)
        assert one.block.fingerprint == other.block.fingerprint
    said = r"--teacher .*popularity: a popularity without item vectors; expected a sasrec"
    with pytest.raises(TeacherError, match=said):
        taught_vectors([str(tmp_path / "popularity")], catalog, split, svd_dim=4, seed=0)


def test_numbers_beyond_float32_are_refused(taken: Path, tmp_path: Path) -> None:
    catalog, histories = read(taken)
    split = leave_one_out(histories)
    counts = training_counts(lists_of(split), len(catalog))
    pairs = sparse.csr_array(np.full((50, 50), 1e280))
    save_teacher(tmp_path / "knn", ItemKnn(catalog, counts, pairs, KnnOptions()), catalog)
    with pytest.raises(VectorError, match=r"the vectors of its knn hold NaN, infinity or numbers"):
        taught_vectors([str(tmp_path / "knn")], catalog, split, svd_dim=4, seed=0)


def test_words_are_reduced_for_items_that_nobody_took_too(taken: Path, tmp_path: Path) -> None:
    catalog, histories = read(taken)
    split = leave_one_out(histories)
    trained = map(split.train, range(len(split)))
    words = WordsTeacher.from_catalog(catalog, training_counts(trained, len(catalog)))
    save_teacher(tmp_path / "words", words, catalog)
    dense = words.described.toarray()
    # With all dimensions the products of the vectors are those of the words.
    whole = reduced_words(words.described, 10_000, seed=0)
    np.testing.assert_allclose(whole @ whole.T, dense @ dense.T, atol=1e-5)
    (found,) = taught_vectors([str(tmp_path / "words")], catalog, split, svd_dim=6, seed=0)
    assert found.block.kind == "words"
    assert found.vectors.shape == (len(catalog), 6)
    # Centred over all items, also those without an interaction.
    assert not trained_items(split, len(catalog)).all()
    known = dense.any(axis=1)
    np.testing.assert_allclose(found.vectors[known].mean(axis=0), 0, atol=1e-6)
    assert np.linalg.norm(found.vectors[known], axis=1).mean() == pytest.approx(1, abs=1e-5)
    assert not found.vectors[~known].any()
