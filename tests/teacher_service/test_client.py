from __future__ import annotations

import json
import multiprocessing
import pickle
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog
from incatalog.errors import CatalogError, TeacherError
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher_service.client import HttpTeacher, is_url, open_teacher
from serving import scripted, served

rows = st.integers(0, 23)


@pytest.fixture(scope="module")
def url(reference: InProcessTeacher, catalog: Catalog) -> Iterator[str]:
    with served(reference, catalog, max_k=30) as url:
        yield url


@pytest.fixture(scope="module")
def remote(url: str, catalog: Catalog) -> Iterator[HttpTeacher]:
    # Three rows a request: most questions below need several.
    remote = HttpTeacher(url, catalog, batch_rows=3, tries=1)
    yield remote
    remote.close()


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(0, 8))
    per_row = {"min_size": count, "max_size": count}
    lists = st.lists(rows, max_size=9)
    return {
        "histories": draw(st.lists(st.lists(rows, min_size=1, max_size=9), **per_row)),
        "candidates": draw(st.none() | st.lists(st.none() | lists, **per_row)),
        "excluded": draw(st.none() | st.lists(st.none() | lists, **per_row)),
        "categories": draw(
            st.none() | st.lists(st.sampled_from([None, "+few", "-even", "+odd"]), **per_row)
        ),
        "exclude_seen": draw(st.booleans()),
    }


@given(question=questions(), k=st.integers(1, 30))
@settings(max_examples=30, deadline=None)
def test_answers_are_those_of_the_teacher_in_this_process(
    remote: HttpTeacher, reference: InProcessTeacher, question: dict[str, Any], k: int
) -> None:
    expected = reference.top_k(**question | {"k": k})
    found = remote.top_k(**question | {"k": k})
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    question["candidates"] = [asked or [] for asked in question["candidates"] or ()] or [
        [0, 5, 5] for _ in question["histories"]
    ]
    for ranks, others in zip(
        remote.ranking(**question), reference.ranking(**question), strict=True
    ):
        np.testing.assert_array_equal(ranks, others)
    np.testing.assert_array_equal(
        remote.scores(question["histories"]), reference.scores(question["histories"])
    )


@given(histories=st.lists(st.lists(rows, min_size=1, max_size=9), max_size=8), n=st.integers(1, 30))
@settings(max_examples=20, deadline=None)
def test_log_probabilities_are_those_of_the_teacher_in_this_process(
    remote: HttpTeacher, reference: InProcessTeacher, histories: list[list[int]], n: int
) -> None:
    expected = reference.log_probabilities(histories)
    found = remote.log_probabilities(histories)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=2e-6)
    best = remote.best_log_probabilities(histories, n)
    assert best.rows.shape == best.log_probabilities.shape == (len(histories), n)
    for row, values, rest, everything in zip(*best, expected, strict=True):
        order = np.argsort(-everything, kind="stable")[:n]
        np.testing.assert_array_equal(row, np.pad(order, (0, n - len(order)), constant_values=-1))
        np.testing.assert_array_equal(values[: len(order)], everything[order])
        assert np.isneginf(values[len(order) :]).all()
        with np.errstate(divide="ignore"):
            left = np.log(np.exp(np.delete(everything, order), dtype=np.float64).sum())
        assert rest == pytest.approx(left, rel=1e-12)


def test_it_says_what_is_served_and_at_what_temperature(
    remote: HttpTeacher, reference: InProcessTeacher
) -> None:
    assert (remote.kind, remote.temperature) == ("sasrec", reference.temperature)


def test_a_network_leaves_nothing_out_and_what_counts_refuses(
    remote: HttpTeacher, reference: InProcessTeacher, catalog: Catalog
) -> None:
    expected = reference.log_probabilities([[1], [2, 3]])
    found = remote.log_probabilities([[1], [2, 3]], left_out=[[1, 4], [2, 3, 5]])
    np.testing.assert_allclose(found, expected, atol=2e-6)
    with pytest.raises(TeacherError, match="left_out: found 1 entries; expected 2"):
        remote.log_probabilities([[1], [2, 3]], left_out=[[1]])
    with served(Popularity(np.arange(24), catalog), catalog) as url:
        counting = HttpTeacher(url, catalog, tries=1)
        assert counting.log_probabilities([[]]).argmax() == 23
        with pytest.raises(TeacherError, match=rf"left_out: {url} serves .*popularity.*run folder"):
            counting.log_probabilities([[1]], left_out=[[1, 2]])
        counting.close()


