"""Who has a seat at the full model, who waits for one, and whose cache is kept. Knows no time.

A seat is a cache slot of the engine, with room for all that its session may become. Whoever finds none waits in a queue of
bounded length; a seat that becomes free goes to the tenant that has the fewest, and of its sessions to the one that came first.
Where that one needs more room than there is, all wait for it: smaller ones that passed by could keep it waiting for ever.
"""

from __future__ import annotations

from collections.abc import Collection

from cloud_verifier.live import LiveSession
from cloud_verifier.prefixes import Prefixes
from cloud_verifier.room import Room, unlimited
from speculation.engines.base import CacheId
from speculation.errors import CapacityError
from speculation.protocol.messages import FinishReason
from speculation.tenants import Account

KEPT_AFTER = (FinishReason.STOP, FinishReason.LENGTH)
"""Ends behind which a text may go on: a cache that was cancelled is freed at once."""


class Seats:
    """``capacity`` sessions at once, on an engine with ``num_slots`` caches; ``max_queued`` more wait. Of those that ended,
    at most ``max_kept`` caches are kept, as long as nobody who runs needs their slots."""

    def __init__(self, capacity: int, num_slots: int, max_queued: int, max_kept: int) -> None:
        self.capacity = capacity
        self.reused_tokens = 0
        self._num_slots = num_slots
        self._max_queued = max_queued
        self._sessions: dict[str, LiveSession] = {}
        self._running: dict[str, LiveSession] = {}
        self._waiting: list[LiveSession] = []
        self._prefixes = Prefixes(min(max_kept, num_slots))
        self._closing: list[CacheId] = []
        self.room = unlimited()

    def __len__(self) -> int:
        """Sessions, with those that wait."""
        return len(self._sessions)

    @property
    def running(self) -> Collection[LiveSession]:
        """Sessions that have a seat, in the order in which they got it."""
        return self._running.values()

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

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
        if older is None and len(self._sessions) >= self.capacity + self._max_queued:
            queue = f", and {self._max_queued} wait" if self._max_queued else ""
            raise CapacityError(f"all {self.capacity} sessions of this verifier are taken{queue}", retry_after_s)

    def admit(self, live: LiveSession, older: LiveSession | None = None) -> None:
        """Give a session a seat, or a place in the queue; those of ``older`` where it takes that over."""
        self._sessions[live.session_id] = live
        if older is None:
            live.account.num_sessions += 1
            self._waiting.append(live)
            self._fill()
        elif older.session_id in self._running:
            self._seat(live)
        else:
            self._waiting[self._waiting.index(older)] = live

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
        self._fill()

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

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self.capacity:
            seated = self._num_seated()
            live = min(self._waiting, key=lambda waiting: seated.get(waiting.account, 0))
            if not self._make_room(self.room.size_of(live.state.limit)):
                return
            self._waiting.remove(live)
            self._seat(live)

    def _num_seated(self) -> dict[Account, int]:
        seated: dict[Account, int] = {}
        for live in self._running.values():
            seated[live.account] = seated.get(live.account, 0) + 1
        return seated

    def _make_room(self, size: int) -> bool:
        """Whether there is room, once as few kept caches as possible gave way."""
        while not self.room.fits(size) and len(self._prefixes):
            self._drop(self._prefixes.shrink(len(self._prefixes) - 1))
        return self.room.fits(size)

    def _drop(self, caches: Collection[CacheId]) -> None:
        self._closing += caches
        for cache in caches:
            self.room.leave(cache)

    def _seat(self, live: LiveSession) -> None:
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
        else:
            self._closing.append(cache)
