from __future__ import annotations

from pathlib import Path

from incatalog.artifacts import fingerprint
from incatalog.data.catalog import Catalog, Item
from incatalog.data.interactions import Histories
from incatalog.evaluation.example_cards import (
    conversation_example,
    example_cards,
    prepared_data,
)
from scored import MISSED, scored_run


def test_users_are_those_that_the_best_run_found_and_those_that_none_did(tmp_path: Path) -> None:
    best = scored_run(tmp_path / "b", "blend", [MISSED, MISSED, 2, 1, MISSED])
    other = scored_run(tmp_path / "c", "cgen", [1, MISSED, MISSED, 1, MISSED], decode="beam")

    def users(count: int) -> list[str]:
        return [card.user_id for card in example_cards([best, other], best, count, None)]

    assert users(0) == []
    assert users(2) == ["u2", "u1"]
    assert users(3) == ["u2", "u3", "u1"]
    assert users(9) == ["u2", "u3", "u1", "u4", "u0"]
    [card] = example_cards([best, other], best, 1, None)
    assert (card.found, card.runs, card.target, card.history) == (1, 2, "iu2", None)
    assert [one.names for one in card.lists] == [("blend",), ("cgen",)]
    assert card.lists[0].items == (
        ("Title b1", "item"), ("Title iu2", "hit"), ("Title b3", "item")
    )  # fmt: skip


def test_runs_that_say_the_same_are_one_list(tmp_path: Path) -> None:
    one = scored_run(tmp_path / "b", "cgen", [1], decode="beam")
    two = scored_run(tmp_path / "c", "cgen", [1], decode="list", outside=0)
    three = scored_run(tmp_path / "d", "cgen", [1], decode="greedy", outside=1)
    [card] = example_cards([one, two, three], one, 2, None)
    assert [found.names for found in card.lists] == [
        ("cgen", "cgen (list)"),
        ("cgen (greedy list)",),
    ]
    assert card.lists[1].items[-1] == ("Made Up", "outside")


def test_histories_are_shown_while_the_data_is_what_it_was(tmp_path: Path) -> None:
    titles = [f"Film {row}" for row in range(14)]
    catalog = Catalog.from_items([Item(f"iu{row}", title) for row, title in enumerate(titles)])
    catalog.save(tmp_path)
    Histories.from_lists(["u0"], [[*range(1, 14), 0]]).save(tmp_path, catalog)
    names = ("metas.jsonl", "sequential.jsonl")
    inputs = {name: fingerprint([tmp_path / name]) for name in names}
    run = scored_run(tmp_path / "r", "knn", [1], inputs=inputs, config={"data": str(tmp_path)})
    data = prepared_data(run)
    assert data is not None
    [card] = example_cards([run], run, 1, data)
    # The run says that it saw four items.
    assert card.history == ("Film 1", "Film 2", "Film 3", "Film 4")
    assert card.target == "Film 0"
    with (tmp_path / "metas.jsonl").open("a") as file:
        file.write('{"item_id": "new", "title": "New"}\n')
    assert prepared_data(run) is None


def test_a_conversation_has_its_items_marked() -> None:
    record = {
        "user_id": "u", "target": "i2", "history": ["A", "B"], "question": "q", "reply": "r",
        "example": {"question": "e", "answer": "f"},
        "recommendation": [
            {"text": "1. "}, {"title": "T1", "item": "i1"}, {"title": "T2", "item": "i2"},
            {"title": "X", "item": None},
        ],
    }  # fmt: skip
    turns = conversation_example(record, "cgen", 3)["turns"]
    assert [turn["role"] for turn in turns] == ["user", "assistant"] * 3
    assert [(part["kind"], part["text"]) for part in turns[3]["parts"]] == [
        ("text", "1. "), ("item", "T1"), ("hit", "T2"), ("outside", "X")
    ]  # fmt: skip
    assert "A → B" in turns[2]["parts"][0]["text"]
