"""The events of one answer, kept so that a client whose connection broke can read on; and the one reader that they have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

from device_agent.events import LAST, DoneEvent, ErrorEvent, Event, SessionEvent, error_object
from device_agent.tasks.pausing import Pausing
from device_agent.tasks.places import Place
from device_agent.timeline import Timeline
from speculation.errors import CapacityError, InvalidRequestError, LinkError, OutriderError

STARTING_AFTER = "starting_after"


class StreamState(StrEnum):
    """What an answer does: it waits for its place, is written, is paused, or is over."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class Stream:
    """The events of one answer, in order; made by ``DeviceAgent.start``. Close it, or read it to its end.

    The last ``max_events`` are kept, those that were not read in any case: where nobody reads so many, the answer ends with an
    error. ``take`` reads from the beginning; ``read_after`` lets another reader take over. ``watch`` sees events before a
    reader does. ``timeline`` is there where the request asked for it.
    """

    def __init__(self, max_events: int, watch: Callable[[Sequence[Event]], None] | None = None) -> None:
        self.session_id = ""
        self.timeline: Timeline | None = None
        self._watch = watch
        self._max_events = max_events
        self._events: list[Event] = []
        self._num_dropped = 0
        self._task: asyncio.Task[None] | None = None
        self._place: Place | None = None
        self._pausing: Pausing | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._has_last = self._is_cancelled = False
        self._reader = Reader(self, 0)

    @property
    def next_seq(self) -> int:
        """The ``seq`` of the event that comes next."""
        return self._num_dropped + len(self._events)

    @property
    def has_last(self) -> bool:
        """Whether no event will follow."""
        return self._has_last

    @property
    def ending(self) -> dict[str, Any]:
        """How it ended, in words and numbers that hold nothing of the text; before its end it is one that was cancelled."""
        match self._events[-1:]:
            case [DoneEvent() as done]:
                return {"status": done.finish_reason, "tokens": len(done.token_ids), "verified": done.verified_count}
            case [ErrorEvent() as failed]:
                return {"status": "error", "error": failed.error["code"]}
        return {"status": "cancelled"}

    def begin(self, event: SessionEvent) -> None:
        self.session_id = event.session_id
        self.put([event])

    def put(self, events: Sequence[Event]) -> None:
        """Called by the answer's task. What comes behind a last event is dropped."""
        if self._watch is not None:
            self._watch(events)
        for event in events:
            if self._has_last:
                return
            if not self._make_room():
                self._break_off()
                return
            self._append(event)

    def ended(self) -> None:
        """The answer's task is over; where it was cut off, the last event says so."""
        if not self._has_last:
            self._fail(LinkError("the agent stopped the stream"))

    def run_by(self, task: asyncio.Task[None], place: Place, pausing: Pausing) -> None:
        self._task, self._place, self._pausing = task, place, pausing

    @property
    def state(self) -> StreamState:
        """What its answer does now."""
        if self._has_last or self._pausing is None or self._place is None:
            return StreamState.ENDED
        if self._pausing.is_paused:
            return StreamState.PAUSED
        return StreamState.QUEUED if self._place.is_queued else StreamState.RUNNING

    def pause(self) -> None:
        """Let it stop for a while, at once (``tasks/pausing.py``). Nothing for one that is paused or over."""
        if self._pausing is not None and not self._has_last:
            self._pausing.pause()

    def resume(self) -> None:
        """Let it go on. Nothing for one that is not paused."""
        if self._pausing is not None and not self._has_last:
            self._pausing.resume()

    def when_over(self, callback: Callable[[], None]) -> None:
        """Calls back on the loop once the answer's task is over."""
        if self._task is not None:
            self._task.add_done_callback(lambda _: callback())

    async def take(self) -> list[Event]:
        """What the reader takes; see ``Reader.take``."""
        return await self._reader.take()

    @property
    def reader(self) -> Reader:
        """Who reads now: from the beginning, until another takes over."""
        return self._reader

    def read_after(self, seq: int) -> Reader:
        """A reader of the events behind ``seq`` (-1: of all). It takes over: who read before gets no more.

        Raises ``InvalidRequestError`` for events that are not kept any more and for those that do not exist yet.
        """
        if not self._num_dropped - 1 <= seq < self.next_seq:
            raise self.refusal(str(seq) if seq >= 0 else "left out")
        self._cancel_deadline()
        former, self._reader = self._reader, Reader(self, seq + 1)
        former.wake()
        return self._reader

    def refusal(self, given: str) -> InvalidRequestError:
        """Of a place to read on from that is none; says which would be."""
        least, most = max(0, self._num_dropped - 1), self.next_seq - 1
        what = f"the seq of the last event that was read, from {least} to {most}"
        return InvalidRequestError(f"{STARTING_AFTER} must be {what}, not {given}", STARTING_AFTER)

    def is_read_by(self, reader: Reader) -> bool:
        return self._reader is reader

    def left_for(self, reader: Reader) -> list[Event] | None:
        """The events that a reader has not taken; None where none will come to it any more."""
        if self._reader is not reader:
            return None
        events = self._events[reader.next_seq - self._num_dropped :]
        return None if self._has_last and not events else events

    def after(self, seq: int) -> list[Event]:
        """The events from number ``seq`` on."""
        return self._events[seq - self._num_dropped :]

    async def leave(self, reader: Reader, grace_s: float) -> None:
        """A reader went away. Unless another one comes within ``grace_s``, an answer that still runs is cancelled.

        With 0 it has ended when this returns. A reader that was taken over leaves without a trace.
        """
        if not self.is_read_by(reader) or self._has_last:
            return
        if grace_s > 0:
            self._cancel_deadline()
            self._deadline = asyncio.get_running_loop().call_later(grace_s, self._cancel)
        else:
            await self.aclose()

    async def aclose(self) -> None:
        """Nobody reads on: an answer that still runs is cancelled, and has ended when this returns. Safe to call twice."""
        if self._task is None or self._task.done():
            return
        if not self._has_last:
            self._cancel()
        await asyncio.wait([self._task])

    def _make_room(self) -> bool:
        """Whether one more event may be kept; the oldest that were read go, a quarter at a time so that it costs little."""
        if len(self._events) < self._max_events:
            return True
        num_read = self._reader.next_seq - self._num_dropped
        num_old = min(num_read, max(1, self._max_events // 4))
        del self._events[:num_old]
        self._num_dropped += num_old
        return num_old > 0

    def _append(self, event: Event) -> None:
        self._events.append(event)
        self._has_last = isinstance(event, LAST)
        if self._has_last:
            self._cancel_deadline()
        self._reader.wake()

    def _fail(self, error: OutriderError) -> None:
        self._append(ErrorEvent(self.next_seq, error_object(error)))

    def _break_off(self) -> None:
        self._fail(CapacityError(f"nobody read {self._max_events} events, and no more than that are kept for one answer"))
        self._cancel()

    def _cancel(self) -> None:
        """Once: a second time would cut off its giving back of what it held. That the task is being cancelled may be something
        else's doing, for a moment: a pause's, or a wait's of its own that is over."""
        if self._task is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._task.cancel()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class Reader:
    """A place in a stream; made by the stream. ``next_seq`` is the event that it takes next."""

    def __init__(self, stream: Stream, next_seq: int) -> None:
        self.next_seq = next_seq
        self._stream = stream
        self._arrived = asyncio.Event()

    async def take(self) -> list[Event]:
        """All events that are there, at least one; an empty list behind the last, and where another reader took over.

        Nothing is lost where it is cancelled.
        """
        while (events := self._stream.left_for(self)) == []:
            self._arrived.clear()
            await self._arrived.wait()
        if events is None:
            return []
        self.next_seq += len(events)
        return events

    @property
    def has_more(self) -> bool:
        """Whether events are there for this reader, or will come."""
        return self._stream.left_for(self) is not None

    def wake(self) -> None:
        self._arrived.set()
