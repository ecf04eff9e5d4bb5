"""Conversations over HTTP in the form of OpenAI's responses: whole, or as a stream of events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from incatalog.errors import IncatalogError
from incatalog.serving.chat_answer import Piece
from incatalog.serving.chats import Chats
from incatalog.serving.event_stream import EventStream, exhausted, unless_gone
from incatalog.serving.problems import PROBLEMS, ApiError, api_error
from incatalog.serving.response_forms import ResponseWriter
from incatalog.serving.response_schemas import ResponseAnswer, ResponseRequest


@dataclass
class ResponseEndpoints:
    """Answers requests for responses; none is kept."""

    chats: Chats

    def add_to(self, app: FastAPI) -> None:
        """Adds the endpoint to an application."""

        @app.post("/v1/responses", responses=PROBLEMS, response_model=ResponseAnswer)
        async def respond(body: ResponseRequest, request: Request) -> Response:
            """Continues a conversation, as OpenAI's responses do, as far as they are text."""
            with ExitStack() as taken:
                with _in_its_words():
                    asked = await self.chats.begin(body.chat, request.state.key.name, taken)
                if asked.left_out and body.truncation == "disabled":
                    why = f"input: its {asked.left_out} oldest messages do not fit"
                    why = f"{why}; send fewer, or leave truncation out"
                    raise ApiError(400, why, param="input", code="context_length_exceeded")
                writer = ResponseWriter(body, asked)
                pieces = self.chats.pieces(asked)
                if not body.stream:
                    await unless_gone(request, exhausted(pieces))
                    return JSONResponse(writer.whole().model_dump())
                # An answer that cannot be begun is an error with a status of its own.
                first = await unless_gone(request, anext(pieces, []))
                end = taken.pop_all().close
            grown = self.chats.grown(asked, first, pieces, end)
            return EventStream(_events(writer, grown), end)


async def _events(writer: ResponseWriter, grown: AsyncIterator[list[Piece]]) -> AsyncIterator[str]:
    """The answer as server-sent events."""
    try:
        yield "".join(writer.begin())
        async for several in grown:
            yield "".join(writer.piece(piece) for piece in several)
        yield "".join(writer.end())
    except Exception as error:
        yield writer.failed(api_error(error))


@contextmanager
def _in_its_words() -> Iterator[None]:
    """Names the fields of a chat as those of a response in errors."""
    try:
        yield
    except (ApiError, IncatalogError) as error:
        found = api_error(error)
        if found.param != "messages":
            raise
        message = f"input{found.message.removeprefix('messages')}"
        raise ApiError(found.status, message, param="input", code=found.code) from error
