from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import CATEGORIES, METAS, Catalog, Item
from incatalog.data.check import CheckReport, check
from incatalog.data.interactions import SEQUENCES, Histories, leave_one_out
from incatalog.data.settings import CheckSettings
from incatalog.errors import DataError, IncatalogError
from incatalog.items.titles import canonical_titles

GOOD = '{"a": {"title": "A"}, "b": {"title": "B"}, "c": {"title": "B"}, "d": {"title": "D"}}'


def report(folder: Path, metas: str, categories: str | None, sequences: str) -> CheckReport:
    (folder / METAS).write_text(metas)
    if categories is not None:
        (folder / CATEGORIES).write_text(categories)
    (folder / SEQUENCES).write_text(sequences)
    return check(CheckSettings(folder))


def test_counts_by_hand(tmp_path, capsys) -> None:
    sequences = '{"u": ["a", "b", "a"], "v": ["c", "b", "a", "c", "c"]}'
    found = report(tmp_path, GOOD, '{"x": ["a", "b"], "y": ["a"]}', sequences)
    assert found == CheckReport(
        folder=tmp_path,
        users=2,
        items=4,
        interactions=8,
        shortest=3,
        median=4.0,
        longest=5,
        categories=2,
        duplicate_titles=2,
        without_category=2,
        without_interactions=1,
        repeats=3,
        problems=(),
    )
    assert found.trainable
    assert "can be trained on" in capsys.readouterr().out


def test_all_problems_in_one_call(tmp_path, capsys) -> None:
    metas = (
        '{"a": {"title": "A"},\n"b": {"title": ""},\n"a": {"title": "A"},\n'
        '"c": {"title": "C", "description": 3}}'
    )
    categories = '{"x": ["a", "zz"],\n"x": ["a"],\n"y": "a"}'
    sequences = (
        '{"u": ["a", "b", "q"],\n"v": ["a", "b"],\n"u": ["a", "a", "a"],\n'
        '"w": 3,\n"x": [],\n"y": ["a"],\n"z": ["a"]}'
    )
    found = report(tmp_path, metas, categories, sequences)
    assert not found.trainable
    counts = {problem.what: problem.count for problem in found.problems}
    assert counts == {
        "repeated item": 1,
        "items without title": 1,
        "items with an unusable field": 1,
        "unknown items in categories": 1,
        "repeated category": 1,
        "categories that are no list of item ids": 1,
        "unknown items in histories": 1,
        "users with fewer than 3 items": 4,
        "repeated user": 1,
        "histories that are no list of item ids": 1,
    }
    examples = {problem.what: problem.examples for problem in found.problems}
    assert examples["repeated item"] == (f"{tmp_path / METAS}:3: 'a', first on 1",)
    assert examples["unknown items in histories"] == (f"{tmp_path / SEQUENCES}:1: 'q' of user 'u'",)
    assert len(examples["users with fewer than 3 items"]) == 3
    assert "cannot be trained on" in capsys.readouterr().out


def test_empty_documents_are_problems(tmp_path) -> None:
    found = report(tmp_path, "{}", "{}", "{}")
    assert [problem.what for problem in found.problems] == ["no item at all", "no user at all"]
    assert (found.shortest, found.median, found.longest) == (0, 0.0, 0)


