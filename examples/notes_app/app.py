"""A notepad that completes documentation while you type: a web application with the agent inside it.

python examples/notes_app/app.py [--verifier HOST:PORT] [--port N]

One agent lives as long as the application does, and its answers are streamed on as lines of JSON. A keystroke closes the
connection, which closes the generator, which cancels the answer on both ends.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request
from fastapi.middleware.trustedhost import TrustedHostMiddleware
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from pydantic import BaseModel

from outrider import DeviceAgent
from outrider.client import CapacityError, Event, InvalidRequestError, OutriderError, Transcript

PAGE = Path(__file__).with_name("page.html")
READ_BACK = 600
"""Characters in front of the cursor that the model reads: prompt and answer must fit its context."""


class Note(BaseModel):
    """What stands in front of the cursor."""

    text: str


def build_app(agent_of: AbstractAsyncContextManager[DeviceAgent]) -> FastAPI:
    """The application around an agent that starts and ends with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with agent_of as app.state.agent:
            yield

    app = FastAPI(title="Notes", lifespan=lifespan)
    # A page elsewhere that has this machine's address under its own name may not ask.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"])
    app.add_exception_handler(OutriderError, refuse)
    app.add_api_route("/", page, methods=["GET"], response_model=None)
    app.add_api_route("/complete", complete, methods=["POST"], response_model=None)
    return app


async def page() -> FileResponse:
    return FileResponse(PAGE)


async def complete(request: Request, note: Note) -> StreamingResponse:
    """How the note may go on, as it becomes known."""
    agent: DeviceAgent = request.app.state.agent
    events = agent.stream(note.text[-READ_BACK:], max_tokens=40, temperature=0.0, stop=["\n\n"])
    first = await anext(events)  # a refusal is raised here, while the answer can still have a status
    return StreamingResponse(lines(first, events), media_type="application/x-ndjson")


async def lines(first: Event, rest: AsyncGenerator[Event, None]) -> AsyncIterator[str]:
    """After every event what is final and what is tentative; who stops reading closes the answer."""
    text = Transcript()
    text.apply(first)
    async with aclosing(rest) as events:
        async for event in events:
            text.apply(event)
            yield json.dumps({"final": text.final_text, "tentative": text.tentative_text}) + "\n"


async def refuse(request: Request, error: Exception) -> JSONResponse:
    kinds = {InvalidRequestError: HTTPStatus.BAD_REQUEST, CapacityError: HTTPStatus.TOO_MANY_REQUESTS}
    status = next((status for kind, status in kinds.items() if isinstance(error, kind)), HTTPStatus.BAD_GATEWAY)
    return JSONResponse({"error": str(error)}, status)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verifier", metavar="HOST:PORT", help="else one runs in this process, too")
    parser.add_argument("--port", type=int, default=8000)
    given = parser.parse_args()
    agent = DeviceAgent.local() if given.verifier is None else DeviceAgent(verifier=given.verifier)
    uvicorn.run(build_app(agent), port=given.port, log_level="warning")


if __name__ == "__main__":
    main()
