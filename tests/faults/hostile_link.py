"""A hostile double of the link: it delays, cuts, repeats, goes on delivering when it is over, and loses its verifier.

Everything it does is drawn from one seeded generator a stream. What it keeps is what gRPC keeps: the first copy of every
message arrives in order. Between it and the verifier every message goes through the codec, by ``speculation.links.memory``.
"""

from __future__ import annotations

import asyncio
import enum
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from speculation.errors import LinkError, OutriderError, SessionSupersededError
from speculation.links.base import Link
from speculation.protocol.messages import CloudMessage, DeviceMessage, Draft, Node, Open, Opened, Verdict, VerdictKind

EPSILON_S = 1e-9
"""Between messages of one stream, so that timers of the same moment keep their order."""


class Cut(enum.Enum):
    """Who learns at once that a stream is cut; the other learns late, and goes on meanwhile."""

    BOTH = "cut, both told"
    DEVICE_LATE = "cut, device told late"
    VERIFIER_LATE = "cut, verifier told late"


@dataclass(frozen=True, slots=True)
class Habits:
    """How hostile the links of one scene are; delays and times in seconds, the rest are chances."""

    mean_delay_s: float
    cut: float
    refuse: float
    repeat: float
    latest_s: float


@dataclass(frozen=True, slots=True)
class Doom:
    """Where one stream is cut: at a message, counted in its direction; how; and how late the late end is."""

    at: int
    is_upward: bool
    cut: Cut
    late_s: float


@dataclass
class Witness:
    """What happened, by name; and the newest attempt of every session that a verifier has heard of."""

    tally: Counter[str]
    attempts: dict[str, int]

    def hears(self, message: Open) -> None:
        newest = self.attempts.get(message.session_id, 0)
        if message.attempt < newest:
            self.tally["Open overtaken by a later one"] += 1
        elif message.attempt > 1:
            self.tally["resumed"] += 1
        self.attempts[message.session_id] = max(newest, message.attempt)


