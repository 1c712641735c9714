"""What a browser's page did while it was watched: its frames, the time from bytes to paint, its heap and its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FRAME_MS = 1000 / 60
LATE_MS = 2 * FRAME_MS
"""A gap between frames that is longer is seen as a stutter."""

PROBE = """() => {
  const probe = (window.probe = {gaps: [], waits: [], bytes: 0, isOn: false});
  const arrived = [];
  const read = ReadableStreamDefaultReader.prototype.read;
  ReadableStreamDefaultReader.prototype.read = async function (...given) {
    const result = await read.apply(this, given);
    if (probe.isOn && result.value) {
      arrived.push(performance.now());
      probe.bytes += result.value.length;
    }
    return result;
  };
  const channel = new MessageChannel();
  let painting = 0;
  channel.port1.onmessage = () => {
    const now = performance.now();
    for (; painting > 0; painting -= 1) probe.waits.push(now - arrived.shift());
  };
  let last = null;
  const frame = (now) => {
    if (probe.isOn && last !== null) probe.gaps.push(now - last);
    last = probe.isOn ? now : null;
    painting = arrived.length;
    if (painting > 0) channel.port2.postMessage(null);
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}"""
"""Bytes that a read gave before a frame are drawn in it; a message posted in that frame comes once it is painted."""

TAKE = """() => {
  const {gaps, waits, bytes} = window.probe;
  Object.assign(window.probe, {gaps: [], waits: [], bytes: 0});
  return {gaps, waits, bytes};
}"""


@dataclass(frozen=True, slots=True)
class Watched:
    """Gaps between frames and waits of pieces for their paint, in ms; heaps in bytes and nodes, each after a collection."""

    gaps_ms: Sequence[float]
    waits_ms: Sequence[float]
    heaps: Sequence[int]
    nodes: Sequence[int]

    @property
    def num_late(self) -> int:
        return sum(gap > LATE_MS for gap in self.gaps_ms)

    @property
    def num_dropped(self) -> int:
        """Frames that a screen of 60 a second would have shown and that never were."""
        return sum(max(0, round(gap / FRAME_MS) - 1) for gap in self.gaps_ms)


class Probe:
    """Watches one page, in parts: ``resume`` and ``pause``, and what was seen at the end."""

    def __init__(self, page: Any, cdp: Any) -> None:
        self._page = page
        self._cdp = cdp
        self._gaps: list[float] = []
        self._waits: list[float] = []
        self._heaps: list[int] = []
        self._nodes: list[int] = []

    @classmethod
    async def on(cls, page: Any) -> Probe:
        await page.evaluate(PROBE)
        return cls(page, await page.context.new_cdp_session(page))

    async def resume(self) -> None:
        await self._page.evaluate("() => { window.probe.isOn = true; }")

    async def pause(self) -> None:
        await self._page.evaluate("() => { window.probe.isOn = false; }")
        taken = await self._page.evaluate(TAKE)
        self._gaps += taken["gaps"]
        self._waits += taken["waits"]

    async def weigh(self) -> None:
        """The heap and the nodes that are left when garbage is collected. Not while watching: a collection is a long frame."""
        await self._cdp.send("HeapProfiler.collectGarbage")
        self._heaps.append(int((await self._cdp.send("Runtime.getHeapUsage"))["usedSize"]))
        self._nodes.append(int((await self._cdp.send("Memory.getDOMCounters"))["nodes"]))

    def take(self) -> Watched:
        """What was seen since the last time."""
        watched = Watched(self._gaps, self._waits, self._heaps, self._nodes)
        self._gaps, self._waits, self._heaps, self._nodes = [], [], [], []
        return watched


def quantile(values: Sequence[float], share: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None
