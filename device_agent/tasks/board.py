"""Where each sub-task of a graph is, and which of those that are ready begins next. Pure; times are given.

The next is the one with the longest chain still before it, in tokens; then the one that most others wait for; then the first in
order. A sub-task that failed takes those that wait for it along, with its reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from device_agent.events import SessionEvent
from device_agent.request import StreamRequest
from device_agent.tasks.graph import TaskGraph, leaves

Json = dict[str, Any]


class State(StrEnum):
    """``skipped``: it never began, because something that it waits for did not end well, or the whole was cancelled."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


def has_private_text(begun: SessionEvent) -> bool:
    """Whether passages of private documents took part in an answer that began."""
    told = begun.to_json().get("retrieval") or {}
    return any(chunk.get("label") == "private" for chunk in told.get("chunks", ()))


OPEN = frozenset({State.WAITING, State.RUNNING})


@dataclass(slots=True)
class Entry:
    """One sub-task in the schedule; times in milliseconds from the beginning of the whole, None where they did not come.
    ``lane`` is the lowest number that nobody else had while it ran."""

    name: str
    after: tuple[str, ...]
    max_tokens: int
    remaining_tokens: int
    state: State = State.WAITING
    lane: int | None = None
    ready_ms: float | None = None
    began_ms: float | None = None
    visible_ms: float | None = None
    ended_ms: float | None = None
    tokens: int = 0
    text: str | None = None
    finish_reason: str | None = None
    error: Mapping[str, Any] | None = None
    is_private: bool = False

    def to_json(self) -> Json:
        """All but what was written, and how it ended."""
        told = {"task": self.name, "after": list(self.after), "state": self.state.value, "lane": self.lane}
        told |= {"max_tokens": self.max_tokens, "remaining_tokens": self.remaining_tokens, "tokens": self.tokens}
        times = {"ready_ms": self.ready_ms, "began_ms": self.began_ms, "visible_ms": self.visible_ms, "ended_ms": self.ended_ms}
        return told | {name: None if time_ms is None else round(time_ms, 3) for name, time_ms in times.items()}

    def result(self) -> Json:
        """How it ended, and with which text."""
        error = None if self.error is None else dict(self.error)
        ended = {"state": self.state.value, "finish_reason": self.finish_reason, "tokens": self.tokens}
        return ended | {"text": self.text, "error": error}


class Board:
    """Of one graph; ``max_tokens`` is what each sub-task may write at most."""

    def __init__(self, graph: TaskGraph, max_tokens: Mapping[str, int]) -> None:
        remaining = graph.remaining(max_tokens)
        self.graph = graph
        self.entries = {name: Entry(name, task.after, max_tokens[name], remaining[name]) for name, task in graph.tasks.items()}
        self._rank = {name: (-remaining[name], -len(graph.dependants(name)), number) for number, name in enumerate(graph.tasks)}
        self._mark_ready(0.0)

    @property
    def is_over(self) -> bool:
        return not any(entry.state in OPEN for entry in self.entries.values())

    @property
    def num_running(self) -> int:
        return sum(entry.state is State.RUNNING for entry in self.entries.values())

    @property
    def ready(self) -> list[str]:
        """Those that may begin, the most urgent first."""
        names = [entry.name for entry in self.entries.values() if entry.state is State.WAITING and entry.ready_ms is not None]
        return sorted(names, key=self._rank.__getitem__)

    def request(self, name: str, limit_bytes: int) -> StreamRequest:
        """What a sub-task that is ready asks for. Raises ``InvalidRequestError``, also where a result is to stay on the device
        and this one is not: documents may make an answer private only once it begins."""
        task = self.graph.tasks[name]
        used = [self.entries[source] for source in task.template.names]
        source = next((entry.name for entry in used if entry.is_private), None)
        if source is not None and not task.request.is_private:
            raise leaves(name, source)
        return task.filled({entry.name: entry.text or "" for entry in used}, limit_bytes)

    def begin(self, name: str, now_ms: float) -> None:
        entry = self.entries[name]
        taken = {each.lane for each in self.entries.values() if each.state is State.RUNNING}
        entry.lane = next(lane for lane in range(len(self.entries)) if lane not in taken)
        entry.state, entry.began_ms = State.RUNNING, now_ms

    def done(self, name: str, text: str, finish_reason: str, num_tokens: int, now_ms: float) -> None:
        """It ended well."""
        entry = self.entries[name]
        entry.text, entry.finish_reason, entry.tokens = text, finish_reason, num_tokens
        self._end(entry, State.DONE, None, now_ms)
        self._mark_ready(now_ms)

    def fail(self, name: str, error: Mapping[str, Any], now_ms: float) -> list[str]:
        """It did not. Gives those that end with it."""
        self._end(self.entries[name], State.FAILED, error, now_ms)
        skipped: list[str] = []
        for entry in self.entries.values():  # each stands behind all that it waits for
            cause = next((each for each in entry.after if each == name or each in skipped), None)
            if entry.state is State.WAITING and cause is not None:
                why = f"sub-task {entry.name!r} waits for {cause!r}, and {name!r} failed: {error['message']}"
                self._end(entry, State.SKIPPED, {**error, "message": why}, now_ms)
                skipped.append(entry.name)
        return skipped

    def cancel(self, error: Mapping[str, Any], now_ms: float) -> list[str]:
        """All that are not over end. Gives them."""
        ended = [entry for entry in self.entries.values() if entry.state in OPEN]
        for entry in ended:
            self._end(entry, State.CANCELLED if entry.state is State.RUNNING else State.SKIPPED, error, now_ms)
        return [entry.name for entry in ended]

    def critical(self) -> list[str]:
        """The chain that decided when the whole was over: from the last to end back through what each waited for longest."""
        chain: list[str] = []
        ended = [entry for entry in self.entries.values() if entry.state is State.DONE]
        while ended:
            last = max(ended, key=lambda entry: entry.ended_ms or 0.0)
            chain.append(last.name)
            ended = [self.entries[name] for name in last.after]
        return chain[::-1]

    def _end(self, entry: Entry, state: State, error: Mapping[str, Any] | None, now_ms: float) -> None:
        entry.state, entry.error, entry.ended_ms = state, error, now_ms

    def _mark_ready(self, now_ms: float) -> None:
        for entry in self.entries.values():
            is_waiting = entry.state is State.WAITING and entry.ready_ms is None
            if is_waiting and all(self.entries[name].state is State.DONE for name in entry.after):
                entry.ready_ms = now_ms