def test_wrong_questions_raise_as_in_this_process(
    remote: HttpTeacher, reference: InProcessTeacher
) -> None:
    for teacher in (reference, remote):
        with pytest.raises(TeacherError, match="history 4: row 24 not in the catalog"):
            teacher.top_k([[1]] * 4 + [[24]], 3)
        with pytest.raises(TeacherError, match="history 4: empty"):
            teacher.top_k([[1]] * 4 + [[]], 3)
        with pytest.raises(TeacherError, match="k: found 0"):
            teacher.top_k([[1]], 0)
        with pytest.raises(TeacherError, match="categories: found 'odd'; expected \\+NAME"):
            teacher.top_k([[1]], 3, categories=["odd"])
        with pytest.raises(CatalogError, match="no category 'od'; near: 'odd'"):
            teacher.top_k([[1]], 3, categories=["+od"])
        with pytest.raises(TeacherError, match="candidates: found 2 entries; expected 1"):
            teacher.ranking([[1]], [[1], [2]])
    with pytest.raises(TeacherError, match=r"n: found 31; expected 1 to 30, which is --max-k of h"):
        remote.best_log_probabilities([[1]], 31)
    with pytest.raises(TeacherError, match=r"k: found 31; expected 1 to 30, which is --max-k of h"):
        remote.top_k([[1]], 31)


def test_requests_are_split_where_the_service_takes_no_larger_ones(
    reference: InProcessTeacher, catalog: Catalog
) -> None:
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 24, size=size) for size in rng.integers(1, 60, size=40)]
    with served(reference, catalog, max_body=700, max_rows=16) as url:
        remote = HttpTeacher(url, catalog, tries=1)
        found = remote.top_k(histories, 5)
        with pytest.raises(TeacherError, match=rf"{url}/inference: 413 body: more than 700"):
            remote.top_k([[1] * 500], 5)
        remote.close()
    np.testing.assert_array_equal(found, reference.top_k(histories, 5))


def _ask(remote: HttpTeacher, results: Any) -> None:
    results.put([remote.top_k([[row]], 5).tolist() for row in range(24)])


def test_a_forked_process_speaks_on_connections_of_its_own(
    remote: HttpTeacher, reference: InProcessTeacher
) -> None:
    expected = [reference.top_k([[row]], 5).tolist() for row in range(24)]
    assert remote.top_k([[0]], 5).tolist() == expected[0]
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    children = [context.Process(target=_ask, args=(remote, results)) for _ in range(3)]
    for child in children:
        child.start()
    mine = [remote.top_k([[row]], 5).tolist() for row in range(24)]
    theirs = [results.get(timeout=20) for _ in children]
    for child in children:
        child.join()
    assert [mine, *theirs] == [expected] * 4


def test_it_travels_without_its_connections(remote: HttpTeacher) -> None:
    assert remote.top_k([[1]], 3).tolist() == pickle.loads(pickle.dumps(remote)).top_k(
        [[1]], 3
    ).tolist()  # fmt: skip


def test_another_catalog_is_an_error_that_names_both(url: str, catalog: Catalog) -> None:
    swapped = Catalog.from_items(catalog.items[::-1], "swapped")
    with pytest.raises(TeacherError, match=f"{url}: serves the catalog 'walks' .* 'swapped'"):
        HttpTeacher(url, swapped, tries=1)


def test_a_teacher_that_changes_under_way_is_an_error(
    reference: InProcessTeacher, catalog: Catalog
) -> None:
    with served(reference, catalog, fingerprint="one") as url:
        remote = HttpTeacher(url, catalog)
        remote.top_k([[1]], 3)
    port = int(url.rsplit(":", 1)[1])
    with served(reference, catalog, fingerprint="one", port=port):
        # The same again: connections were lost, and nothing else.
        remote.top_k([[1]], 3)
    with (
        served(reference, catalog, fingerprint="other", port=port),
        pytest.raises(TeacherError, match=f"{url}: another teacher answers than at the start"),
    ):
        remote.top_k([[1]], 3)
    remote.close()


def test_what_fails_in_passing_is_asked_again_after_growing_waits(catalog: Catalog) -> None:
    busy = (503, {}, b'{"detail": "busy"}')
    told = (429, {"Retry-After": "1"}, b"")
    with (
        scripted(busy, busy, told, busy) as server,
        pytest.raises(TeacherError, match=rf"{server.url}/teacher: no answer after 4 .*503 busy"),
    ):
        HttpTeacher(server.url, catalog, tries=4, backoff=0.05)
    waits = np.diff(server.asked)
    assert 0.05 <= waits[0] < 0.3
    assert 0.1 <= waits[1] < 0.4
    assert 1 <= waits[2] < 1.5


