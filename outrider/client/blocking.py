"""A client of a device agent for code that runs no event loop: the asynchronous one, on a loop of its own.

::

    with SyncClient("http://127.0.0.1:8080") as client:
        for event in client.stream("The module provides", max_tokens=64, temperature=0.8, seed=7):
            ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Generator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from device_agent.events import DoneEvent, Event
from device_agent.tasks.graph_events import GraphEvent
from outrider.client.asynchronous import DEFAULT_URL, Client
from outrider.client.options import Messages, Options

T = TypeVar("T")


class SyncClient:
    """One agent, from one thread. Its arguments, and what is raised, are those of ``Client``. Where a loop runs already it
    raises ``RuntimeError``: use ``Client`` there.
    """

    def __init__(self, url: str = DEFAULT_URL, timeout_s: float = 60.0, key: str | None = None, ca: Path | None = None) -> None:
        self._client = Client(url, timeout_s, key, ca)
        self._runner = asyncio.Runner()
        self._is_closed = False
        self._read: dict[int, AsyncGenerator[Any, None]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Leaves what is still being read. Safe to call twice."""
        if self._is_closed:
            return
        try:
            for events in list(self._read.values()):  # by its outermost: a loop that closes ends all its generators at once
                self._run(_leave(events))
            self._run(self._client.aclose())
        finally:
            self._is_closed = True
            self._runner.close()

    def health(self) -> Mapping[str, Any]:
        """What the agent says of itself. Raises ``LinkError`` when nobody answers."""
        return self._run(self._client.health())

    def stream(self, prompt: str | Messages, **options: Unpack[Options]) -> Generator[Event, None, None]:
        """The events of one answer, as ``Client.stream`` gives them. Leaving early (close the generator) cancels the answer."""
        yield from self._each(self._client.stream(prompt, **options))

    def generate(self, prompt: str | Messages, **options: Unpack[Options]) -> DoneEvent:
        """One whole answer, as ``Client.generate`` gives it."""
        return self._run(self._client.generate(prompt, **options))

    def resume(self, session_id: str, starting_after: int | None = None) -> Generator[Event, None, None]:
        """The events of an answer behind the one with this ``seq`` (None: all of them), as ``Client.resume`` gives them."""
        yield from self._each(self._client.resume(session_id, starting_after))

    def pause(self, session_id: str) -> str:
        """Let an answer stop for a while, as ``Client.pause`` does."""
        return self._run(self._client.pause(session_id))

    def unpause(self, session_id: str) -> str:
        """Let a paused answer go on, as ``Client.unpause`` does."""
        return self._run(self._client.unpause(session_id))

    def cancel(self, session_id: str) -> str:
        """End an answer, as ``Client.cancel`` does."""
        return self._run(self._client.cancel(session_id))

    def tasks(self, graph: Mapping[str, Any]) -> Generator[GraphEvent, None, None]:
        """The events of a graph of sub-tasks, as ``Client.tasks`` gives them."""
        yield from self._each(self._client.tasks(graph))

    def _each(self, events: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        self._read[id(events)] = events
        try:
            while (event := self._run(_next(events))) is not None:
                yield event
        finally:
            del self._read[id(events)]
            if not self._is_closed:  # else its loop has closed them
                self._run(_leave(events))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._runner.run(work)
        finally:
            work.close()


async def _next(events: AsyncGenerator[T, None]) -> T | None:
    return await anext(events, None)


async def _leave(events: AsyncGenerator[T, None]) -> None:
    await events.aclose()
