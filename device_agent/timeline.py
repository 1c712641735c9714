"""When what happened in one answer, for who asked to see it: drafts, flights, passes, verdicts, the phone and the link.

Times come in as seconds of the loop's clock, and go out as milliseconds since the answer began. No clock is read here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speculation.links.base import LinkStatistics
from speculation.protocol.messages import Draft, Verdict, VerdictKind
from speculation.shaping.phone_state import PhoneState
from speculation.wire.codec import encoded_size

MAX_ITEMS = 4096
"""Items that are kept: some minutes of an answer. Beyond, the oldest go."""

PHONE_EVERY_S = 0.1
"""The phone's gauges are read no more often than this."""

_VERDICTS = {VerdictKind.ACCEPT: "accept", VerdictKind.REVOKE_AND_CORRECT: "revoke", VerdictKind.DECODED: "decoded"}


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that happened; ``seq`` counts from 0, those that were dropped included."""

    seq: int
    kind: str
    fields: dict[str, Any]

    @property
    def name(self) -> str:
        return self.kind

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.fields}


class Timeline:
    """Written by one answer, from its beginning at ``began_s`` to ``close``; read by any number of readers."""

    def __init__(self, began_s: float, max_items: int = MAX_ITEMS) -> None:
        self.is_closed = False
        self._began_s = began_s
        self._max_items = max_items
        self._items: list[Item] = []
        self._next_seq = 0
        self._news = asyncio.Event()
        self._sent: deque[tuple[int, float]] = deque()
        self._rtt_s: float | None = None
        self._phone_s: float | None = None

    # For the answer.

    def drafted(self, began_s: float, ended_s: float, num_tokens: int) -> None:
        """A draft step, from its request to what came of it: tokens that the main branch grew by."""
        self._add("draft", start_ms=self._ms(began_s), end_ms=self._ms(ended_s), tokens=num_tokens)

    def sent(self, draft: Draft, link: LinkStatistics, began_s: float, ended_s: float) -> None:
        """Drafts left: they are there when the emulated network says so, else no sooner than they were handed over."""
        arrives_s = ended_s if link.arrives_s is None else max(ended_s, link.arrives_s)
        times = {"start_ms": self._ms(began_s), "end_ms": self._ms(arrives_s)}
        self._add("up", **times, bytes=encoded_size(draft), nodes=len(draft.nodes))
        if draft.nodes:
            self._note_sent(draft.nodes[0].number, draft.nodes[-1].number, began_s)

    def opened(self, rtt_s: float, now_s: float) -> None:
        """The verifier took the session, so long after it was asked."""
        self._link(rtt_s, now_s)

    def verdict(self, verdict: Verdict, now_s: float) -> None:
        """A verdict came. Where the verifier told its times, they say when the pass ran, and how long the way was."""
        timing = verdict.timing
        sent_s = self._when_sent(verdict.last_node)
        if timing is not None and timing.held_us is not None and sent_s is not None:
            self._link(max(0.0, now_s - sent_s - timing.held_us / 1e6), now_s)
        if timing is not None:
            ended_s = now_s - (self._rtt_s or 0.0) / 2
            times = {"start_ms": self._ms(ended_s - timing.pass_us / 1e6), "end_ms": self._ms(ended_s)}
            self._add("pass", **times, rows=timing.rows)
        kind = _VERDICTS[verdict.kind]
        self._add("verdict", at_ms=self._ms(now_s), start=verdict.start, accepted=verdict.count, verdict=kind)

    def gauges(self, phone: PhoneState, joules: float | None, now_s: float) -> None:
        """What the gauges of the emulated phone show; ``joules`` are this answer's."""
        temperatures = phone.temperatures
        is_early = self._phone_s is not None and now_s < self._phone_s + PHONE_EVERY_S
        if is_early or (temperatures is None and joules is None):
            return
        self._phone_s = now_s
        die, skin = (None, None) if temperatures is None else (temperatures.die_c, temperatures.skin_c)
        shown = {"temperature_c": _rounded(die, 2), "skin_c": _rounded(skin, 2), "joules": _rounded(joules, 4)}
        self._add("phone", at_ms=self._ms(now_s), **shown, thermal=phone.status)

    def close(self, _: object = None) -> None:
        """The answer is over: nothing follows. Safe to call twice."""
        self.is_closed = True
        self._news.set()

    # For readers.

    @property
    def last_seq(self) -> int:
        """Number of the newest item; -1 where there is none."""
        return self._next_seq - 1

    async def after(self, seq: int) -> Sequence[Item]:
        """The items behind the one with this number (-1: all), at least one; none behind the last. Where some were dropped
        before they were read, the first says how many. Nothing is lost where it is cancelled."""
        while seq + 1 >= self._next_seq and not self.is_closed:
            self._news.clear()
            await self._news.wait()
        first_seq = self._next_seq - len(self._items)
        items = self._items[max(0, seq + 1 - first_seq) :]
        num_dropped = first_seq - (seq + 1)
        return [Item(first_seq - 1, "dropped", {"items": num_dropped}), *items] if num_dropped > 0 else items

    def _add(self, kind: str, **fields: Any) -> None:
        if len(self._items) >= self._max_items:  # a quarter at a time, so that it costs little
            del self._items[: max(1, self._max_items // 4)]
        self._items.append(Item(self._next_seq, kind, fields))
        self._next_seq += 1
        self._news.set()

    def _link(self, rtt_s: float, now_s: float) -> None:
        self._rtt_s = rtt_s
        self._add("link", at_ms=self._ms(now_s), rtt_ms=round(rtt_s * 1000, 3))

    def _note_sent(self, first_node: int, last_node: int, at_s: float) -> None:
        if first_node == 1:  # those of another stream are other nodes
            self._sent.clear()
        self._sent.append((last_node, at_s))

    def _when_sent(self, last_node: int) -> float | None:
        """When a node left that a verdict took; None where it took none, or one that nobody noted."""
        while self._sent and self._sent[0][0] < last_node:
            self._sent.popleft()
        return self._sent[0][1] if last_node and self._sent else None

    def _ms(self, moment_s: float) -> float:
        return round((moment_s - self._began_s) * 1000, 3)


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
