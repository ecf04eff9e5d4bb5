from __future__ import annotations

import json
import pickle
import re
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incatalog.data.catalog import Catalog, Item
from incatalog.errors import CatalogError, ConfigError, TeacherError
from incatalog.recommender.guide_folder import GuideChoice
from incatalog.teacher.import_unirec import network_of
from incatalog.teacher.sasrec import SasRec, SasRecSizes
from incatalog.teacher.settings import ImportUnirecSettings
from incatalog.teacher.teacher import InProcessTeacher
from incatalog.teacher_service.client import HttpTeacher, open_served, open_teacher
from incatalog.teacher_service.published_teacher import PublishedTeacher, require_known_items
from incatalog.teacher_service.served_teacher import Sender
from published_server import Published, published, scores_of
from serving import Client, scripted, served
from unirec_weights import reference as unirec_scores
from unirec_weights import state_dict

RECORDED = json.loads((Path(__file__).parent / "published_answers.json").read_text())
# Weights of the server that was recorded, which numbers items by their rows.
WEIGHTS = state_dict(7, hidden=16, inner=32, layers=2, length=10)
rows = st.integers(0, 23)
lists = st.lists(rows, max_size=14)


@pytest.fixture(scope="module")
def local(catalog: Catalog) -> InProcessTeacher:
    """A network with the window of the published server."""
    sizes = SasRecSizes(24, max_length=10, hidden=16, inner=32, layers=2, heads=2, dropout=0.0)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = SasRec(sizes)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    return InProcessTeacher(network, catalog)


@pytest.fixture(scope="module")
def remote(local: InProcessTeacher, catalog: Catalog) -> Iterator[PublishedTeacher]:
    with published(scores_of(local), catalog) as server:
        teacher = open_served(server.url, catalog, tries=1)
        assert isinstance(teacher, PublishedTeacher)
        yield teacher
        teacher.close()


@pytest.fixture(scope="module")
def recorded_weights(catalog: Catalog) -> InProcessTeacher:
    nowhere = Path("nowhere")
    asked = ImportUnirecSettings(weights=str(nowhere), data=nowhere, out=nowhere)
    return InProcessTeacher(network_of(WEIGHTS, {}, np.arange(1, 25), asked), catalog)


@pytest.fixture(scope="module")
def as_recorded(catalog: Catalog) -> Iterator[Client]:
    """The server of these tests, with the weights of the one that was recorded."""

    def scoring(history: list[int]) -> np.ndarray:
        return unirec_scores(WEIGHTS, [row + 1 for row in history]).numpy()

    with published(scoring, catalog) as server:
        yield Client(server.url)


@pytest.fixture(scope="module")
def ours(catalog: Catalog, recorded_weights: InProcessTeacher) -> Iterator[Client]:
    """Our service, with the same weights."""
    with served(recorded_weights, catalog) as url:
        yield Client(url)


@pytest.mark.parametrize("exchange", RECORDED, ids=lambda exchange: exchange["what"])
def test_the_server_of_these_tests_answers_as_the_published_one_did(
    as_recorded: Client, exchange: dict[str, Any]
) -> None:
    method = "GET" if exchange["body"] is None else "POST"
    reply = as_recorded.send(method, f"/{exchange['path']}", exchange["body"])
    assert reply.status == exchange["status"]
    if reply.status == 200:
        assert reply.body == exchange["answer"]
    else:
        assert reply.body["status"] == exchange["answer"]["status"]


# What our service says otherwise: it does not fill up, answers every row, and needs a history.
OTHERWISE: dict[str, Any] = {
    "fewer fit than k": [["i0"]],
    "fewer candidates than k": [["i1", "i7"]],
    "everything, padding last": lambda found: [found[0][:22]],
    "the first row alone": lambda found: [found[0], ["i1", "i19", "i0"]],
    "unknown candidate": "candidate_item_lists 0: no item 'x'",
    "no history": "item_lists 0: empty",
    "unknown item": "item_lists 0: no item 'x'",
    "unknown user": [["i19", "i0", "i21"]],
    "too long a history": [["i19", "i21", "i20"]],
    "ranks that wait": [[6]],
    "no such category": "target_category 0: no category 'none'",
}


