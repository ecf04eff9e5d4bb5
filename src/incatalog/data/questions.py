"""Questions with answers, such as GSM8K (arXiv 2110.14168)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from incatalog.data.conversations import Conversation, load_conversations
from incatalog.data.documents import json_lines, read_text
from incatalog.data.fields import FilePlace


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
        return tuple(_opening(conversation) for conversation in load_conversations(path))
    found = []
    for line, record in json_lines(path):
        place = FilePlace(path, line)
        question, answer = record.get("question"), record.get("answer")
        if not isinstance(question, str) or not isinstance(answer, str):
            raise place.error(
                f"fields {', '.join(sorted(record)) or 'none'}; expected `question` and `answer` "
                "as text, or a file in ShareGPT format"
            )
        question, answer = place.unicode("question", question), place.unicode("answer", answer)
        found.append(Question(question, answer))
    return tuple(found)


def _opening(conversation: Conversation) -> Question:
    asked, answered = [turn for turn in conversation if turn.role != "system"][:2]
    return Question(asked.text, answered.text)
