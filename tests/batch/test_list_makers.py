from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from incatalog.batch.list_makers import ListMaker, known_items, open_lists
from incatalog.batch.settings import BatchSettings
from incatalog.batch.user_table import UserRow
from incatalog.data.catalog import Catalog
from incatalog.data.where import EVERYTHING, Where
from incatalog.recommender.recommender import Recommender
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import SasRec, SasRecSizes, save_network
from incatalog.teacher.teacher_folder import save_teacher

FREE = {"exclude": [], "categories": [], "where": EVERYTHING}


def maker(
    model: Path, kind: str, catalog: Catalog, **flags: object
) -> tuple[ListMaker, BatchSettings]:
    settings = BatchSettings(
        model=str(model), histories=Path("h"), out=Path("o"), device="cpu", **flags
    )
    return open_lists(settings, kind, catalog, FREE), settings


def test_unknown_items_are_left_out_wherever_they_stand(films: Catalog) -> None:
    user = UserRow("u", ["i1", "x", "i2"], ["y", "i3"], {"i4": 2.0, "x": 3.0})
    known, unknown = known_items(user, films)
    assert known == UserRow("u", ["i1", "i2"], ["i3"], {"i4": 2.0})
    assert unknown == ["x", "y", "x"]


@pytest.mark.parametrize("decode", ["beam", "list"])
def test_lists_of_a_model_are_those_of_one_request_each(
    model: Path, films: Catalog, decode: str
) -> None:
    users = [
        UserRow(1, ["i1", "i2"]),
        UserRow(2, []),
        UserRow(3, ["i5"], ["i0", "i7"]),
        UserRow(4, ["i5"], [], {"i9": 50.0, "i8": 0.01}),
        UserRow(5, [], [f"i{row}" for row in range(48)], {"i48": 3.0}),
        UserRow(6, [], [f"i{row}" for row in range(50)]),
    ]
    made, _ = maker(model, "trained", films, k=4, decode=decode, batch_size=2)
    found = made.lists(users)
    one_by_one = Recommender.from_pretrained(model, device="cpu")
    for user, own in zip(users[:-1], found, strict=False):
        asked = {"exclude": user.exclude, "boost": user.boost, "decode": decode}
        expected = one_by_one.recommend(user.history, k=4, **asked)
        assert [one.item_id for one in own] == [one.item_id for one in expected]
        assert [one.score for one in own] == pytest.approx(
            [one.score for one in expected], rel=1e-4
        )
    assert list(map(len, found)) == [4, 4, 4, 4, 2, 0]


def test_a_teacher_counts_by_hand(tmp_path: Path, films: Catalog) -> None:
    counts = [0] * 45 + [9, 8, 7, 6, 5]
    save_teacher(tmp_path, Popularity(counts, films), films)
    made, _ = maker(tmp_path, "teacher", films, k=3)
    users = [
        UserRow(1, []),
        UserRow(2, ["i45", "i0"]),
        UserRow(3, [], ["i46"]),
        UserRow(4, [], ["i45"], {"i49": 2.0, "i0": 7.0}),
    ]
    found = made.lists(users)
    assert [[one.item_id for one in own] for own in found] == [
        ["i45", "i46", "i47"],
        ["i46", "i47", "i48"],
        ["i45", "i47", "i48"],
        # Its scores are those of counts and one: 10 is excluded, then twice 6, 9 and 8.
        ["i49", "i46", "i47"],
    ]
    total = sum(counts) + len(films)
    scores = [one.score for own in found for one in own]
    expected = [10, 9, 8, 9, 8, 7, 10, 8, 7, 12, 9, 8]
    assert scores == pytest.approx([n / total for n in expected], rel=1e-5)


def test_a_teacher_that_needs_a_history_says_nothing_without(
    tmp_path: Path, films: Catalog
) -> None:
    sizes = SasRecSizes(
        num_items=len(films), max_length=9, hidden=16, inner=16, layers=1, heads=1, dropout=0.0
    )
    torch.manual_seed(0)
    save_network(tmp_path, SasRec(sizes), films.fingerprint)
    made, settings = maker(tmp_path, "teacher", films, k=5)
    first, none, last = made.lists([UserRow(1, ["i3"]), UserRow(2, []), UserRow(3, ["i4", "i3"])])
    assert none == []
    assert [len({one.item_id for one in own} - {"i3"}) for own in (first, last)] == [5, 5]
    assert all(0 < one.score < 1 and math.isfinite(one.score) for one in first + last)
    held = open_lists(settings, "teacher", films, FREE | {"where": Where.from_flags(("id=i3,i4",))})
    assert [one.item_id for one in held.lists([UserRow(1, ["i3"])])[0]] == ["i4"]