@pytest.mark.parametrize("exchange", RECORDED[:-1], ids=lambda exchange: exchange["what"])
def test_our_service_answers_the_published_client_as_the_published_server_does(
    ours: Client, exchange: dict[str, Any]
) -> None:
    reply = ours.send("POST", f"/{exchange['path']}", exchange["body"])
    found, kind = exchange["answer"].get(exchange["path"]), exchange["path"]
    expected = OTHERWISE.get(exchange["what"], found)
    if isinstance(expected, str):
        assert reply.status == 422
        assert expected in reply.body["detail"]
        return
    assert reply.status == 200
    if exchange["what"] == "k beyond the catalog":
        assert sorted(reply.body[kind][0]) == sorted(f"i{row}" for row in range(24) if row != 1)
        return
    assert reply.body == {kind: expected(found) if callable(expected) else expected}


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    count = draw(st.integers(0, 5))
    per_row = {"min_size": count, "max_size": count}
    return {
        "histories": draw(st.lists(st.lists(rows, min_size=1, max_size=14), **per_row)),
        "candidates": draw(st.none() | st.lists(st.none() | lists, **per_row)),
        "excluded": draw(st.none() | st.lists(st.none() | lists, **per_row)),
        "categories": draw(
            st.none() | st.lists(st.sampled_from([None, "+few", "-even", "+odd"]), **per_row)
        ),
        "exclude_seen": draw(st.booleans()),
    }


