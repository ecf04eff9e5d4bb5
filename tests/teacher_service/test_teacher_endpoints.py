from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from incatalog.data.catalog import Catalog
from incatalog.teacher.popularity import Popularity
from incatalog.teacher.sasrec import SasRec
from incatalog.teacher.teacher import InProcessTeacher
from serving import Client, served

LIMITS = {"max_k": 20, "max_rows": 4, "max_body": 4000, "timeout": 5.0}


@pytest.fixture(scope="module")
def client(reference: InProcessTeacher, catalog: Catalog) -> Iterator[Client]:
    with served(reference, catalog, **LIMITS) as url:
        client = Client(url)
        yield client
        client.close()


def ids(rows: Any) -> list[str]:
    return [f"i{row}" for row in np.asarray(rows).tolist() if row >= 0]


def test_published_request_leaves_out_the_history(
    client: Client, reference: InProcessTeacher
) -> None:
    body = {
        "users": ["A1"], "item_lists": [["i3", "i4"]], "item_lengths": [2], "k": 5,
        "immediately": 1,
    }  # fmt: skip
    reply = client.send("POST", "/inference", body)
    assert reply.status == 200
    assert reply.body == {"inference": [ids(reference.top_k([[3, 4]], 5)[0])]}
    assert client.send("POST", "/inference", body | {"immediately": 0}).body == reply.body


def test_candidates_may_come_from_the_history(client: Client, reference: InProcessTeacher) -> None:
    body: dict[str, Any] = {
        "item_lists": [["i3", "i4"]], "k": 3, "candidate_item_lists": [["i3", "i9", "i10"]]
    }  # fmt: skip
    found = client.send("POST", "/inference", body).body["inference"][0]
    expected = reference.top_k([[3, 4]], 3, candidates=[[3, 9, 10]], exclude_seen=False)
    assert found == ids(expected[0])
    assert "i3" in found
    unseen = client.send("POST", "/inference", body | {"exclude_seen": True}).body["inference"][0]
    assert unseen == [item for item in found if item != "i3"]


def test_each_row_has_a_category_of_its_own(client: Client, reference: InProcessTeacher) -> None:
    body = {"item_lists": [["i1"]] * 3, "k": 4, "target_category": ["+even", "-even", None]}
    found = client.send("POST", "/inference", body).body["inference"]
    expected = reference.top_k([[1]] * 3, 4, categories=["+even", "-even", None])
    assert found == [ids(rows) for rows in expected]
    assert all(int(item[1:]) % 2 == 0 for item in found[0])
    assert all(int(item[1:]) % 2 == 1 for item in found[1])


def test_fewer_items_than_asked_where_fewer_are_left(client: Client) -> None:
    body = {
        "item_lists": [["i0"], ["i5"]], "k": 9, "target_category": ["+few", None],
        "candidate_item_lists": [None, []],
    }  # fmt: skip
    found = client.send("POST", "/inference", body).body["inference"]
    assert sorted(found[0]) == ["i1", "i2"]
    assert found[1] == []


def test_ranks_count_from_zero_over_the_whole_catalog(
    client: Client, reference: InProcessTeacher
) -> None:
    everything = [f"i{row}" for row in range(24)]
    body: dict[str, Any] = {
        "users": ["A1"], "item_lists": [["i3", "i4"]], "item_lengths": [2],
        "candidate_item_lists": [[*everything, "i7"]], "immediately": 1,
    }  # fmt: skip
    ranks = client.send("POST", "/ranking", body).body["ranking"][0]
    order = np.argsort(-reference.scores([[3, 4]])[0], kind="stable").tolist()
    assert ranks == [order.index(row) for row in [*range(24), 7]]
    unseen = client.send("POST", "/ranking", body | {"exclude_seen": 1}).body["ranking"][0]
    kept = [row for row in order if row not in (3, 4)]
    assert unseen == [kept.index(row) if row in kept else None for row in [*range(24), 7]]


def test_integers_and_padding_of_a_client_are_understood(
    client: Client, reference: InProcessTeacher
) -> None:
    plain = client.send("POST", "/inference", {"item_lists": [["i3", "i4"]], "k": 4}).body
    for length in (2, 4):
        body = {"item_lists": [["[PAD]", "[PAD]", "i3", "i4"]], "item_lengths": [length], "k": 4}
        assert client.send("POST", "/inference", body).body == plain


