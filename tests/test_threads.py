"""One model in several threads, and what is left of it when something ends before its time."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest
import torch

from incatalog import Catalog, Item, Recommender
from incatalog.model.backbone import Backbone
from incatalog.model.spec import ModelSpec
from incatalog.packed.model import PackedModel

SPEC = ModelSpec(base="tiny")
QUESTION = [{"role": "user", "content": "Something for a rainy evening, please."}]


def make_catalog(titles: tuple[str, ...]) -> Catalog:
    return Catalog.from_items(
        Item(f"i{row}", title, categories=(("even", "odd")[row % 2], f"c{row % 7}"))
        for row, title in enumerate(titles)
    )


@pytest.fixture
def recommender(own_tiny_backbone: Backbone, titles: tuple[str, ...]) -> Recommender:
    """A random model that likes to open item spans."""
    model: Any = own_tiny_backbone.model
    torch.manual_seed(1)
    with torch.no_grad():
        head = model.get_output_embeddings().weight
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(head))
        model.lm_head.weight[own_tiny_backbone.soi_token_id] *= 4
    packed = PackedModel(model, frozen=True)
    return Recommender(own_tiny_backbone, SPEC, make_catalog(titles), packed=packed)


def generated(recommender: Recommender) -> list[int]:
    """What transformers writes by itself, with padding on the left."""
    tokens = torch.tensor([[0, 0, 9, 8, 7], [5, 6, 7, 8, 9]])
    written = recommender.backbone.model.generate(
        input_ids=tokens, attention_mask=(tokens > 0).long(), max_new_tokens=6, do_sample=False
    )
    return written.flatten().tolist()  # type: ignore[no-any-return]


def state_of(recommender: Recommender) -> list[Any]:
    """All that feeding packed rows changes in a model for a while."""
    modules = list(recommender.backbone.model.modules())
    names = {m.config._attn_implementation for m in modules if hasattr(m, "config")}
    patched = [m for m in modules if "forward" in vars(m)]
    return [names, patched, [m.training for m in modules]]


def told(recommender: Recommender, **asked: Any) -> list[Any]:
    return list(recommender.stream(QUESTION, max_new_tokens=30, **asked))


def while_streaming(recommender: Recommender) -> list[Any]:
    """A stream in which each piece leads to another question."""
    found: list[Any] = []
    for piece in recommender.stream(QUESTION, max_new_tokens=12):
        found += [piece, recommender.recommend(["i3"], k=2), recommender.chat(QUESTION).text]
    return found


def jobs_of(recommender: Recommender, titles: tuple[str, ...]) -> list[Callable[[], Any]]:
    other = Catalog.from_items(Item(f"o{n}", title) for n, title in enumerate(titles[10:30]))
    new = Item("new", "Paper Moon Over Leeds (2001)", categories=("odd",))
    return [
        lambda: recommender.recommend(["i1", "i2"], k=4),
        lambda: recommender.recommend(["i5"], k=3, decode="list", categories=["odd", "c3"]),
        lambda: recommender.recommend_batch([["i1"], ["i2", "i7"], []], k=3, decode="list"),
        lambda: told(recommender),
        lambda: told(recommender, temperature=1.0, seed=5, exclude=["i0"]),
        lambda: while_streaming(recommender),
        lambda: recommender.with_catalog(other).recommend(["o1"], k=3),
        lambda: recommender.with_changes([new], ["i4"]).recommend(["new"], k=3, decode="list"),
        lambda: recommender.with_disabled(["i9"]).recommend([], k=3, categories=["c2"]),
        # Packed for itself.
        lambda: Recommender(recommender.backbone, SPEC, other).recommend(["o2"], k=2),
    ]


@pytest.mark.long
def test_threads_get_the_answers_of_one_alone(
    recommender: Recommender, titles: tuple[str, ...]
) -> None:
    before, state = generated(recommender), state_of(recommender)
    jobs = jobs_of(recommender, titles)
    expected = [job() for job in jobs]
    assert all(expected)
    wrong: list[Any] = []

    def work(number: int) -> None:
        order = random.Random(number)
        try:
            for _ in range(6):
                job = order.randrange(len(jobs))
                if (found := jobs[job]()) != expected[job]:
                    wrong.append((job, found))
        except Exception as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert state_of(recommender) == state
    assert generated(recommender) == before
    assert len(recommender.engine.model.pool) == 0


def test_a_stream_that_one_thread_holds_open_holds_up_no_other(recommender: Recommender) -> None:
    expected = recommender.recommend(["i1"], k=3)
    whole = told(recommender)
    stream = recommender.stream(QUESTION, max_new_tokens=30)
    first = next(stream)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(recommender.recommend(["i1"], k=3)))
    thread.start()
    thread.join(timeout=60)
    assert found == [expected]
    # It may be read on by another thread.
    rest: list[Any] = []
    thread = threading.Thread(target=lambda: rest.extend(stream))
    thread.start()
    thread.join(timeout=60)
    assert [first, *rest] == whole


@pytest.mark.long
def test_streams_that_are_not_read_to_their_end_leave_nothing(recommender: Recommender) -> None:
    before, whole = generated(recommender), told(recommender)
    pool = recommender.engine.model.pool
    assert len(pool) == 0
    stream = recommender.stream(QUESTION, max_new_tokens=30)
    next(stream)
    assert len(pool) > 0
    stream.close()  # type: ignore[attr-defined]
    assert len(pool) == 0

    class Reader:
        """Refers to itself, so that only the collector of garbage finds its stream."""

        def __init__(self) -> None:
            self.me, self.stream = self, recommender.stream(QUESTION, max_new_tokens=30)
            next(self.stream)

    gc.disable()
    try:
        for _ in range(5):
            Reader()
        assert len(pool) == 5
        # Whatever thread the collector runs on, even in the middle of a step of this one.
        stop = threading.Event()

        def collect() -> None:
            while not stop.wait(0.02):
                gc.collect()

        collector = threading.Thread(target=collect)
        collector.start()
        for _ in range(4):
            Reader()
            assert told(recommender) == whole
        stop.set()
        collector.join()
        gc.collect()
    finally:
        gc.enable()
    assert len(pool) == 0
    assert generated(recommender) == before


def interruptions(action: Callable[[], Any]) -> Iterator[int]:
    """Runs something again and again, ended by Ctrl-C at its next call of our code each time."""
    number = 0
    while True:
        calls = 0

        def trace(frame: FrameType, event: str, _: Any, at: int = number) -> None:
            nonlocal calls
            if event == "call" and any(
                f"/incatalog/{folder}/" in frame.f_code.co_filename
                for folder in ("decoding", "constraint", "packed", "trie")
            ):
                calls += 1
                if calls == at + 1:
                    raise KeyboardInterrupt

        previous = sys.gettrace()
        sys.settrace(trace)
        try:
            action()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(previous)
        if calls <= number:
            return
        yield number
        number += 1 if number < 30 else 11


@pytest.mark.parametrize("decode", ["beam", "list"])
def test_ctrl_c_at_any_time_leaves_the_model_as_it_was(
    recommender: Recommender, decode: Any
) -> None:
    before, state = generated(recommender), state_of(recommender)
    expected = recommender.recommend(["i1"], k=1, decode=decode)
    pool = recommender.engine.model.pool
    count = 0
    for number in interruptions(lambda: recommender.recommend(["i1"], k=1, decode=decode)):
        count += 1
        assert state_of(recommender) == state, number
        assert len(pool) == 0, number
    assert count > 30
    assert recommender.recommend(["i1"], k=1, decode=decode) == expected
    assert generated(recommender) == before


def test_parts_of_a_model_that_train_or_do_not_are_left_so(recommender: Recommender) -> None:
    model: Any = recommender.backbone.model
    expected = recommender.recommend(["i1"], k=2)
    model.train()
    model.model.layers[0].eval()
    before = [part.training for part in model.modules()]
    assert recommender.recommend(["i1"], k=2) == expected
    assert [part.training for part in model.modules()] == before


def test_the_model_itself_may_be_used_beside_a_recommender_by_who_holds_the_lock(
    recommender: Recommender,
) -> None:
    before, expected = generated(recommender), recommender.recommend(["i1"], k=3)
    wrong: list[Any] = []

    def generate() -> None:
        try:
            for _ in range(6):
                with recommender.engine.model.lock:
                    if generated(recommender) != before:
                        wrong.append("other tokens")
        except Exception as error:
            wrong.append(error)

    thread = threading.Thread(target=generate)
    thread.start()
    while thread.is_alive():
        assert recommender.recommend(["i1"], k=3) == expected
    assert not wrong
