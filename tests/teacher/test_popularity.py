from __future__ import annotations

import numpy as np
import pytest

from incatalog.data.catalog import Catalog
from incatalog.errors import TeacherError
from incatalog.teacher.popularity import Popularity


def test_counts_every_occurrence(catalog: Catalog) -> None:
    histories = [np.array([4, 7, 7]), np.array([], dtype=np.int32), np.array([7, 2])]
    popularity = Popularity.from_histories(histories, catalog)
    assert popularity.top_k([[]], 4).tolist() == [[7, 2, 4, 0]]
    scores = popularity.scores([[1], [2]])
    assert scores.dtype == np.float32
    assert scores[:, [7, 2, 4, 0]] == pytest.approx(np.log([[4, 2, 2, 1]] * 2))


def test_a_row_outside_the_catalog_is_named(catalog: Catalog) -> None:
    with pytest.raises(TeacherError, match="history 1: row 24 not in the catalog"):
        Popularity.from_histories([np.array([0]), np.array([24])], catalog)


def test_one_count_for_each_item(catalog: Catalog) -> None:
    with pytest.raises(TeacherError, match="counts: found 3; expected 24"):
        Popularity(np.array([1, 2, 3]), catalog)