@given(question=questions(), k=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_answers_are_those_of_the_teacher_in_this_process(
    remote: PublishedTeacher, local: InProcessTeacher, question: dict[str, Any], k: int
) -> None:
    expected = local.top_k(**question | {"k": k})
    found = remote.top_k(**question | {"k": k})
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    question["candidates"] = [asked or [] for asked in question["candidates"] or ()] or [
        [0, 5, 5] for _ in question["histories"]
    ]
    for ranks, others in zip(remote.ranking(**question), local.ranking(**question), strict=True):
        np.testing.assert_array_equal(ranks, others)


def test_a_question_is_what_the_published_server_reads(
    local: InProcessTeacher, catalog: Catalog
) -> None:
    with published(scores_of(local), catalog) as server:
        teacher = open_served(server.url, catalog)
        teacher.top_k([[3, 4], list(range(12))], 5, exclude_seen=False, categories=["+few", None])
        teacher.close()
    (_, _), (kind, plain), (_, longer) = server.asked
    assert kind == "ranking"
    every = [[f"i{row}" for row in range(24)]]
    common = {"users": ["[PAD]"], "candidate_item_lists": every, "immediately": 1}
    assert plain == {"item_lists": [["i3", "i4"]], "item_lengths": [2], **common}
    newest = [f"i{row}" for row in range(2, 12)]
    assert longer == {"item_lists": [newest], "item_lengths": [10], **common}


def test_a_server_that_does_not_know_all_items_answers_with_those_it_knows(
    local: InProcessTeacher, catalog: Catalog
) -> None:
    # UniRec's preprocessing numbers what stands in histories, in another order than the catalog.
    known = np.random.default_rng(1).permutation(24)[:20]
    unknown = np.setdiff1d(np.arange(24), known).tolist()
    histories = [known[:3].tolist(), known[5:17].tolist()]
    with published(scores_of(local), catalog, known) as server:
        teacher = open_served(server.url, catalog)
        assert "20 of 24 items" in teacher.described
        for options in ({}, {"categories": ["+few", "-odd"]}, {"exclude_seen": False}):
            found = teacher.top_k(histories, 24, **options)
            out: dict[str, Any] = {"excluded": [unknown] * 2}
            np.testing.assert_array_equal(found, local.top_k(histories, 24, **options | out))
        asked = [known[:9].tolist(), known[9:].tolist()]
        out["exclude_seen"] = True
        for ranks, expected in zip(
            teacher.ranking(histories, asked, exclude_seen=True),
            local.ranking(histories, asked, **out),
            strict=True,
        ):
            np.testing.assert_array_equal(ranks, expected)
        said = rf"item 'i{unknown[0]}', which the published teacher server does not know"
        with pytest.raises(TeacherError, match=f"candidates: {said}"):
            teacher.ranking([histories[0]], [[unknown[0], known[1]]])
        with pytest.raises(TeacherError, match=f"history 1: {said}"):
            teacher.top_k([histories[0], [unknown[0]]], 3)
        require_known_items(teacher, "--teacher", known)
        told = rf"--reward teacher: may ask about item 'i{unknown[0]}' and 3 more, which the pub"
        with pytest.raises(ConfigError, match=told):
            require_known_items(teacher, "--reward teacher", np.arange(24))
        teacher.close()


def test_wrong_questions_raise_as_in_this_process(
    remote: PublishedTeacher, local: InProcessTeacher
) -> None:
    for teacher in (local, remote):
        with pytest.raises(TeacherError, match="history 1: row 24 not in the catalog"):
            teacher.top_k([[1], [24]], 3)
        with pytest.raises(TeacherError, match="history 1: empty"):
            teacher.top_k([[1], []], 3)
        with pytest.raises(TeacherError, match="k: found 0"):
            teacher.top_k([[1]], 0)
        with pytest.raises(TeacherError, match="categories: found 'odd'; expected \\+NAME"):
            teacher.top_k([[1]], 3, categories=["odd"])
        with pytest.raises(CatalogError, match="no category 'od'; near: 'odd'"):
            teacher.top_k([[1]], 3, categories=["+od"])
        with pytest.raises(TeacherError, match="candidates: found 2 entries; expected 1"):
            teacher.ranking([[1]], [[1], [2]])


def test_what_it_lacks_is_an_error_that_says_so(remote: PublishedTeacher, catalog: Catalog) -> None:
    asked = [
        (partial(remote.scores, [[1]]), "has no scores"),
        (partial(remote.log_probabilities, [[1]]), "has no log-probabilities"),
        (lambda: remote.temperature, "has no temperature"),
    ]
    for ask, said in asked:
        with pytest.raises(TeacherError, match=f"{remote.url}: .*{said}.*import-unirec"):
            ask()
    guide = rf"--guide {remote.url}: needs log-probabilities .* {remote.url} does not have"
    for patience in (None, 5.0):
        with pytest.raises(ConfigError, match=guide):
            GuideChoice(remote.url, patience=patience).load(Path("model"), catalog)


def test_the_kind_of_server_is_found_by_asking(
    remote: PublishedTeacher, local: InProcessTeacher, catalog: Catalog
) -> None:
    with served(local, catalog) as url:
        ours = open_teacher(url, catalog)
        assert isinstance(ours, HttpTeacher)
        assert ours.described == "`incatalog teacher serve`, a sasrec"
        ours.close()
    theirs = open_teacher(remote.url, catalog)
    assert isinstance(theirs, PublishedTeacher)
    assert re.search(r"published teacher server: .* 24 of 24 .*lacks scores", theirs.described)
    assert theirs.kind == "published"
    assert theirs.fingerprint == remote.fingerprint
    theirs.close()


def test_other_weights_are_another_teacher(
    remote: PublishedTeacher, recorded_weights: InProcessTeacher, catalog: Catalog
) -> None:
    with published(scores_of(recorded_weights), catalog) as server:
        other = open_served(server.url, catalog)
        assert other.fingerprint != remote.fingerprint
        other.close()


def test_it_travels_without_its_connections(remote: PublishedTeacher) -> None:
    travelled = pickle.loads(pickle.dumps(remote))
    np.testing.assert_array_equal(travelled.top_k([[1]], 3), remote.top_k([[1]], 3))
    travelled.close()


def test_other_items_are_an_error_that_counts_them(
    local: InProcessTeacher, catalog: Catalog
) -> None:
    def part(items: list[Item]) -> Catalog:
        return Catalog.from_items(items, name="part")

    foreign = [Item(item_id=f"x{row}", title=f"Other {row}") for row in range(3)]
    with published(scores_of(local), catalog) as server:
        known = "it has 24, and 20 of the 20 of 'part'; start it with the same data"
        with pytest.raises(TeacherError, match=f"{server.url}: a published .*other items: {known}"):
            open_served(server.url, part(catalog.items[:20]))
        with pytest.raises(TeacherError, match="it has 24, and 0 of the 3 of 'part'"):
            open_served(server.url, part(foreign))
        with pytest.raises(TeacherError, match=r"an item is called \[PAD\]"):
            open_served(server.url, part([Item(item_id="[PAD]", title="Padding")]))


NOT_FOUND = (404, {}, b'{"description": "Not Found"}')
# Padding stands between the items and has the last rank.
FIRST = [24, *(rank for row in range(24) for rank in (row, 24))]
ALL = (200, {}, json.dumps({"ranking": [FIRST]}).encode())
HTML = b"<!DOCTYPE html><html><title>Welcome</title>"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((404, {}, HTML), "ranking: 404 <!DOCTYPE html><html>"),
        ((200, {}, HTML), "expected one list of ranks in `ranking`, got '<!DOCTYPE html>"),
        ((200, {}, b'{"ranking": []}'), "expected one list of ranks in `ranking`, got"),
        ((200, {}, b'{"ranking": [[0, 1.5]]}'), "expected one list of ranks in `ranking`, got"),
        ((200, {}, b'{"ranking": [[0, -1]]}'), "expected one list of ranks in `ranking`, got"),
        ((500, {}, b'{"message": "boom"}'), "ranking: 500 boom"),
    ],
)
def test_who_is_neither_is_named(
    catalog: Catalog, answer: tuple[int, dict[str, str], bytes], said: str
) -> None:
    with scripted(NOT_FOUND, answer) as server, pytest.raises(TeacherError) as raised:
        open_served(server.url, catalog)
    told = str(raised.value)
    assert told.startswith(f"{server.url}: no `incatalog teacher serve` (it has no /teacher), and")
    assert said in told