class HostileLink:
    """One stream. ``on_heard`` is called for each message that a device hears; it may end the verifier."""

    def __init__(
        self,
        inner: Link,
        habits: Habits,
        rng: random.Random,
        witness: Witness,
        tasks: asyncio.TaskGroup,
        on_heard: Callable[[HostileLink], None],
    ) -> None:
        self.statistics = inner.statistics
        self._inner = inner
        self._habits = habits
        self._rng = rng
        self._witness = witness
        self._tasks = tasks
        self._on_heard = on_heard
        self._doom = doom(habits, rng)
        self._session_id, self._attempt = "", 0
        self._sent: list[Draft] = []
        self._nodes: dict[int, Node] = {}
        self._up: asyncio.Queue[tuple[float, DeviceMessage | None]] = asyncio.Queue()
        self._inbox: deque[CloudMessage | OutriderError | None] = deque()
        self._arrived = asyncio.Event()
        self._last_up_s = self._last_down_s = 0.0
        self._num_up = self._num_down = 0
        self._is_cut = self._is_closed = self._is_over = False
        self._pumps = [tasks.create_task(self._pump_up())]

    # The device's end.

    async def send(self, message: DeviceMessage) -> None:
        if self._is_closed:
            raise LinkError("the link was closed")
        if self._is_cut:
            return
        self._last_up_s = max(self._last_up_s, _now_s() + self._delay_s())
        self._up.put_nowait((self._last_up_s, message))

    async def receive(self) -> CloudMessage | None:
        """Behind the error that tells of a cut, a device that reads on would hear what its old stream still says."""
        while not self._inbox:
            self._arrived.clear()
            await self._arrived.wait()
        item = self._inbox.popleft()
        if isinstance(item, OutriderError):
            raise item
        return item

    async def aclose(self) -> None:
        """The verifier hears of it once everything under way has arrived; that of a cut it hears by the cut."""
        if self._is_closed:
            return
        self._is_closed = True
        if not self._is_cut:
            self._up.put_nowait((max(self._last_up_s, _now_s()) + self._delay_s(), None))

    # The verifier's end.

    def lose_verifier(self) -> None:
        """It died: it hears and says nothing more; the device learns of it, perhaps late."""
        self._is_over = True
        self._is_cut = True
        late_s = self._rng.choice((0.0, self._rng.uniform(0, self._habits.latest_s)))
        asyncio.get_running_loop().call_later(late_s, self._put, LinkError("the verifier died"))
        for pump in self._pumps:
            pump.cancel()

    async def over(self) -> None:
        """Wait until both ends have let go."""
        while not all(pump.done() for pump in self._pumps):
            await asyncio.wait(self._pumps)

    # Upward.

    async def _pump_up(self) -> None:
        while not self._is_over:
            due_s, message = await self._up.get()
            await asyncio.sleep(due_s - _now_s())
            if message is None:
                self._hang_up()
            elif self._is_doomed(self._num_up, is_upward=True):
                self._break(message)
            elif not self._is_over:
                await self._deliver_up(message)
            self._num_up += 1

    async def _deliver_up(self, message: DeviceMessage) -> None:
        tally = self._witness.tally
        if isinstance(message, Open):
            self._session_id, self._attempt = message.session_id, message.attempt
            self._witness.hears(message)
        elif isinstance(message, Draft):
            tally["draft to an old stream"] += self._is_old()
            tally["draft repeated"] += message in self._sent
            self._note_nodes(message)
            self._sent.append(message)
            if self._rng.random() < self._habits.repeat:
                self._up.put_nowait((_now_s(), self._rng.choice(self._sent)))
        await self._inner.send(message)
        if len(self._pumps) == 1:  # only now is anything to be heard
            self._pumps.append(self._tasks.create_task(self._pump_down()))

    def _note_nodes(self, draft: Draft) -> None:
        new = [node for node in draft.nodes if node.number not in self._nodes]
        self._nodes |= {node.number: node for node in new}
        self._witness.tally["second choice sent"] += sum(node.rank > 0 for node in new)
        self._witness.tally["told not to wait"] += draft.passes

    def _is_old(self) -> bool:
        return self._witness.attempts.get(self._session_id, 0) > self._attempt

    def _hang_up(self) -> None:
        """Tell the verifier that the stream is over; what is still under way to it is lost."""
        self._is_over = True
        self._pumps.append(self._tasks.create_task(self._inner.aclose()))
        self._up.put_nowait((0.0, None))

    # Downward.

    async def _pump_down(self) -> None:
        while True:
            item: CloudMessage | OutriderError | None
            try:
                item = await self._inner.receive()
            except OutriderError as error:
                item = error
            self._witness.tally["old stream ended by a later attempt"] += isinstance(item, SessionSupersededError)
            self._last_down_s = max(self._last_down_s + EPSILON_S, _now_s() + self._delay_s())
            asyncio.get_running_loop().call_at(self._last_down_s, self._deliver_down, item)
            if item is None or isinstance(item, OutriderError):
                return

    def _deliver_down(self, item: CloudMessage | OutriderError | None) -> None:
        if not self._is_cut and self._is_doomed(self._num_down, is_upward=False):
            self._break()
        self._num_down += 1
        if self._is_cut or self._is_closed:
            self._witness.tally["verdict to nowhere"] += isinstance(item, Verdict)
            if self._is_told():
                self._put(item)
            return
        self._note(item)
        self._put(item)
        if isinstance(item, Verdict) and self._rng.random() < self._habits.repeat:
            asyncio.get_running_loop().call_later(self._rng.uniform(0, 5 * self._habits.mean_delay_s), self._repeat, item)
        self._on_heard(self)

    def _repeat(self, verdict: Verdict) -> None:
        if not (self._is_cut or self._is_closed):
            self._witness.tally["verdict repeated"] += 1
            self._put(verdict)

    def _note(self, item: CloudMessage | OutriderError | None) -> None:
        tally = self._witness.tally
        if isinstance(item, Opened):
            tally["opened"] += 1
        elif isinstance(item, Verdict):
            tally["accepted drafts"] += item.count
            tally["second branch followed"] += self._is_behind_second(item)
            tally["corrections"] += item.kind is VerdictKind.REVOKE_AND_CORRECT

    def _is_behind_second(self, verdict: Verdict) -> bool:
        """Whether drafts were accepted behind a second choice, which the pass before had chosen."""
        number = verdict.last_node
        for _ in range(verdict.count):
            number = self._nodes[number].parent
        return number > 0 and self._nodes[number].rank > 0

    def _put(self, item: CloudMessage | OutriderError | None) -> None:
        self._inbox.append(item)
        self._arrived.set()

    # The cut.

    def _is_doomed(self, number: int, is_upward: bool) -> bool:
        doomed = self._doom
        return not self._is_cut and doomed is not None and (doomed.at, doomed.is_upward) == (number, is_upward)

    def _is_told(self) -> bool:
        """Whether what comes now lies behind the news of the cut, where no device looks."""
        return self._doom is not None and self._doom.cut is not Cut.DEVICE_LATE

    def _break(self, held: DeviceMessage | None = None) -> None:
        """``held`` is at the place of the cut: lost, or stuck there for a while."""
        assert self._doom is not None
        if self._is_closed or self._is_over:
            return
        self._is_cut = True
        self._witness.tally[self._doom.cut.value] += 1
        late_s = 0.0 if self._doom.cut is not Cut.DEVICE_LATE else self._doom.late_s
        asyncio.get_running_loop().call_later(late_s, self._put, LinkError("the stream was cut"))
        if self._doom.cut is Cut.VERIFIER_LATE:
            self._linger(self._doom.late_s, held)
        else:
            self._hang_up()

    def _linger(self, late_s: float, held: DeviceMessage | None) -> None:
        """The verifier hears what was under way, and old drafts again, until it learns that the stream is over."""
        under_way = [self._up.get_nowait()[1] for _ in range(self._up.qsize())]
        again = self._rng.choices(self._sent, k=self._rng.randrange(6)) if self._sent else []
        late = [message for message in (held, *under_way, *again) if message is not None]
        times = sorted(self._rng.uniform(late_s / 2, late_s) for _ in late)
        for after_s, message in zip(times, late, strict=True):
            self._up.put_nowait((_now_s() + after_s, message))
        self._up.put_nowait((_now_s() + late_s, None))

    def _delay_s(self) -> float:
        return self._rng.expovariate(1 / self._habits.mean_delay_s)


def doom(habits: Habits, rng: random.Random) -> Doom | None:
    if rng.random() >= habits.cut:
        return None
    late_s = rng.uniform(0, habits.latest_s)
    return Doom(int(rng.expovariate(1 / 8)), rng.random() < 0.5, rng.choice(list(Cut)), late_s)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
