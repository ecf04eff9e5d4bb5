from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.id_forms import FORMS, agreement


@pytest.mark.parametrize(
    ("used", "ids", "form", "rows"),
    [
        (["1", "2", "2"], ["1", "2", "3"], "exact", 1.0),
        ([" 1", "2 ", "2"], ["1", "2", "3"], "trimmed", 1.0),
        (["a1", "B2"], ["A1 ", "b2"], "folded", 1.0),
        (["0012", "12.0", "7"], ["12", " 7"], "number", 1.0),
        (["0012", "x"], ["12", "7"], "number", 0.5),
        # Zeros tell them apart: what overlooks them is no form.
        (["0012", "12"], ["12", "012"], "exact", 0.5),
        (["x"], ["1"], "exact", 0.0),
    ],
)
def test_the_form_that_overlooks_least_is_taken(used, ids, form, rows) -> None:
    found = agreement(Counter(used), ids)
    assert (found.form, found.rows) == (form, rows)


def test_known_and_covered_are_counted() -> None:
    found = agreement(Counter(["1", "01", "2", "9"]), ["1", "2", "3", "4"])
    assert (found.form, found.known, found.covered, found.rows) == ("number", 3, 0.5, 0.75)


@settings(deadline=None)
@given(st.lists(st.text("0aA .1", min_size=1, max_size=4), unique=True, min_size=1), st.data())
def test_no_two_ids_become_one_and_no_form_finds_more(ids, data) -> None:
    used = Counter(data.draw(st.lists(st.sampled_from([*ids, "zz", "0"]), min_size=1)))
    found = agreement(used, ids)
    plain = FORMS[found.form]
    assert len(set(map(plain, ids))) == len(ids)
    known = {plain(one) for one in ids}
    assert found.rows == sum(n for one, n in used.items() if plain(one) in known) / used.total()
