"""The page in a real Chromium: does it drop frames at 200 tokens a second and more, and does its memory stay flat?

python -m benchmarks.page [--minutes 10] [--quick] [--json FILE] [--fill docs/page.md]

An idle page comes first, as a baseline, and another one, in a browser of its own, stands beside every row: what it misses while
the row misses something is the machine's doing. Then the real services, unshaped, as fast as
they are, three ways side by side. Then one recorded answer of theirs, told again at set rates by a small server in place of
them. Chromium draws without a GPU, on the cores that it shares with the services. Without a Chromium nothing is measured.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.browser import chromium, missing
from benchmarks.page_probe import Probe, Watched, quantile
from benchmarks.page_replay import REQUEST, at_rate, lengthened, record, serving
from benchmarks.report import Grid, add_arguments, publish
from outrider.local import Emulation, local_agent

BLOCK = "page"
RATES = (200, 400, 800)
RECORDED_TOKENS, ANSWER_TOKENS = 256, 4096
REAL_TOKENS = 448
SECONDS = 20.0
VIEWPORT = {"width": 1440, "height": 900}
COLUMNS = (
    "page",
    "seconds",
    "tokens a second",
    "events a second",
    "frames a second",
    "late frames (an idle page beside it)",
    "dropped frames",
    "longest gap, ms",
    "bytes to paint, ms: p50, p99, max",
    "heap, MB: first, last, most",
    "nodes: first, last",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One page for a while; ``seconds`` are those that were watched."""

    name: str
    seconds: float
    num_tokens: int
    num_events: int
    watched: Watched
    beside: Watched


@dataclass(frozen=True, slots=True)
class Plan:
    """How long each row is watched, the longest of them, and how long its answers are."""

    seconds: float
    long_seconds: float
    recorded_tokens: int
    answer_tokens: int
    rates: Sequence[int]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Plan:
        if arguments.quick:
            return cls(0.5, 1.0, 32, 150, RATES[:1])
        return cls(SECONDS, arguments.minutes * 60, RECORDED_TOKENS, ANSWER_TOKENS, RATES)


async def measure(plan: Plan) -> list[Row]:
    """All rows, one page after another. Raises ``ConfigurationError`` where there is no browser."""
    recording = lengthened(await record(plan.recorded_tokens), plan.answer_tokens)
    async with chromium() as browser, chromium() as other, serving(recording) as idle_url:
        bench = _Bench(browser, (await _opened(other, idle_url))[1])
        rows = [await bench.idle(idle_url, plan.seconds)]
        async with local_agent(Emulation()) as url:
            rows.append(await bench.asking(url, "real services, three ways", plan.seconds, order="beside"))
        for rate in plan.rates:
            seconds = plan.long_seconds if rate == plan.rates[0] else plan.seconds
            async with serving(at_rate(recording, rate)) as url:
                rows.append(await bench.asking(url, f"a recorded answer, {rate} tokens a second", seconds, order="alone"))
    return rows


async def _opened(browser: Any, url: str) -> tuple[Any, Probe]:
    page = await (await browser.new_context(viewport=VIEWPORT)).new_page()
    await page.goto(url)
    await page.wait_for_selector("html[data-ready]")
    return page, await Probe.on(page)


