from __future__ import annotations

import json
from pathlib import Path

import pytest

from incatalog.data.questions import Question, load_questions
from incatalog.errors import DataError


def test_pairs_and_sharegpt_conversations_are_read(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"question": "1+1?", "answer": "2"}\n\n{"question": "a", "answer": "b"}\n')
    assert load_questions(pairs) == (Question("1+1?", "2"), Question("a", "b"))
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}]
    turns += [{"from": "gpt", "value": "a"}, {"from": "human", "value": "more"}]
    conversation = {"conversations": turns}
    for name, text in (("one", json.dumps([conversation])), ("line", json.dumps(conversation))):
        (tmp_path / name).write_text(text)
        assert load_questions(tmp_path / name) == (Question("q", "a"),)


@pytest.mark.parametrize("line", ['{"question": "a"}', '{"question": 1, "answer": "b"}'])
def test_a_line_without_question_or_answer_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text('{"question": "a", "answer": "b"}\n' + line)
    with pytest.raises(DataError, match=r"broken\.jsonl:2: .*expected `question` and `answer`"):
        load_questions(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question": "\\ud83d", "answer": "b"}', "x:1: question holds half a surrogate pair"),
        ('{"question": "a", "answer": "\\udc00"}', "x:1: answer holds half a surrogate pair"),
        ("[" * 100_000, "x: not usable JSON: nested too deeply"),
        ('{"question": ' + "[" * 100_000, "x:1: not usable JSON: nested too deeply"),
    ],
)
def test_what_cannot_be_tokenised_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x"
    path.write_text("\ufeff" + text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_questions(path)
    assert str(caught.value).startswith(f"{tmp_path}/{message}")
