"""A graph of sub-tasks that runs: each an ordinary answer, begun once it is ready and there is a place for it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from device_agent.agent import DeviceAgent
from device_agent.events import SHOWN, DoneEvent, ErrorEvent, Event, SessionEvent, error_object
from device_agent.request import StreamRequest
from device_agent.stream import Stream
from device_agent.tasks.board import OPEN, Board, State, has_private_text
from device_agent.tasks.graph import TaskGraph, in_task
from device_agent.tasks.graph_events import GraphBegunEvent, GraphDoneEvent, GraphEvent, OutputEvent, TaskEvent
from device_agent.tasks.group import Group
from speculation.errors import CapacityError, InvalidRequestError, LinkError, OutriderError

LEAST_RETRY_S = 0.05
MAX_REFUSED_S = 300.0
"""A sub-task that is ready, and that the agent has no room for during so long, fails with that refusal."""

Starter = Callable[[Group, StreamRequest], Awaitable[Stream]]


class GraphRun:
    """Of one graph. ``open`` judges and begins it, ``work`` is to run in a task until it is over, ``take`` gives its events.

    ``width`` sub-tasks run at once at most, by default as many as the agent has places. ``start`` begins an answer, on whose
    account it may be. Where nobody takes events, answers are not read on.
    """

    def __init__(self, agent: DeviceAgent, graph: TaskGraph, width: int | None = None, start: Starter = Group.start) -> None:
        self.graph_id = secrets.token_hex(16)
        self.graph = graph
        self._agent = agent
        self._group = Group(agent)
        self._width = width or agent.config.num_places
        self._start = start
        self._begun: list[tuple[str, Stream]] = []
        self._refused: dict[str, float] = {}
        self._retry_s: float | None = None
        self._refusal: OutriderError = LinkError("no sub-task could begin")
        self._began_s = asyncio.get_running_loop().time()
        self._board: Board | None = None
        self._numbers = itertools.count()
        self._events: list[GraphEvent] = []
        self._limit = agent.config.max_stream_events
        self._arrived, self._taken, self._news, self._over = (asyncio.Event() for _ in range(4))
        self._error: OutriderError | None = None
        self._too_long: asyncio.TimerHandle | None = None
        self._callbacks: list[Callable[[], None]] = []

    @property
    def board(self) -> Board:
        """Where each sub-task is; there once ``open`` has judged the graph."""
        assert self._board is not None
        return self._board

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    @property
    def status(self) -> str:
        """running, paused, or how it ended: done, failed, cancelled."""
        if not self.is_over:
            return "paused" if self._group.is_paused else "running"
        if self._error is not None:
            return "cancelled"
        return "done" if all(entry.state is State.DONE for entry in self.board.entries.values()) else "failed"

    @property
    def now_ms(self) -> float:
        """Since it was asked for; stands still once it is over."""
        if self.is_over:
            return max((entry.ended_ms or 0.0 for entry in self.board.entries.values()), default=0.0)
        return 1000 * (asyncio.get_running_loop().time() - self._began_s)

    async def open(self) -> None:
        """Judge all of it, and begin what is ready.

        Raises ``InvalidRequestError`` for what could never run here, ``CapacityError`` where nothing of it can begin now, and
        what else keeps the first answers from beginning: then none of it runs.
        """
        max_tokens = {}
        for name, task in self.graph.tasks.items():
            try:
                max_tokens[name] = await self._agent.judge(task.least())
            except InvalidRequestError as error:
                raise in_task(name, error) from error
        self._board = Board(self.graph, max_tokens)
        tasks = [entry.to_json() for entry in self.board.entries.values()]
        self._put(lambda seq: GraphBegunEvent(seq, self.graph_id, min(self._width, len(tasks)), tasks))
        try:
            await self._fill()
            if not self._begun:
                raise self._refusal
        except BaseException:
            await self._group.aclose()
            raise

    async def work(self) -> None:
        """Until all sub-tasks are over."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while not self.board.is_over:
                    while self._begun:
                        tasks.create_task(self._follow(*self._begun.pop()))
                    await self._wait()
                    await self._fill()
                await self._group.aclose()  # those of a graph that was cancelled
        finally:
            self._cancel(LinkError("the agent stopped the graph of sub-tasks"))
            await self._group.aclose()
            self._finish()

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """It works while the block does; leaving it cancels what still runs."""
        failure: BaseException | None = None
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.work())
            try:
                yield
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # told on below, outside of the group, which would wrap it
                failure = error
            finally:
                await self.aclose()
        if failure is not None:
            raise failure

    async def take(self) -> list[GraphEvent]:
        """All events that are there, at least one; an empty list behind the last. Nothing is lost where it is cancelled."""
        while not self._events and not self.is_over:
            self._arrived.clear()
            await self._arrived.wait()
        events, self._events = self._events, []
        self._taken.set()
        return events

    def drop(self) -> None:
        """Nobody takes events any more. Where it is over, what was not taken goes."""
        self._events.clear()
        self._taken.set()

    def pause(self) -> None:
        """All that runs, at once; nothing further begins. After the agent's ``max_pause_s`` the whole is cancelled."""
        if not self.is_over and not self._group.is_paused:
            self._group.pause()
            self._too_long = asyncio.get_running_loop().call_later(self._agent.config.max_pause_s, self._give_up)

    def resume(self) -> None:
        """Let it go on. Nothing for one that is not paused."""
        if self._too_long is not None:
            self._too_long.cancel()
            self._too_long = None
            self._refused.clear()  # paused, nothing was tried
        self._group.resume()
        self._news.set()

    async def aclose(self) -> None:
        """Cancel what still runs; all has ended when this returns. Needs ``work`` to run, or to be over. Safe to call twice."""
        self._cancel(LinkError("the graph of sub-tasks was cancelled"))
        await self._group.aclose()
        await self._over.wait()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back once all of it is over."""
        self._callbacks.append(callback)

    async def _fill(self) -> None:
        """Begin what is ready, as far as there is room."""
        self._retry_s = None
        for name in self.board.ready:
            if self.board.num_running >= self._width or self._group.is_paused or self._error is not None:
                return
            try:
                await self._begin(name)
            except OutriderError as error:
                self._refusal = error
                if isinstance(error, CapacityError):
                    self._refuse(name, error)
                else:
                    self._fail(name, error_object(error))

    async def _begin(self, name: str) -> None:
        request = self.board.request(name, self._agent.config.max_prompt_bytes)
        stream = await self._start(self._group, request)
        if self._error is not None:  # cancelled while the prompt was encoded
            await stream.aclose()
            return
        self._begun.append((name, stream))
        self._refused.pop(name, None)
        self.board.begin(name, self.now_ms)
        self._tell(name)

    def _refuse(self, name: str, error: CapacityError) -> None:
        """There is no room for it now: it is tried again, for a while."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._refused.setdefault(name, now_s) >= MAX_REFUSED_S:
            self._fail(name, error_object(error))
        self._retry_s = max(LEAST_RETRY_S, error.retry_after_s or self._agent.config.retry_after_s)

    async def _wait(self) -> None:
        """Until something ended, or it is time to try again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._retry_s):
                await self._news.wait()
        self._news.clear()

    async def _follow(self, name: str, stream: Stream) -> None:
        """Pass an answer's events on, as fast as they are taken."""
        last: Event | None = None
        while events := await stream.take():
            for last in events:
                self._note(name, last)
            while len(self._events) >= self._limit and self._error is None:
                self._taken.clear()
                await self._taken.wait()
        self._ended(name, last)
        self._news.set()

    def _note(self, name: str, event: Event) -> None:
        entry = self.board.entries[name]
        if entry.state is not State.RUNNING:  # all of it was cancelled
            return
        if isinstance(event, SessionEvent):
            entry.is_private = self.graph.tasks[name].request.is_private or has_private_text(event)
        elif entry.visible_ms is None and isinstance(event, (*SHOWN, DoneEvent)):
            entry.visible_ms = self.now_ms
        self._put(lambda seq: OutputEvent(seq, name, event))

    def _ended(self, name: str, last: Event | None) -> None:
        if self.board.entries[name].state is not State.RUNNING:
            return
        if isinstance(last, DoneEvent) and last.finish_reason != "paused":
            self.board.done(name, last.text, last.finish_reason, len(last.token_ids), self.now_ms)
            self._tell(name)
        elif isinstance(last, ErrorEvent):
            self._fail(name, last.error)
        else:
            self._fail(name, error_object(LinkError("its answer was paused for too long, or was read by somebody else")))

    def _fail(self, name: str, error: Mapping[str, Any]) -> None:
        if self.board.entries[name].state not in OPEN:  # cancelled while it was to begin
            return
        for ended in (name, *self.board.fail(name, error, self.now_ms)):
            self._tell(ended)

    def _give_up(self) -> None:
        limit_s = self._agent.config.max_pause_s
        self._cancel(LinkError(f"the graph of sub-tasks was paused for {limit_s:g} s, which is as long as it may be"))

    def _cancel(self, error: OutriderError) -> None:
        """All that is not over is not going on; a graph that is over stays as it is."""
        if self.board.is_over:
            return
        self._error = error
        for name in self.board.cancel(error_object(error), self.now_ms):
            self._tell(name)
        self._taken.set()
        self._news.set()

    def _finish(self) -> None:
        self.resume()
        self._over.set()
        self._put(self._last)
        for callback in self._callbacks:
            callback()

    def _last(self, seq: int) -> GraphDoneEvent:
        entries = self.board.entries
        results = {name: entry.result() for name, entry in entries.items()}
        schedule = [entry.to_json() for entry in entries.values()]
        took_ms = round(self.now_ms, 3)
        return GraphDoneEvent(seq, self.graph_id, self.status, took_ms, self.board.critical(), results, schedule)

    def _tell(self, name: str) -> None:
        entry = self.board.entries[name]
        at_ms = round(self.now_ms, 3)
        self._put(lambda seq: TaskEvent(seq, name, entry.state.value, at_ms, entry.error))

    def _put(self, event: Callable[[int], GraphEvent]) -> None:
        self._events.append(event(next(self._numbers)))
        self._arrived.set()


@contextlib.asynccontextmanager
async def running(agent: DeviceAgent, graph: TaskGraph, width: int | None = None) -> AsyncIterator[GraphRun]:
    """A graph that runs while the block does; leaving it cancels what still runs. Raises as ``GraphRun.open``."""
    run = GraphRun(agent, graph, width)
    await run.open()
    async with run.working():
        yield run
