"""Who has a seat at the full model, who waits for one, and whose cache is kept. Knows no time.

A seat is a cache slot of the engine, with room for all that its session may become. Whoever finds none waits in a queue of
bounded length; a seat that becomes free goes to the tenant that has the fewest, and of its sessions to the one that came first.
Where that one needs more room than there is, all who want the same engine wait for it: smaller ones that passed by could keep
it waiting for ever. Engines that share a queue share its limit, too: then the law holds over all of them, but each has room of
its own, and whoever waits for room at one keeps nobody from the other.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

from cloud_verifier.live import LiveSession
from cloud_verifier.prefixes import Prefixes
from cloud_verifier.room import Room, unlimited
from speculation.engines.base import CacheId
from speculation.errors import CapacityError
from speculation.protocol.messages import FinishReason

KEPT_AFTER = (FinishReason.STOP, FinishReason.LENGTH)
"""Ends behind which a text may go on: a cache that was cancelled is freed at once."""


class SharedQueue:
    """At most ``capacity`` sessions at once over all ``Seats`` that joined. Whoever touches one of them holds ``lock``."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.lock = threading.RLock()
        self._members: list[Seats] = []
        self._num_came = 0

    def __len__(self) -> int:
        """Sessions, with those that wait."""
        return sum(len(seats) for seats in self._members)

    def join(self, seats: Seats) -> None:
        self._members.append(seats)

    def next_place(self) -> int:
        """Who comes later gets a higher one."""
        self._num_came += 1
        return self._num_came

    def fill(self) -> None:
        """Seat those who wait, as long as there is a place, and a slot and room at the engine that they wait for."""
        open_members = list(self._members)
        while self._has_place and (able := _able(open_members)):
            seated = Counter(live.account for seats in self._members for live in seats.running)
            live, seats = min(able, key=lambda one: (seated[one[0].account], one[0].place))
            if seats.make_room(live):
                seats.seat(live)
            else:
                open_members.remove(seats)

    @property
    def _has_place(self) -> bool:
        return sum(len(seats.running) for seats in self._members) < self.capacity


def _able(members: Sequence[Seats]) -> list[tuple[LiveSession, Seats]]:
    """Who waits, and where, as far as a slot is there for it."""
    return [(live, seats) for seats in members if seats.has_slot for live in seats.waiting]