def test_files_that_cannot_be_read(tmp_path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        check(CheckSettings(tmp_path / "none"))
    with pytest.raises(DataError, match=r"metas\.jsonl: no such file"):
        check(CheckSettings(tmp_path))
    with pytest.raises(DataError, match=r"sequential\.jsonl:2: not valid JSON"):
        report(tmp_path, GOOD, None, '{"u":\n [')


def test_real_data(shared_data) -> None:
    office = check(CheckSettings(shared_data / "office"))
    assert office.trainable
    assert (office.users, office.items, office.interactions) == (3231, 3459, 22447)
    games = check(CheckSettings(shared_data / "games"))
    assert games.trainable
    assert (games.shortest, games.longest, games.without_category) == (5, 50, 16859)


USERS = '{"u": ["a", "b", "c"]}'


@pytest.mark.parametrize(
    "title", ["\\u200b", "\\u0000", " \\ufeff ", "&#8203;", "&nbsp;", "\\u2060"]
)
def test_titles_that_training_refuses_are_problems(tmp_path, chat_tokenizers, title) -> None:
    metas = f'{{"a": {{"title": "{title}"}}, "b": {{"title": "B"}}, "c": {{"title": "C"}}}}'
    found = report(tmp_path, metas, None, USERS)
    assert [problem.what for problem in found.problems] == ["items without title"]
    # The same rule as that of the titles a model writes.
    catalog = Catalog.from_items([Item("a", json.loads(f'"{title}"')), Item("b", "B")])
    with pytest.raises(DataError, match=r"item 'a': title .* is empty once cleaned"):
        canonical_titles(catalog, chat_tokenizers["chatml"])


def test_items_that_share_a_title_once_cleaned_are_counted(tmp_path) -> None:
    metas = '{"a": {"title": "R&amp;B"}, "b": {"title": "R&B"}, "c": {"title": "R & B"}}'
    assert report(tmp_path, metas, None, USERS).duplicate_titles == 2


def test_fields_that_are_no_text_are_problems(tmp_path) -> None:
    metas = '{"a": {"title": true}, "b": {"title": "B", "description": {}}, "c\\n": {"title": "C"}}'
    found = report(tmp_path, metas, '{"\\udc00": ["b"]}', '{"u\\ud800": ["b", "b", "b"]}')
    assert {problem.what: problem.count for problem in found.problems} == {
        "items with an unusable field": 3,
        "categories that are no list of item ids": 1,
        "histories that are no list of item ids": 1,
    }
    assert all(" expected " in e for problem in found.problems for e in problem.examples)


VALUES = st.sampled_from(
    [None, float("nan"), True, 0, 1.5, "", " ", "nan", "\u200b", "\0", "&#8203;", "\ud83d", "a\nb",
     [], ["x"], [None], ["a", {}], {}, {"a": 1}, "Title", "Title"]
)  # fmt: skip
IDS = st.sampled_from(["a", "b", "c", "", "d\r", "\udc00", 1, None, True])


@given(
    st.dictionaries(
        st.sampled_from(["a", "b", "c", "", "d\r", "\udc00"]),
        st.fixed_dictionaries({}, optional=dict.fromkeys(["title", "name", "description"], VALUES)),
    ),
    st.dictionaries(st.sampled_from(["x", "\ud800"]), st.lists(IDS, max_size=3) | VALUES),
    st.dictionaries(st.sampled_from(["u", "\ud800"]), st.lists(IDS, min_size=2, max_size=4)),
)
@example({"a": {"title": "A"}}, {"x": ["a"]}, {"u": ["a"] * 3})
@example({"a": {"title": "\u200b", "name": "A"}}, {}, {"u": ["a"] * 3})
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_can_be_trained_on_is_what_training_loads(
    chat_tokenizers, metas, categories, sequences
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written = map(json.dumps, (metas, categories, sequences))
        trainable = report(folder, *written).trainable
        try:
            catalog = Catalog.load(folder)
            leave_one_out(Histories.load(folder, catalog))
            loaded = len(canonical_titles(catalog, chat_tokenizers["chatml"])) == len(catalog)
        except IncatalogError:
            loaded = False
    assert trainable == loaded


def test_a_title_field_is_checked_and_one_that_is_not_used_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metas = {
        "a": {"title": "Same", "title_t": "One"},
        "b": {"title": "Same", "title_t": "Two", "n": 3},
        "c": {"title": "Else", "title_t": "Two"},
    }
    (tmp_path / "metas.jsonl").write_text(json.dumps(metas))
    (tmp_path / "sequential.jsonl").write_text('{"u": ["a", "b", "c"]}')
    report = check(CheckSettings(tmp_path))
    assert (report.trainable, report.duplicate_titles) == (True, 2)
    notice = capsys.readouterr().err
    assert notice.count("\n") == 1
    assert "notice: 3 of 3 items have a title_t that differs" in notice
    report = check(CheckSettings(tmp_path, "title_t"))
    assert (report.trainable, report.duplicate_titles) == (True, 2)
    assert capsys.readouterr().err == ""
    [problem] = check(CheckSettings(tmp_path, "n")).problems
    assert (problem.what, problem.count) == ("items without a name in n", 3)
    assert "metas.jsonl:1: item 'a' has no field 'n'" in problem.examples[0]
    assert "n of item 'b' is 3; expected text" in problem.examples[1]