def test_what_will_not_pass_is_not_asked_again(catalog: Catalog) -> None:
    with (
        scripted((404, {}, b"nothing here")) as server,
        pytest.raises(TeacherError, match=f"{server.url}/teacher: 404 nothing here"),
    ):
        HttpTeacher(server.url, catalog)
    with (
        scripted((200, {}, b"<html>hello")) as server,
        pytest.raises(TeacherError, match=f"{server.url}: not a `incatalog teacher serve`"),
    ):
        HttpTeacher(server.url, catalog)


INFO = {
    "name": "walks", "items": 24, "teacher": "t", "kind": "knn", "temperature": 0.5,
    "window": 10, "empty_histories": True, "counts": True, "max_k": 9, "max_rows": 9,
    "max_scores": 999, "max_body": 9999,
}  # fmt: skip
WHO = {"incatalog-teacher": "t"}
GARBAGE: list[tuple[str, bytes, str]] = [
    ("scores", np.full(24, np.nan, "<f4").tobytes(), "answered with scores that are not numbers"),
    ("scores", b"\0" * 95, "answered with 95 bytes"),
    ("best", b'[{"items": ["i1"], "values": [0.5], "rest": null}]', "expected items"),
    ("best", b'[{"items": ["i1"], "values": [NaN], "rest": null}]', "expected items"),
    ("best", b'[{"items": ["i1"], "values": [], "rest": -1}]', "expected items"),
    ("best", b'[{"items": ["i1"], "values": [-1]}]', "expected items"),
    ("best", b'[{"items": ["x"], "values": [-1], "rest": -1}]', "item 'x', which is not in the"),
    ("best", b'[["i1"]]', "expected items"),
    ("best", b"[]", "expected 1 lists in `log_probabilities`"),
]


@pytest.mark.parametrize(("asked", "answer", "said"), GARBAGE)
def test_garbage_is_no_answer(catalog: Catalog, asked: str, answer: bytes, said: str) -> None:
    who = json.dumps(INFO | {"catalog": catalog.fingerprint}).encode()
    body = answer if asked == "scores" else b'{"log_probabilities": ' + answer + b"}"
    with scripted((200, {}, who), (200, WHO, body)) as server:
        remote = HttpTeacher(server.url, catalog, tries=1)
        ask = remote.log_probabilities
        if asked != "scores":
            ask = partial(remote.best_log_probabilities, n=3)
        with pytest.raises(TeacherError, match=re.escape(said)) as raised:
            ask([[1]])
        assert server.url in str(raised.value)
        remote.close()


def test_a_service_of_another_version_is_named(catalog: Catalog) -> None:
    who = {name: value for name, value in INFO.items() if name != "temperature"}
    body = json.dumps(who | {"catalog": catalog.fingerprint}).encode()
    with (
        scripted((200, {}, body)) as server,
        pytest.raises(TeacherError, match=f"{server.url}: not a `incatalog teacher serve` of this"),
    ):
        HttpTeacher(server.url, catalog)


def test_nobody_there_is_an_error_that_names_the_address(catalog: Catalog) -> None:
    with scripted() as server:
        gone = server.url
    with pytest.raises(TeacherError, match=f"{gone}/teacher: no answer after 2 tries .*refused"):
        HttpTeacher(gone, catalog, tries=2, backoff=0.01)
    with pytest.raises(TeacherError, match="http://x:y/teacher: not an address"):
        HttpTeacher("http://x:y", catalog)


def test_a_service_that_is_late_is_an_error(catalog: Catalog) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(TeacherError, match=f"{url}/teacher: no answer after 2 tries .*timed"):
            HttpTeacher(url, catalog, timeout=0.05, tries=2, backoff=0.01)


def test_a_location_is_a_folder_or_an_address(url: str, catalog: Catalog, run: Path) -> None:
    assert is_url(url)
    assert not is_url(str(run))
    remote, local = open_teacher(url, catalog), open_teacher(str(run), catalog, "cpu")
    assert isinstance(remote, HttpTeacher)
    assert isinstance(local, InProcessTeacher)
    np.testing.assert_array_equal(remote.top_k([[1, 2]], 4), local.top_k([[1, 2]], 4))