class Seats:
    """``capacity`` sessions at once, on an engine with ``num_slots`` caches; ``max_queued`` more wait. Of those that ended,
    at most ``max_kept`` caches are kept, as long as nobody who runs needs their slots.

    Sessions are the event loop's, but for what lies between two passes that follow each other on the engine's thread. So
    whoever touches one of them, or a seat, holds ``lock``, for as long as a pass is planned, or a message taken; who has it may
    take it again. ``running`` are the sessions that have a seat, in the order in which they got it.
    """

    def __init__(self, capacity: int, num_slots: int, max_queued: int, max_kept: int) -> None:
        self.capacity = capacity
        self.reused_tokens = 0
        self._num_slots = num_slots
        self._max_queued = max_queued
        self._sessions: dict[str, LiveSession] = {}
        self._running: dict[str, LiveSession] = {}
        self.running: Collection[LiveSession] = self._running.values()
        self._waiting: list[LiveSession] = []
        self._prefixes = Prefixes(min(max_kept, num_slots))
        self._closing: list[CacheId] = []
        self.room = unlimited()
        self.share(SharedQueue(capacity))

    def share(self, queue: SharedQueue) -> None:
        """Take part in a queue, before the first session."""
        self._queue = queue
        self.lock: AbstractContextManager[object] = queue.lock
        queue.join(self)

    def __len__(self) -> int:
        """Sessions, with those that wait."""
        return len(self._sessions)

    @property
    def waiting(self) -> Collection[LiveSession]:
        """Sessions without a seat, in the order in which they came."""
        return self._waiting

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def has_slot(self) -> bool:
        """Whether one more could run."""
        return len(self._running) < self.capacity

    @property
    def num_kept(self) -> int:
        """Caches that no session owns, and that are kept."""
        return len(self._prefixes)

    @property
    def all(self) -> list[LiveSession]:
        """Sessions that run or wait."""
        return list(self._sessions.values())

    def find(self, session_id: str) -> LiveSession | None:
        return self._sessions.get(session_id)

    def check(self, older: LiveSession | None, retry_after_s: float) -> None:
        """Raises ``CapacityError`` where a session more would neither run nor wait. One that is taken over makes room."""
        limits = (len(self), self.capacity), (len(self._queue), self._queue.capacity)
        full = next((capacity for count, capacity in limits if count >= capacity + self._max_queued), None)
        if older is None and full is not None:
            queue = f", and {self._max_queued} wait" if self._max_queued else ""
            raise CapacityError(f"all {full} sessions of this verifier are taken{queue}", retry_after_s)

    def admit(self, live: LiveSession, older: LiveSession | None = None) -> None:
        """Give a session a seat, or a place in the queue; those of ``older`` where it takes that over. One that may become so
        much longer than ``older`` that there is no room for it waits for that, as everybody does."""
        self._sessions[live.session_id] = live
        live.place = self._queue.next_place() if older is None else older.place
        if older is None:
            live.account.num_sessions += 1
            self._waiting.append(live)
            self._queue.fill()
        elif older.session_id not in self._running:
            self._waiting[self._waiting.index(older)] = live
        elif self.make_room(live, older):
            self._sit(live)
        else:
            del self._running[older.session_id]
            self._waiting.append(live)

    def release(self, live: LiveSession) -> None:
        """Forget a session that ended. Its cache is kept, or given back before the next pass."""
        if self._sessions.get(live.session_id) is live:
            del self._sessions[live.session_id]
            self._running.pop(live.session_id, None)
            live.account.num_sessions -= 1
            if live in self._waiting:
                self._waiting.remove(live)
        size = self.room.leave(live)
        if live.cache is not None:
            self._leave(live, live.cache, size)
        self._queue.fill()

    def make_room(self, live: LiveSession, older: LiveSession | None = None) -> bool:
        """Whether there is room for one who waits, or takes over from ``older``, whose room it has then; once as few kept
        caches as possible gave way."""
        size = self.room.size_of(live.state.limit) - (0 if older is None else self.room.size_held(older))
        self._let_give_way(size)
        return self.room.fits(size)

    def seat(self, live: LiveSession) -> None:
        """Give a seat to one who waits. Its pass loop may sleep: what woke it may have been another engine's session."""
        self._waiting.remove(live)
        self._sit(live)
        live.wake()

    def limit(self, room: Room) -> None:
        """Let caches take no more memory than that; called before the first session."""
        self.room = room

    def close_later(self, cache: CacheId) -> None:
        """Give back a cache that no session owns, before the next pass."""
        self._closing.append(cache)

    def take_closing(self) -> list[CacheId]:
        """The caches to give back now."""
        closing, self._closing = self._closing, []
        return closing

    def _let_give_way(self, size: int) -> None:
        while not self.room.fits(size) and len(self._prefixes):
            self._drop(self._prefixes.shrink(len(self._prefixes) - 1))

    def _drop(self, caches: Collection[CacheId]) -> None:
        self._closing += caches
        for cache in caches:
            self.room.leave(cache)

    def _sit(self, live: LiveSession) -> None:
        self._running[live.session_id] = live
        size = self.room.size_of(live.state.limit)
        if (found := self._prefixes.take(live.account, live.state.final)) is not None:
            live.cache, live.cached = found
            self.reused_tokens += live.cached
            # A cache that was longer once has the memory of that still.
            size = max(size, self.room.leave(live.cache))
        self.room.take(live, size)
        self._drop(self._prefixes.shrink(self._num_slots - len(self._running)))

    def _leave(self, live: LiveSession, cache: CacheId, size: int) -> None:
        finished = live.state.finished
        if finished is not None and finished.reason in KEPT_AFTER:
            self.room.take(cache, size)
            self._drop(self._prefixes.put(live.account, live.state.final[: live.cached], cache))
            self._drop(self._prefixes.shrink(self._num_slots - len(self._running)))
            self._let_give_way(0)  # where a later attempt has the room of this one already
        else:
            self._closing.append(cache)
