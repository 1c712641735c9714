"""``outrider generate``: one answer, for a reader or, line by line in JSON, for a program."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TextIO

from rich.console import Console

from device_agent.events import DoneEvent, ErrorEvent, Event, error_object
from device_agent.formats import Told
from device_agent.request import Mode, StreamRequest
from outrider.client import Client, Messages, Options, text_keys
from outrider.display import LiveView, TextView, View, is_watched
from outrider.local import BUNDLED, Emulation, Models, agent_at
from outrider.running import waiting
from outrider.transcript import Transcript
from speculation.errors import OutriderError

MAX_SHOWN_BEFORE = 200


@dataclass(frozen=True, slots=True)
class Request:
    """What to write; what is None is the agent's default. ``is_chat``: the prompt is a user's message, behind the system's
    where there is one.

    Raises ``InvalidRequestError`` for what no agent would serve, before anything is started.
    """

    prompt: str
    mode: Mode = Mode.COLLABORATE
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    is_chat: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        StreamRequest.from_json({**text_keys(self.text), **self.options()})

    @property
    def text(self) -> str | Messages:
        """The prompt, or the conversation."""
        if not self.is_chat:
            return self.prompt
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]

    def options(self) -> Options:
        """The fields beside the prompt, as the client takes them."""
        options: Options = {"mode": self.mode.value}
        if self.temperature is not None:
            options["temperature"] = self.temperature
        if self.top_p is not None:
            options["top_p"] = self.top_p
        if self.top_k is not None:
            options["top_k"] = self.top_k
        if self.max_tokens is not None:
            options["max_tokens"] = self.max_tokens
        if self.seed is not None:
            options["seed"] = self.seed
        return options


class JsonLines:
    """Prints events, one JSON object a line. Use it as a context: an error of the tree that leaves it is the last event."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self.begin()

    def begin(self, **extra: str) -> None:
        """A stream begins; each of its lines starts with the keys of ``extra``."""
        self._extra = extra
        self._next_seq = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, OutriderError):
            self.show(ErrorEvent(self._next_seq, error_object(error)))

    def show(self, event: Told) -> None:
        self._next_seq = event.seq + 1
        print(json.dumps(self._extra | event.to_json(), ensure_ascii=False), file=self._file, flush=True)


def told(is_json: bool) -> AbstractContextManager[object]:
    """For what is looked at before anything is started: a refusal, too, is the last event, where events are asked for."""
    return JsonLines(sys.stdout) if is_json else nullcontext()


async def run(
    request: Request,
    emulation: Emulation | None,
    agent: str | None,
    is_json: bool,
    models: Models = BUNDLED,
    key: str | None = None,
) -> None:
    """Write the answer to standard output. ``emulation`` and ``models`` count only where ``agent`` is None, ``key`` only where
    it is not.
    """
    if is_json:
        with JsonLines(sys.stdout) as lines:
            async with agent_at(agent, emulation, models) as url, Client(url, key=key) as client:
                await pass_on(client, request, lines)
        return
    async with client_at(agent, emulation, models, key) as client:
        done, _ = await answer(client, request, _view(request))
    num_unverified = len(done.token_ids) - done.verified_count
    if num_unverified and request.mode is not Mode.DEVICE:
        told = f"the last {num_unverified} of {len(done.token_ids)} tokens are the draft's alone"
        print(f"outrider: not verified: {told}", file=sys.stderr, flush=True)


async def pass_on(client: Client, request: Request, lines: JsonLines) -> DoneEvent:
    """Print every event of an answer. Returns the last; raises what the client raises."""
    async for event in _events(client, request):
        lines.show(event)
        if isinstance(event, DoneEvent):
            done = event
    return done


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
    async with aclosing(client.stream(request.text, **request.options())) as events:
        async for event in events:
            yield event


@asynccontextmanager
async def client_at(
    agent: str | None, emulation: Emulation | None, models: Models, key: str | None, **settings: Any
) -> AsyncIterator[Client]:
    """A client of the agent, started with ``settings`` where none is named; a terminal is told of the wait for that."""
    async with AsyncExitStack() as stack:
        with waiting("loading the models") if agent is None else nullcontext():
            url = await stack.enter_async_context(agent_at(agent, emulation, models, **settings))
        yield await stack.enter_async_context(Client(url, key=key))


def end_of(prompt: str) -> str:
    """What an answer on a terminal is shown behind."""
    return prompt.rpartition("\n")[2][-MAX_SHOWN_BEFORE:]


def _view(request: Request) -> View:
    console = Console(highlight=False)
    if not is_watched(console):
        return TextView(sys.stdout)
    return LiveView(console, before="" if request.is_chat else end_of(request.prompt))
