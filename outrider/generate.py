"""``outrider generate``: one answer, for a reader or, line by line in JSON, for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console

from device_agent.events import DoneEvent, ErrorEvent, Event, error_object
from device_agent.request import Mode, StreamRequest
from outrider.client import Client, Options
from outrider.display import LiveView, TextView, View
from outrider.local import Emulation, agent_at
from outrider.transcript import Transcript
from speculation.errors import OutriderError


@dataclass(frozen=True, slots=True)
class Request:
    """What to write. Raises ``InvalidRequestError`` for what no agent would serve, before anything is started."""

    prompt: str
    mode: Mode = Mode.COLLABORATE
    max_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        StreamRequest.from_json({"prompt": self.prompt, **self.options()})

    def options(self) -> Options:
        """The fields beside the prompt, as the client takes them."""
        options: Options = {"mode": self.mode.value, "max_tokens": self.max_tokens, "temperature": self.temperature}
        options |= {"top_p": self.top_p, "top_k": self.top_k}
        if self.seed is not None:
            options["seed"] = self.seed
        return options


async def run(request: Request, emulation: Emulation | None, agent: str | None, is_json: bool) -> None:
    """Write the answer to standard output. ``emulation`` counts only where ``agent`` is None."""
    try:
        async with agent_at(agent, emulation) as url, Client(url) as client:
            if is_json:
                await print_events(client, request, sys.stdout)
            else:
                await answer(client, request, _view())
    except OutriderError as error:
        if is_json:
            print_event(ErrorEvent(0, error_object(error)), sys.stdout)
        raise


async def print_events(client: Client, request: Request, file: TextIO, **extra: str) -> DoneEvent:
    """One JSON event a line, behind the keys of ``extra``. Returns the last; raises what the client raises."""
    async for event in _events(client, request):
        print_event(event, file, **extra)
        if isinstance(event, DoneEvent):
            done = event
    return done


def print_event(event: Event, file: TextIO, **extra: str) -> None:
    print(json.dumps(extra | event.to_json(), ensure_ascii=False), file=file, flush=True)


async def answer(client: Client, request: Request, view: View) -> tuple[DoneEvent, Transcript]:
    """Draw the answer in a view. Raises what the client raises."""
    transcript = Transcript()
    with view:
        async for event in _events(client, request):
            transcript.apply(event)
            view.show(event, transcript)
            if isinstance(event, DoneEvent):
                done = event
    return done, transcript


async def _events(client: Client, request: Request) -> AsyncIterator[Event]:
    async with aclosing(client.stream(request.prompt, **request.options())) as events:
        async for event in events:
            yield event


def _view() -> View:
    console = Console(highlight=False)
    return LiveView(console) if console.is_terminal else TextView(sys.stdout)
