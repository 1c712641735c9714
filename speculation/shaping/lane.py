"""One direction of one proxied connection: a network, then toxics, and what is under way. Pure: times in, bytes and times out.

Bytes are never lost, changed or reordered, but by a toxic that is meant to. Toxics may change at any time: what is under way
then goes through the new ones, from when it had come to them.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Iterable, Sequence

from speculation.shaping.pacing import PACKET_BYTES, Pipe
from speculation.shaping.stages import MAX_PIECE_BYTES, Item, Kind, Memory, Stage, make_stage, piece_bytes, pieces
from speculation.shaping.toxics import Toxic

HEADER_BYTES = 52
"""TCP with timestamps 32 (RFC 9293, 7323), IPv4 20 (RFC 791): what a packet weighs beyond its payload."""

PAYLOAD_BYTES = PACKET_BYTES - HEADER_BYTES

MAX_UNDER_WAY_BYTES = 4 * 1024 * 1024
"""What one direction of a connection may hold at most, as a receive window of TCP would bound it."""

QUEUE_S = 0.25
MIN_QUEUE_BYTES = 64 * 1024
"""The queue of a network whose profile names none: a quarter of a second at its rate, and at least 64 KiB."""


def wire_bytes(num_bytes: int) -> int:
    """What a piece of a stream weighs on the wire, in packets of up to 1,500 bytes."""
    return num_bytes + HEADER_BYTES * max(1, math.ceil(num_bytes / PAYLOAD_BYTES))


class Lane:
    """What one end offers, and when it is due at the other.

    ``pipe`` is the network's, shared by all connections of a proxy, None for a proxy without one. ``has_headers``: packets
    weigh their headers, too. The same seed, times and sizes give the same times.
    """

    def __init__(self, pipe: Pipe | None, seed: str = "", has_headers: bool = True) -> None:
        self._pipe = pipe
        self._has_headers = has_headers
        self._seed = seed
        self._stages: list[Stage] = []
        self._memories: dict[str, Memory] = {}
        self._under_way: deque[Item] = deque()
        self._last_due_s = -math.inf
        self._cut: Item | None = None
        self._limit_bytes = self._bound(())
        self.num_bytes = 0

    @property
    def is_clear(self) -> bool:
        """Nothing is set and nothing under way: what is offered could as well be handed on at once."""
        return self._pipe is None and not self._stages and not self._under_way

    @property
    def is_full(self) -> bool:
        """Whoever offers should wait until some of it has been taken."""
        return self.num_bytes >= self._limit_bytes

    @property
    def next_due_s(self) -> float:
        """When there is something to take; infinite where nothing is under way."""
        return min(self._under_way[0].due_s if self._under_way else math.inf, self.cut_s)

    @property
    def cut_s(self) -> float:
        """When a toxic ends the connection by itself; infinite where none does."""
        return math.inf if self._cut is None else self._cut.due_s

    def offer(self, now_s: float, data: bytes) -> None:
        """Bytes come in at the near end."""
        for piece in pieces(memoryview(data), self._piece_bytes()):
            entered_s = self._released_at(now_s, len(piece))
            self._pass(Item(Kind.DATA, entered_s, entered_s, piece))

    def end(self, now_s: float, kind: Kind = Kind.END) -> None:
        """The near end has no more to say, or is gone: told behind all that it said."""
        entered_s = self._released_at(now_s, 0)
        self._pass(Item(kind, entered_s, entered_s))

    def take(self, now_s: float) -> list[Item]:
        """All that is due at the far end, in order."""
        taken = []
        while self._under_way and self._under_way[0].due_s <= now_s:
            taken.append(self._under_way.popleft())
            self.num_bytes -= len(taken[-1].data)
        if self._cut is not None and self._cut.due_s <= now_s:
            taken.append(self._cut)
            self._cut = None
        return taken

    def set_toxics(self, toxics: Sequence[Toxic], now_s: float) -> None:
        """These act from now on. One with a name and attributes as before goes on where it was."""
        under_way, num_bytes = self._under_way, self.num_bytes
        for memory in self._memories.values():  # it will pass them again
            memory.passed_bytes = max(0, memory.passed_bytes - num_bytes)
        mine = [toxic for toxic in toxics if self._draw(toxic, "toxicity").random() < toxic.toxicity]
        self._memories = {toxic.name: self._remembered(toxic, now_s) for toxic in mine}
        self._stages = [make_stage(self._memories[t.name], now_s, self._draw(t, f"{now_s}")) for t in mine]
        self._cut = min((s.cut for s in self._stages if s.cut is not None), key=lambda cut: cut.due_s, default=None)
        self._limit_bytes = self._bound(mine)
        self._under_way, self.num_bytes, self._last_due_s = deque(), 0, now_s
        for item in under_way:
            self._pass(Item(item.kind, item.entered_s, item.entered_s, item.data))

    def _pass(self, item: Item) -> None:
        items: Iterable[Item] = (item,)
        for stage in self._stages:
            items = [leaving for entering in items for leaving in stage.pass_on(entering)]
        for leaving in items:
            self._last_due_s = max(self._last_due_s, leaving.due_s)
            self._under_way.append(Item(leaving.kind, leaving.entered_s, self._last_due_s, leaving.data))
            self.num_bytes += len(leaving.data)

    def _released_at(self, now_s: float, num_bytes: int) -> float:
        if self._pipe is None:
            return now_s
        return self._pipe.release_at(now_s, wire_bytes(num_bytes) if self._has_headers else num_bytes)

    def _piece_bytes(self) -> int:
        return MAX_PIECE_BYTES if self._pipe is None else piece_bytes(self._pipe.rate_bytes_per_s)

    def _remembered(self, toxic: Toxic, now_s: float) -> Memory:
        memory = self._memories.get(toxic.name)
        if memory is None or memory.toxic.type != toxic.type:
            return Memory(toxic, now_s)
        return memory if memory.toxic == toxic else Memory(toxic, now_s, memory.passed_bytes)

    def _draw(self, toxic: Toxic, purpose: str) -> random.Random:
        return random.Random(f"{self._seed} {toxic.name} {purpose}")

    def _bound(self, toxics: Sequence[Toxic]) -> float:
        """Bytes that fill what is sent and travels at the slowest rate, and the queue before it."""
        direction = None if self._pipe is None else self._pipe.direction
        rates = [float(t.attributes["rate"] * 1000) for t in toxics if t.type == "bandwidth" and t.attributes["rate"]]
        # Slices with a time between them are as slow as a rate, and each is a thing of its own to hold.
        slicers = [t.attributes for t in toxics if t.type == "slicer" and t.attributes["delay"]]
        rates += [1e6 * slicer["average_size"] / slicer["delay"] for slicer in slicers]
        late_s = [(t.attributes["latency"] + t.attributes["jitter"]) / 1e3 for t in toxics if t.type == "latency"]
        queue_bytes = math.inf
        if direction is not None and self._pipe is not None:
            rates.append(self._pipe.rate_bytes_per_s)
            late_s.append(direction.delay_s + direction.jitter_s)
            queue_bytes = direction.queue_bytes
        rate = min(rates, default=math.inf)
        if math.isinf(rate):
            return MAX_UNDER_WAY_BYTES
        if math.isinf(queue_bytes):
            queue_bytes = max(MIN_QUEUE_BYTES, QUEUE_S * rate)
        return min(MAX_UNDER_WAY_BYTES, queue_bytes + rate * sum(late_s))
