"""An answer in the form of OpenAI's responses: whole, and as the events of a stream."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from incatalog.serving.chat_answer import Piece
from incatalog.serving.chat_forms import ChatAnswer, facts
from incatalog.serving.problems import ApiError
from incatalog.serving.response_schemas import (
    Incomplete,
    OutputMessage,
    OutputText,
    ResponseAnswer,
    ResponseFault,
    ResponseRequest,
    ResponseUsage,
)

Status = Literal["in_progress", "completed", "incomplete", "failed"]


@dataclass
class ResponseWriter:
    """Writes one answer; the events of a stream are numbered."""

    body: ResponseRequest
    asked: ChatAnswer
    _events: int = field(default=0, init=False)

    def whole(self) -> ResponseAnswer:
        """The answer when all is said."""
        return self._answer(self._status)

    def begin(self) -> Iterator[str]:
        """The first events: what was understood, and a message without a word."""
        response = self._answer("in_progress").model_dump()
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)
        empty = OutputMessage(id=self._message_id, status="in_progress", content=[])
        yield self._event("response.output_item.added", output_index=0, item=empty.model_dump())
        part = OutputText(text="").model_dump()
        yield self._event("response.content_part.added", **self._place, part=part)

    def piece(self, piece: Piece) -> str:
        """Some text, or an item's title with the item beside it."""
        told: dict[str, Any] = {"delta": piece.text, "logprobs": []}
        if piece.item is not None:
            told |= {"items": [piece.item.model_dump()]}
        return self._event("response.output_text.delta", **self._place, **told)

    def end(self) -> Iterator[str]:
        """The last events, when all is said."""
        text = self.asked.writer.text
        yield self._event("response.output_text.done", **self._place, text=text, logprobs=[])
        part = OutputText(text=text).model_dump()
        yield self._event("response.content_part.done", **self._place, part=part)
        item = self._message(self._status).model_dump()
        yield self._event("response.output_item.done", output_index=0, item=item)
        yield self._event(f"response.{self._status}", response=self.whole().model_dump())

    def failed(self, error: ApiError) -> str:
        """The event that ends an answer which had begun."""
        answer = self._answer("failed")
        kind = "server_error" if error.status >= 500 else "invalid_prompt"
        answer.error = ResponseFault(code=kind, message=error.message)
        return self._event("response.failed", response=answer.model_dump())

    @property
    def _status(self) -> Literal["completed", "incomplete"]:
        return "completed" if self.asked.writer.finish_reason == "stop" else "incomplete"

    @property
    def _message_id(self) -> str:
        return f"msg_{self.asked.answer_id}"

    @property
    def _place(self) -> dict[str, Any]:
        return {"item_id": self._message_id, "output_index": 0, "content_index": 0}

    def _message(self, status: Literal["in_progress", "completed", "incomplete"]) -> OutputMessage:
        writer = self.asked.writer
        said = [OutputText(text=writer.text)]
        return OutputMessage(id=self._message_id, status=status, content=said, items=writer.items)

    def _answer(self, status: Status) -> ResponseAnswer:
        body, asked = self.body, self.asked
        over = status in ("completed", "incomplete")
        used = asked.usage
        usage = ResponseUsage(
            input_tokens=used.prompt_tokens,
            output_tokens=used.completion_tokens,
            total_tokens=used.total_tokens,
        )
        return ResponseAnswer(
            id=f"resp_{asked.answer_id}",
            created_at=asked.created,
            status=status,
            incomplete_details=Incomplete() if status == "incomplete" else None,
            instructions=body.instructions,
            max_output_tokens=body.max_output_tokens,
            metadata=body.metadata or {},
            model=body.model,
            output=[self._message(self._status)] if over else [],
            temperature=body.temperature or 0.0,
            top_p=1.0 if body.top_p is None else body.top_p,
            truncation=body.truncation or "auto",
            usage=usage if over else None,
            **facts(asked) | ({} if over else {"items": []}),
        )

    def _event(self, kind: str, **told: Any) -> str:
        value = {"type": kind, "sequence_number": self._events} | told
        self._events += 1
        return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"
