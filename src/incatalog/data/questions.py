"""Questions with answers, such as GSM8K (arXiv 2110.14168)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.data.conversations import load_conversations
from incatalog.data.documents import json_lines, read_text


@dataclass(frozen=True, slots=True)
class Question:
    """A question and the answer to it."""

    question: str
    answer: str


def load_questions(path: str | Path) -> tuple[Question, ...]:
    """Reads questions: one JSON object a line with `question` and `answer`, or a ShareGPT file.

    Of each conversation of a ShareGPT file the first question and its answer are taken.
    """
    path = Path(path)
    text = read_text(path).lstrip()
    first = text.split("\n", 1)[0]
    if text.startswith("[") or '"conversations"' in first or '"messages"' in first:
        found = load_conversations(path)
        texts = ([turn.text for turn in one if turn.role != "system"] for one in found)
        return tuple(Question(asked, answered) for asked, answered, *_ in texts)
    questions = []
    for place, record in json_lines(path):
        question, answer = record.get("question"), record.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            expected = "`question` and `answer` as text, or a file in ShareGPT format"
            names = ", ".join(sorted(record)) or "none"
            raise place.error(f"fields {names}; expected {expected}")
        question, answer = place.unicode("question", question), place.unicode("answer", answer)
        questions.append(Question(question, answer))
    return tuple(questions)
