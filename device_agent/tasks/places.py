"""The places of answers that are written at once, and the short queue of those that wait for one."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from device_agent.drafting.share import Share
from device_agent.events import Reason
from device_agent.tasks.promises import Promise, Promises
from speculation.errors import CapacityError

STARVED_S = 30.0
"""Who waited so long for a place goes before higher priorities: answers last seconds."""


@dataclass(slots=True, eq=False)
class Place:
    """One answer's, or its wait for one."""

    places: Places
    share: Share
    due_s: float
    since_s: float
    number: int
    queued_s: float = 0.0
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    promise: Promise | None = None

    @property
    def is_queued(self) -> bool:
        """Whether it is still waited for."""
        return not self.turn.is_set()

    @asynccontextmanager
    async def had(self, tell: Callable[[Reason], None]) -> AsyncIterator[None]:
        """The answer is written in the block, once it may be; a reader is told where it has to wait."""
        try:
            if self.is_queued:
                tell(Reason.QUEUED)
                await self.turn.wait()
                tell(Reason.STARTED)
            yield
        finally:
            self.leave()

    def wrote(self, num_tokens: int, seconds: float) -> None:
        """Its answer is over, which came beside a verifier: so many tokens behind the first, in that time."""
        self.places.promises.pace.came(num_tokens, seconds)

    def leave(self) -> None:
        """Give it up, whether it was had or waited for. Safe to call twice."""
        self.places.left(self)


class Places:
    """``num_places`` answers at once; up to ``num_waiting`` more wait. Belongs to the event loop.

    ``promises`` are those that the phone made to answers with a place, or one in the queue.
    """

    def __init__(self, num_places: int, num_waiting: int, retry_after_s: float, promises: Promises) -> None:
        self.promises = promises
        self._num_places = num_places
        self._num_waiting = num_waiting
        self._retry_after_s = retry_after_s
        self._taken: set[Place] = set()
        self._waiting: list[Place] = []
        self._numbers = itertools.count()

    @property
    def num_taken(self) -> int:
        return len(self._taken)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    def ask(self, share: Share) -> Place:
        """A place, or one in the queue. Raises ``CapacityError`` where both are full."""
        due_s = math.inf if share.ends_s is None else share.ends_s
        place = Place(self, share, due_s, asyncio.get_running_loop().time(), next(self._numbers))
        if len(self._taken) < self._num_places:
            self._give(place)
        elif len(self._waiting) < self._num_waiting:
            self._waiting.append(place)
        else:
            raise CapacityError(self._refusal, self._retry_after_s)
        return place

    @property
    def num_paused(self) -> int:
        return sum(place.share.is_held for place in (*self._taken, *self._waiting))

    def promise(self, place: Place, num_tokens: int, is_alone: bool) -> None:
        """The rate that its answer wants, behind so many tokens of cache at most. Raises as ``Promises.make``."""
        place.promise = self.promises.make(place.share.tokens_per_s, num_tokens, is_alone)

    def left(self, place: Place) -> None:
        """This place is free, or nobody waits for it any more."""
        promise, place.promise = place.promise, None
        self.promises.end(promise)
        if place in self._waiting:
            self._waiting.remove(place)
        self._taken.discard(place)
        while self._waiting and len(self._taken) < self._num_places:
            now_s = asyncio.get_running_loop().time()
            first = min(self._waiting, key=lambda waiting: _rank(waiting, now_s))
            self._waiting.remove(first)
            self._give(first)

    def _give(self, place: Place) -> None:
        self._taken.add(place)
        place.queued_s = asyncio.get_running_loop().time() - place.since_s
        place.turn.set()

    @property
    def _refusal(self) -> str:
        said = f"{len(self._taken)} answers are being written already"
        if self._num_waiting:
            said += f", and {len(self._waiting)} wait, as many as may (max_queued_streams)"
        return f"{said}; one of them has to end or be cancelled first"


def _rank(place: Place, now_s: float) -> tuple[bool, int, float, int]:
    """Whose turn is first: who waited too long, by when they came; then priority, deadline, and who came first."""
    if now_s - place.since_s >= STARVED_S:
        return False, 0, 0.0, place.number
    return True, -place.share.priority, place.due_s, place.number