@pytest.mark.parametrize("ranks", [[], [0] * 49, list(range(24)), FIRST[1:], [*FIRST, 3, 24]])
def test_ranks_of_padding_that_are_not_last_are_no_published_server(
    catalog: Catalog, ranks: list[int]
) -> None:
    answer = (200, {}, json.dumps({"ranking": [ranks]}).encode())
    said = "no published server: its ranks of 49 candidates are"
    with scripted(NOT_FOUND, answer) as server, pytest.raises(TeacherError, match=said):
        open_served(server.url, catalog)


ORDER = list(range(24))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"ranking": [ORDER[:-1]]}, "ranking: expected the ranks 0 to 23, each once, got [0, 1, 2"),
        ({"ranking": [[*ORDER, 24]]}, "ranking: expected the ranks 0 to 23, each once"),
        ({"ranking": [[*ORDER[:-1], 24]]}, "ranking: expected the ranks 0 to 23, each once"),
        ({"ranking": [[*ORDER[:-1], 0]]}, "ranking: expected the ranks 0 to 23, each once"),
        ({"ranking": [[*ORDER[:-1], "i3"]]}, "ranking: expected one list of ranks"),
        ({"ranking": ORDER}, "ranking: expected one list of ranks"),
        ({"inference": [ORDER]}, "ranking: expected one list of ranks"),
        ("<html>", "ranking: expected one list of ranks in `ranking`, got '\"<html>\"'"),
    ],
)
def test_garbage_is_no_answer(catalog: Catalog, answer: Any, said: str) -> None:
    with scripted(NOT_FOUND, ALL, (200, {}, json.dumps(answer).encode())) as server:
        teacher = open_served(server.url, catalog, tries=1)
        with pytest.raises(TeacherError, match=re.escape(said)) as raised:
            teacher.top_k([[5]], 2)
        assert str(raised.value).startswith(f"{server.url}/ranking: ")
        teacher.close()


def test_a_server_that_is_late_is_asked_again_and_then_an_error(catalog: Catalog) -> None:
    busy = (503, {}, b"I'm too busy")
    with scripted(NOT_FOUND, busy, ALL) as server:
        open_served(server.url, catalog, tries=2, backoff=0.01).close()
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        late = Sender(url, timeout=0.05, tries=2, backoff=0.01)
        with pytest.raises(TeacherError, match=f"{url}/ranking: no answer after 2 tries .*timed"):
            PublishedTeacher(late, catalog)


def test_rounding_of_the_servers_inference_changes_nothing(catalog: Catalog) -> None:
    # One item has nearly all, so that what float32 keeps beside one does not tell others apart.
    scores = np.random.default_rng(0).permutation(24).astype(np.float32) / 1000
    scores[7] = 14.0
    order = np.argsort(-scores)
    asked = {"users": ["u1"], "item_lists": [[f"i{order[1]}"]], "k": 22, "immediately": 1}
    best = np.delete(order, 1)[:22]
    (found,) = Published(lambda _: scores, catalog, range(24)).answer("inference", asked)
    assert found != [f"i{row}" for row in best]
    with published(lambda _: scores, catalog) as server:
        teacher = open_served(server.url, catalog)
        np.testing.assert_array_equal(teacher.top_k([[order[1]]], 22), [best])
        teacher.close()
