"""Conversations over HTTP in the form of OpenAI's chat completions: whole, or as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from incatalog.serving.answer_schemas import ChatCompletion
from incatalog.serving.chat_answer import Piece
from incatalog.serving.chat_forms import ChatAnswer, ChunkWriter, completion, event_line
from incatalog.serving.chat_schemas import ChatRequest
from incatalog.serving.chats import Chats
from incatalog.serving.event_stream import EventStream, exhausted, unless_gone
from incatalog.serving.problems import PROBLEMS, api_error


@dataclass
class ChatEndpoints:
    """Answers chats."""

    chats: Chats

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoint to an application."""

        @app.post("/v1/chat/completions", responses=PROBLEMS, response_model=ChatCompletion)
        async def chat(body: ChatRequest, request: Request) -> Response:
            """Continues a conversation, as OpenAI's chat completions do."""
            with ExitStack() as taken:
                asked = await self.chats.begin(body, request.state.key.name, taken)
                pieces = self.chats.pieces(asked)
                if not body.stream:
                    await unless_gone(request, exhausted(pieces))
                    await self.chats.keep(asked)
                    return JSONResponse(completion(asked).model_dump())
                # An answer that cannot be begun is an error with a status of its own.
                first = await unless_gone(request, anext(pieces, []))
                end = taken.pop_all().close
            grown = self.chats.grown(asked, first, pieces, end)
            return EventStream(_events(asked, grown), end)


async def _events(asked: ChatAnswer, grown: AsyncIterator[list[Piece]]) -> AsyncIterator[str]:
    """The answer as server-sent events."""
    chunks = ChunkWriter(asked)
    try:
        yield event_line(chunks.first())
        async for several in grown:
            yield "".join(event_line(chunks.piece(piece)) for piece in several)
        yield event_line(chunks.last())
        if chunks.tells_usage:
            yield event_line(chunks.usage())
    except Exception as error:
        yield event_line(api_error(error).body())
    yield "data: [DONE]\n\n"