def test_integer_ids_stand_for_their_digits(network: SasRec, catalog: Catalog) -> None:
    from dataclasses import replace

    items = [replace(item, item_id=item.item_id[1:]) for item in catalog.items]
    numbered = Catalog.from_items(items, "numbered")
    with served(InProcessTeacher(network, numbered), numbered) as url:
        client = Client(url)
        as_text = client.send("POST", "/inference", {"item_lists": [["3", "4"]], "k": 4})
        as_number = client.send("POST", "/inference", {"item_lists": [[3, "4"]], "k": 4})
        client.close()
    assert as_text.status == 200
    assert as_text.body == as_number.body


def test_scores_are_those_of_the_network(client: Client, reference: InProcessTeacher) -> None:
    reply = client.send("POST", "/scores", {"item_lists": [["i1", "i2"], ["i9"]]})
    found = np.frombuffer(reply.body, "<f4").reshape(2, 24)
    np.testing.assert_array_equal(found, reference.scores([[1, 2], [9]]))


def test_the_likeliest_items_and_the_rest(client: Client, reference: InProcessTeacher) -> None:
    body = {"item_lists": [["i1", "i2"], ["i9"]], "best": 4}
    reply = client.send("POST", "/log-probabilities", body)
    assert reply.status == 200
    everything = reference.log_probabilities([[1, 2], [9]])
    for row, all_items in zip(reply.body["log_probabilities"], everything, strict=True):
        order = np.argsort(-all_items, kind="stable")
        assert row["items"] == ids(order[:4])
        np.testing.assert_array_equal(np.float32(row["values"]), all_items[order[:4]])
        others = np.log(np.exp(all_items[order[4:]], dtype=np.float64).sum())
        assert row["rest"] == pytest.approx(others, rel=1e-12)


def test_nothing_is_left_behind_all_items(reference: InProcessTeacher, catalog: Catalog) -> None:
    with served(reference, catalog, max_k=30) as url:
        client = Client(url)
        body = {"item_lists": [["i1"]], "best": 30}
        (row,) = client.send("POST", "/log-probabilities", body).body["log_probabilities"]
        client.close()
    assert sorted(row["items"]) == sorted(f"i{item}" for item in range(24))
    assert row["rest"] is None
    assert np.exp(row["values"]).sum() == pytest.approx(1, abs=1e-6)


