from __future__ import annotations

import json

import pytest

from incatalog.data.conversations import Turn, load_conversations
from incatalog.errors import DataError


def conversation(*turns: tuple[str, str]) -> dict:
    return {"id": "x", "conversations": [{"from": who, "value": text} for who, text in turns]}


GOOD = conversation(("system", "S"), ("human", "Q"), ("gpt", "A"))


def test_list_and_lines_give_the_same(tmp_path) -> None:
    openai = {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]}
    (tmp_path / "list.json").write_text(json.dumps([GOOD, openai], indent=1))
    (tmp_path / "lines.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(openai) + "\n")
    expected = (
        (Turn("system", "S"), Turn("user", "Q"), Turn("assistant", "A")),
        (Turn("user", "Q"), Turn("assistant", "A")),
    )
    assert load_conversations(tmp_path / "list.json") == expected
    assert load_conversations(tmp_path / "lines.jsonl") == expected


def test_turns_are_made_to_alternate(tmp_path) -> None:
    untidy = conversation(
        ("gpt", "before"),
        ("human", "one"),
        ("human", "two"),
        ("gpt", " "),
        ("gpt", "answer"),
        ("human", "open question"),
    )
    unanswered = conversation(("human", "Q"))
    (tmp_path / "x.json").write_text(json.dumps([unanswered, untidy]))
    assert load_conversations(tmp_path / "x.json") == (
        (Turn("user", "one\n\ntwo"), Turn("assistant", "answer")),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"x: the file is empty"),
        ("[]", r"x: no conversation holds a question and its answer"),
        ("[{", r"x:1: not valid JSON"),
        ("[3]", r"x: conversation 0: expected an object, found int"),
        ('[{"id": 1}]', r"x: conversation 0: no list `conversations`"),
        (json.dumps(GOOD) + '\n{"text": 1}', r"x:2: no list `conversations`"),
        ('{"conversations": [{"from": "robot", "value": "x"}]}', r"x:1: role 'robot'"),
        ('{"conversations": [{"from": "human", "value": null}]}', r"x:1: a turn of human has no"),
        ('{"conversations": ["hi"]}', r"x:1: a turn is not an object"),
        ("[" * 100_000, r"x: not usable JSON: nested too deeply"),
        ('[{"conversations": ' + "[" * 100_000, r"x: not usable JSON: nested too deeply"),
        ('{"conversations": ' + "[" * 100_000, r"x:1: not usable JSON: nested too deeply"),
        ("[" + "1" * 5000 + "]", r"x: not usable JSON: a number has too many digits"),
        (
            json.dumps([GOOD, conversation(("human", "q \ud83d"), ("gpt", "a"))]),
            r"x: conversation 1: a turn of human holds half a surrogate pair",
        ),
        (
            json.dumps(GOOD) + "\n" + json.dumps(conversation(("human", "q"), ("gpt", "\udc00"))),
            r"x:2: a turn of gpt holds half a surrogate pair",
        ),
        ('{"conversations": [{"from": {"a": 1}, "value": "x"}]}', r"x:1: role an object of a turn"),
    ],
)
def test_broken_files_name_the_place(tmp_path, text, message) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(DataError, match=message):
        load_conversations(tmp_path / "x")


def test_real_conversations(shared_data) -> None:
    found = load_conversations(shared_data / "chat" / "sharegpt_sample.json")
    assert len(found) == 500
    for turns in found:
        roles = [turn.role for turn in turns if turn.role != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert all(turn.text.strip() for turn in turns)


def test_a_mark_at_the_beginning_and_whole_pairs_are_fine(tmp_path) -> None:
    smile = conversation(("human", "\U0001f600"), ("gpt", "A"))
    expected = ((Turn("user", "\U0001f600"), Turn("assistant", "A")),)
    for text in (json.dumps([smile]), json.dumps(smile)):
        assert "\\ud83d\\ude00" in text
        (tmp_path / "x").write_text("\ufeff" + text, encoding="utf-8")
        assert load_conversations(tmp_path / "x") == expected
