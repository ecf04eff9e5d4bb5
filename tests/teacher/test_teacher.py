from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import TeacherError
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import SasRec, save_network
from incatalog.teacher.teacher import InProcessTeacher, Teacher, load_teacher


def test_answers_follow_the_scores_of_the_network(
    teacher: InProcessTeacher, network: SasRec
) -> None:
    histories = [[3], [1, 2, 3, 4, 5, 6, 7, 8], [9, 2]]
    found = teacher.top_k(histories, 4)
    for history, rows in zip(histories, found, strict=True):
        with torch.no_grad():
            items = torch.tensor([[row + 1 for row in history[-6:]]])
            scores = network.item_scores(network(items)[0, -1])
        order = [row for row in scores.argsort(descending=True).tolist() if row not in history]
        assert rows.tolist() == order[:4]


def test_short_histories_are_not_padded_to_long_ones(
    teacher: InProcessTeacher, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = [[1], [5, 6, 7, 8], [2], [3, 4], [9, 8, 7, 6, 5], []]
    alone = [teacher.scores([history])[0] for history in histories if history]
    shapes, whole = [], SasRec.last_hidden

    def noted(network: SasRec, items: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(items.shape))
        return whole(network, items)

    monkeypatch.setattr(SasRec, "last_hidden", noted)
    found = teacher.score_block([np.array(history, dtype=np.int64) for history in histories])
    assert sorted(shapes) == [(1, 1), (1, 2), (2, 1), (2, 5)]
    np.testing.assert_allclose(found[:-1], np.stack(alone), atol=1e-6)


def test_long_histories_count_by_their_newest_items(teacher: InProcessTeacher) -> None:
    long = [20, 21, 22, 1, 2, 3, 4, 5, 6]
    scores = teacher.scores([long, long[-6:], long[-5:]])
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-5)
    assert np.abs(scores[1] - scores[2]).max() > 1e-3
    # What the window has dropped is seen all the same.
    assert not set(teacher.top_k([long], 15)[0].tolist()) & set(long)


def test_a_batch_answers_like_single_questions(teacher: InProcessTeacher) -> None:
    rng = np.random.default_rng(1)
    histories = [rng.integers(0, 24, size=length) for length in rng.integers(1, 9, size=50)]
    together = teacher.top_k(histories, 6)
    alone = np.concatenate([teacher.top_k([history], 6) for history in histories])
    np.testing.assert_array_equal(together, alone)


def test_both_teachers_keep_the_protocol(teacher: InProcessTeacher, catalog: Catalog) -> None:
    teachers: list[Teacher] = [teacher, Popularity(np.zeros(24), catalog)]
    for each in teachers:
        assert each.num_items == 24
        assert each.top_k([[1]], 2).dtype == np.int64
        assert each.ranking([[1]], [[2, 3]])[0].shape == (2,)
        assert each.scores([[1]]).shape == (1, 24)
        assert each.temperature == 1.0
        assert np.exp(each.log_probabilities([[1]])).sum() == pytest.approx(1, rel=1e-5)


def test_probabilities_of_a_network_are_those_of_its_temperature(
    network: SasRec, catalog: Catalog
) -> None:
    teacher = InProcessTeacher(network, catalog, temperature=2.5)
    scores = torch.from_numpy(teacher.scores([[1, 2], [3]]))
    expected = torch.log_softmax(scores / 2.5, dim=1).numpy()
    # A network does not count, so there is nothing to leave out.
    for left_out in (None, [[1, 2, 3], [3]]):
        found = teacher.log_probabilities([[1, 2], [3]], left_out=left_out)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_fitted_folder_is_served(network: SasRec, catalog: Catalog, tmp_path: Path) -> None:
    save_network(tmp_path, network, catalog.fingerprint)
    loaded = load_teacher(tmp_path, catalog, "cpu")
    expected = InProcessTeacher(network, catalog).scores([[1, 2]])
    np.testing.assert_array_equal(loaded.scores([[1, 2]]), expected)


def test_another_catalog_is_refused(network: SasRec, catalog: Catalog, tmp_path: Path) -> None:
    save_network(tmp_path, network, catalog.fingerprint)
    swapped = Catalog.from_items(catalog.items[::-1], name="swapped")
    with pytest.raises(TeacherError, match="fitted on another catalog than 'swapped'"):
        load_teacher(tmp_path, swapped)
    with pytest.raises(TeacherError, match="knows 24 items; the catalog 'one' has 1"):
        InProcessTeacher(network, Catalog.from_items([Item("a", "A")], name="one"))