def test_a_teacher_that_needs_no_history_answers_without_one(catalog: Catalog) -> None:
    counts = np.arange(24)
    with served(Popularity(counts, catalog), catalog) as url:
        client = Client(url)
        info = client.send("GET", "/teacher").body
        best = client.send("POST", "/inference", {"item_lists": [[], ["i23"]], "k": 2}).body
        lengths = {"item_lists": [["[PAD]"]], "item_lengths": [0], "best": 1}
        (row,) = client.send("POST", "/log-probabilities", lengths).body["log_probabilities"]
        client.close()
    assert (info["kind"], info["empty_histories"]) == ("popularity", True)
    assert best == {"inference": [["i23", "i22"], ["i22", "i21"]]}
    assert row["items"] == ["i23"]


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("inference", {"item_lists": [["i1"], ["x", "i2", "y", "x"]], "k": 3},
     "item_lists 1: no item 'x', 'y' in the catalog 'walks' of 24 items"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "candidate_item_lists": [["i1", 99]]},
     "candidate_item_lists 0: no item 99 in the catalog"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "excluded_item_lists": [["q"]]},
     "excluded_item_lists 0: no item 'q'"),
    ("inference", {"item_lists": [["i1"], []], "k": 3}, "item_lists 1: empty"),
    ("inference", {"item_lists": [["[PAD]"]], "k": 3}, "item_lists 0: empty"),
    ("inference", {"item_lists": [["i1", "[PAD]"]], "k": 3}, "item_lists 0: no item '[PAD]'"),
    ("inference", {"item_lists": [], "k": 3}, "item_lists: found 0 rows; expected 1 to 4"),
    ("inference", {"item_lists": [["i1"]] * 5, "k": 3}, "found 5 rows; expected 1 to 4"),
    ("inference", {"item_lists": [["i1"]], "k": 0}, "k: input should be greater"),
    ("inference", {"item_lists": [["i1"]], "k": 10**9}, "k: found 1000000000; expected 1 to 20"),
    ("inference", {"item_lists": [["i1"]], "k": 10**400}, "k: found 0x"),
    ("inference", {"item_lists": [["i1"]], "k": True}, "k: input should be a valid integer"),
    ("inference", {"item_lists": [["i1"]], "k": 2.5}, "k: input should be a valid integer"),
    ("inference", {"item_lists": [["i1"]]}, "k: field required"),
    ("inference", {"k": 3}, "item_lists: field required"),
    ("inference", {"item_lists": "i1", "k": 3}, "item_lists: input should be a valid list"),
    ("inference", {"item_lists": [["i1", None]], "k": 3}, "item_lists 0 1: expected an id"),
    ("inference", {"item_lists": [["i1", True]], "k": 3}, "item_lists 0 1: expected an id"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "users": ["a", "b"]},
     "users: found 2 entries; expected 1"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "item_lengths": [7]},
     "item_lengths 0: found 7; item_lists 0 has 1 items"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "target_category": ["even"]},
     "target_category 0: found 'even'; expected +NAME"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "target_category": ["+" + "z" * 500]},
     "target_category 0: no category 'zzz"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "target_category": ["+odd", None]},
     "target_category: found 2 entries; expected 1"),
    ("inference", {"item_lists": [["i1"]], "k": 3, "candidates": []}, "candidates: extra"),
    ("ranking", {"item_lists": [["i1"]]}, "candidate_item_lists: field required"),
    ("ranking", {"item_lists": [["i1"]], "candidate_item_lists": []},
     "candidate_item_lists: found 0 entries; expected 1"),
    ("scores", {"item_lists": [[]]}, "item_lists 0: empty"),
    ("log-probabilities", {"item_lists": [[]], "best": 2}, "item_lists 0: empty"),
    ("log-probabilities", {"item_lists": [["i1"]]}, "best: field required"),
    ("log-probabilities", {"item_lists": [["i1"]], "best": 21}, "best: found 21; expected 1 to 20"),
    ("log-probabilities", {"item_lists": [["i1"]], "best": 1, "k": 1}, "k: extra"),
]  # fmt: skip


@pytest.mark.parametrize(("endpoint", "body", "said"), WRONG)
def test_what_cannot_be_answered_is_named(
    client: Client, endpoint: str, body: dict[str, Any], said: str
) -> None:
    reply = client.send("POST", f"/{endpoint}", body)
    assert reply.status == 422
    assert said in reply.body["detail"]
    assert len(reply.body["detail"]) < 300


def test_bodies_that_are_no_request(client: Client) -> None:
    for body, said in [
        (b"", "body: expected a JSON object"),
        (b"[]", "body: expected a JSON object"),
        (b'{"k": ', "body: not JSON"),
        (b'{"item_lists": [["\xff"]], "k": 1}', "parsing the body"),
        (b'{"item_lists": [["\\ud800"]], "k": 1}', "item_lists 0: no item '"),
        (b'{"item_lists": [[1]], "k": NaN}', "k: input should be a valid integer"),
        (b'{"item_lists": [[' + b"9" * 3900 + b']], "k": 1}', "item_lists 0: no item 0x"),
        (b"[" * 3900, "parsing the body"),
    ]:
        reply = client.send("POST", "/inference", body)
        assert reply.status in (400, 422), body[:40]
        assert said in reply.body["detail"], (body[:40], reply.body)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    reply = client.send("POST", "/inference", b"k=1", **form)
    assert (reply.status, "Content-Type" in reply.body["detail"]) == (422, True)


def test_large_bodies_are_refused_and_the_reason_arrives(client: Client) -> None:
    body = json.dumps({"item_lists": [["i1"] * 2000], "k": 1}).encode()
    reply = client.send("POST", "/inference", body)
    assert reply.status == 413
    assert "more than 4000 bytes" in reply.body["detail"]
    # Without a declared length, too; and the service goes on.
    assert client.send("POST", "/inference", iter([body, body])).status == 413
    assert client.send("GET", "/healthz").status == 200


def test_another_catalog_is_refused(client: Client, catalog: Catalog) -> None:
    body = {"item_lists": [["i1"]], "k": 1, "catalog": "0" * 64}
    reply = client.send("POST", "/inference", body)
    assert reply.status == 409
    assert "give both the same data" in reply.body["detail"]
    body["catalog"] = catalog.fingerprint
    assert client.send("POST", "/inference", body).status == 200