class _Bench:
    """Opens a page for each row, and watches it together with an idle page of another browser."""

    def __init__(self, browser: Any, beside: Probe) -> None:
        self._browser = browser
        self._beside = beside

    async def idle(self, url: str, seconds: float) -> Row:
        page, probe = await _opened(self._browser, url)
        await probe.weigh()
        await self._watch(probe, asyncio.sleep(seconds))
        await probe.weigh()
        await page.context.close()
        return Row("idle", seconds, 0, 0, probe.take(), self._beside.take())

    async def asking(self, url: str, name: str, seconds: float, order: str) -> Row:
        """One answer after another for so long; the first, behind which everything is loaded, is not counted."""
        page, probe = await _opened(self._browser, url)
        await _count_events(page)
        await page.fill("#prompt", REQUEST["prompt"])
        await page.fill("#max-tokens", str(REAL_TOKENS))
        await page.check(f"[name=order][value={order}]")
        await _answer(page)
        await probe.weigh()
        before = await page.evaluate("() => ({...window.counted})")
        watched_s = 0.0
        while watched_s < seconds:
            watched_s += await self._watch(probe, _answer(page))
            await probe.weigh()
        after = await page.evaluate("() => window.counted")
        await page.context.close()
        num_tokens, num_events = (after[key] - before[key] for key in ("tokens", "events"))
        return Row(name, watched_s, num_tokens, num_events, probe.take(), self._beside.take())

    async def _watch(self, probe: Probe, what: Awaitable[None]) -> float:
        """Both pages while something happens; how long it took, in s."""
        probes = (probe, self._beside)
        await asyncio.gather(*(each.resume() for each in probes))
        began_s = asyncio.get_running_loop().time()
        await what
        took_s = asyncio.get_running_loop().time() - began_s
        await asyncio.gather(*(each.pause() for each in probes))
        return took_s


async def _answer(page: Any) -> None:
    await page.click("#start")
    await page.wait_for_selector("#start:enabled", timeout=600_000)


async def _count_events(page: Any) -> None:
    """Events that the page parsed, of all lanes, and tokens of whole answers."""
    await page.evaluate("""() => {
        window.counted = {events: 0, tokens: 0};
        const parse = JSON.parse;
        JSON.parse = (...given) => {
            const value = parse(...given);
            if (value?.seq !== undefined) window.counted.events += 1;
            if (value?.event === "done") window.counted.tokens += value.token_ids.length;
            return value;
        };
    }""")


def grid(rows: Sequence[Row]) -> Grid:
    cells = [_cells(row) for row in rows]
    return Grid("Measured: the page in Chromium without a window or a GPU, 60 frames a second at most", COLUMNS, cells)


def _cells(row: Row) -> list[str]:
    watched, gaps = row.watched, row.watched.gaps_ms
    waits = [quantile(watched.waits_ms, share) for share in (0.5, 0.99, 1)]
    heaps = [heap / 1e6 for heap in (watched.heaps[0], watched.heaps[-1], max(watched.heaps))]
    return [
        row.name,
        f"{row.seconds:.0f}",
        f"{row.num_tokens / row.seconds:.0f}",
        f"{row.num_events / row.seconds:.0f}",
        f"{1000 * len(gaps) / sum(gaps):.1f}",
        f"{watched.num_late} of {len(gaps)} ({row.beside.num_late} of {len(row.beside.gaps_ms)})",
        str(watched.num_dropped),
        f"{max(gaps):.0f}",
        "-" if waits[0] is None else ", ".join(f"{wait:.0f}" for wait in waits if wait is not None),
        ", ".join(f"{heap:.2f}" for heap in heaps),
        f"{watched.nodes[0]}, {watched.nodes[-1]}",
    ]


def figures(row: Row) -> dict[str, Any]:
    told = {name: value for name, value in asdict(row).items() if name not in ("watched", "beside")}
    watched = row.watched
    return told | {
        "late": watched.num_late,
        "late_beside": row.beside.num_late,
        "dropped": watched.num_dropped,
        "frames": len(watched.gaps_ms),
        "heaps": list(watched.heaps),
        "nodes": list(watched.nodes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--minutes", type=float, default=1.0, help="of the row at 200 tokens a second (1)")
    arguments = parser.parse_args()
    if (lack := missing()) is not None:
        print(f"skipped: {lack}")
        return
    rows = asyncio.run(measure(Plan.of(arguments)))
    publish(arguments, BLOCK, [grid(rows)], [figures(row) for row in rows])


if __name__ == "__main__":
    main()
