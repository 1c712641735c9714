"""What figures for Prometheus cost a verifier's event loop: each call of the observer, timed where it happens.

    python -m benchmarks.metrics_cost [--quick] [--json FILE] [--fill PAGE]

Sessions without drafts over a table engine under the virtual clock. Each figure is a median, less what the timing itself takes.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any

from prometheus_client import generate_latest

from benchmarks.report import Grid, add_arguments, publish
from cloud_verifier.config import VerifierConfig
from cloud_verifier.metrics import VerifierMetrics
from cloud_verifier.verification import Verifier
from speculation.engines.random import RandomEngine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.base import Link
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import Open, PairIdentity
from speculation.shaping import virtual_time
from speculation.telemetry.exposition import snapshot

IDENTITY = PairIdentity("a" * 64, "b" * 64, "c" * 64)
PROVED = SelfTest(True, "f" * 16, 0.0, ())
SESSIONS = (1, 16, 64)


class Timed:
    """An observer that another one is timed behind; microseconds by call."""

    def __init__(self, inner: VerifierMetrics) -> None:
        self._inner = inner
        self.took_us: defaultdict[str, list[float]] = defaultdict(list)

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self._time(name, getattr(self._inner, name), *given)

    def _time(self, name: str, call: Callable[..., None], *given: Any) -> None:
        for what, do in ((name, call), ("nothing", _nothing)):
            began_ns = time.perf_counter_ns()
            do(*given)
            self.took_us[what].append((time.perf_counter_ns() - began_ns) / 1000)


async def measured(num_sessions: int, max_tokens: int) -> dict[str, float]:
    """Microseconds of a session's part of a pass, and of what all figures take when somebody asks."""
    engine = RandomEngine(64, 2 * max_tokens, 7, num_sessions)
    config = VerifierConfig(max_sessions=num_sessions, num_slots=num_sessions)
    verifier = Verifier(EngineRunner(engine), IDENTITY, PROVED, config)
    metrics = VerifierMetrics(verifier, "table", "vllm")
    verifier.observer = timed = Timed(metrics)
    connector = MemoryConnector(verifier)
    async with asyncio.TaskGroup() as tasks:
        passes = tasks.create_task(verifier.run())
        async with asyncio.TaskGroup() as sessions:
            for number in range(num_sessions):
                sessions.create_task(_read(await connector.connect(), number, max_tokens))
        passes.cancel()
    us = {name: median(took) for name, took in timed.took_us.items()}
    each_us = us["settled"] + us["passed"] / num_sessions - us["nothing"] * (1 + 1 / num_sessions)
    return {"sessions": num_sessions, "us_per_session_and_pass": round(each_us, 2)} | _asked(metrics)


async def _read(link: Link, number: int, max_tokens: int) -> None:
    await link.send(Open(str(number), 1, IDENTITY, (1, 2, 3), 3, SamplingParameters(), max_tokens))
    while await link.receive() is not None:
        pass


def _nothing(*_given: Any) -> None: ...


def _asked(metrics: VerifierMetrics) -> dict[str, float]:
    read, written = [], []
    for _ in range(20):
        began_s = time.perf_counter()
        figures = snapshot(metrics.registry)
        read_s = time.perf_counter()
        generate_latest(figures)
        read.append(read_s - began_s)
        written.append(time.perf_counter() - read_s)
    return {"read_ms": round(1000 * median(read), 2), "written_ms": round(1000 * median(written), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    max_tokens = 20 if arguments.quick else 400
    figures = [virtual_time.run(measured(count, max_tokens)) for count in SESSIONS]
    cells = [[f"{figure[name]:g}" for name in figure] for figure in figures]
    columns = ["sessions", "us a session and pass", "ms to read all, when asked", "ms to write them, on another thread"]
    publish(arguments, "metrics-cost", [Grid("What figures cost", columns, cells)], figures)


if __name__ == "__main__":
    main()