def test_it_says_who_and_how_it_is(client: Client, catalog: Catalog) -> None:
    info = client.send("GET", "/teacher").body
    assert info["items"] == 24
    assert info["catalog"] == catalog.fingerprint
    assert (info["kind"], info["temperature"]) == ("sasrec", 1.0)
    assert not info["empty_histories"]
    assert not info["counts"]
    assert (info["window"], info["max_k"], info["max_rows"]) == (6, 20, 4)
    assert client.send("GET", "/healthz").body == {"status": "ok"}
    assert client.send("GET", "/readyz").body == {"status": "ready"}
    assert client.send("GET", "/nothing").status == 404
    assert client.send("GET", "/inference").status == 405


def test_metrics_count_requests_and_batches(network: SasRec, catalog: Catalog) -> None:
    with served(InProcessTeacher(network, catalog), catalog) as url:
        client = Client(url)
        for rows in (1, 3):
            client.send("POST", "/inference", {"item_lists": [["i1"]] * rows, "k": 1})
        client.send("POST", "/inference", {"item_lists": [["i1"]], "k": 0})
        client.send("GET", "/surprise")
        text = client.send("GET", "/metrics").body.decode()
        client.close()
    values = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    requests = "incatalog_teacher_requests_total"
    assert values[requests, ("endpoint", "/inference"), ("status", "200")] == 2
    assert values[requests, ("endpoint", "/inference"), ("status", "422")] == 1
    assert values[requests, ("endpoint", "other"), ("status", "404")] == 1
    assert values[("incatalog_teacher_batch_rows_sum",)] == 4
    assert values[("incatalog_teacher_batch_rows_count",)] == 2
    assert values[("incatalog_teacher_queued_rows",)] == 0


def test_an_answer_that_takes_too_long_is_given_up(network: SasRec, catalog: Catalog) -> None:
    limits = {"max_wait": 60.0, "timeout": 0.2}
    with served(InProcessTeacher(network, catalog), catalog, **limits) as url:
        client = Client(url)
        reply = client.send("POST", "/inference", {"item_lists": [["i1"]], "k": 1})
        assert (reply.status, "within 0.2 s" in reply.body["detail"]) == (504, True)
        body = {"item_lists": [["i1"]], "k": 1, "immediately": 1}
        assert client.send("POST", "/inference", body).status == 200
        client.close()


def test_a_body_that_does_not_arrive_is_given_up(network: SasRec, catalog: Catalog) -> None:
    import socket

    with served(InProcessTeacher(network, catalog), catalog, timeout=0.2) as url:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as slow:
            slow.sendall(b"POST /inference HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
            assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


item_ids = st.sampled_from([f"i{row}" for row in range(24)])
anything = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    """Requests that are well-formed, but for now and then one wrong value."""
    rows = draw(st.integers(1, 4))
    per_row = {"min_size": rows, "max_size": rows}
    histories = st.lists(item_ids, min_size=1, max_size=9)
    optional = {
        "candidate_item_lists": st.lists(st.none() | st.lists(item_ids, max_size=9), **per_row),
        "excluded_item_lists": st.lists(st.none() | st.lists(item_ids, max_size=9), **per_row),
        "target_category": st.lists(st.sampled_from(["+even", "-few", None]), **per_row),
        "exclude_seen": st.sampled_from([True, False, 0, 1, None]),
        "immediately": st.just(1),
        "users": st.lists(st.text(max_size=3), **per_row),
    }
    body: dict[str, Any] = {"item_lists": draw(st.lists(histories, **per_row)), "immediately": 1}
    body["k"] = draw(st.integers(1, 20))
    for name in draw(st.sets(st.sampled_from(sorted(optional)))):
        body[name] = draw(optional[name])
    if draw(st.booleans()):
        body[draw(st.sampled_from(sorted(body)))] = draw(anything | st.lists(anything))
    return body


@given(body=requests())
@settings(max_examples=60, deadline=None)
def test_any_request_is_answered_or_refused(client: Client, body: dict[str, Any]) -> None:
    for endpoint in ("/inference", "/ranking"):
        asked = {k: v for k, v in body.items() if k != "k" or endpoint == "/inference"}
        reply = client.send("POST", endpoint, asked)
        assert reply.status in (200, 400, 422), reply
        if reply.status != 200:
            assert isinstance(reply.body["detail"], str)
