"""What HTTP adds to the first event of an answer, over a connection that is kept from answer to answer.

    python -m benchmarks.kept_connection [--quick] [--json FILE] [--fill docs/benchmarks.md]

Measured on this machine, in one process: the agent with the bundled draft, unshaped, on the device alone; one token, so that
little but the way is measured. *Behind acknowledgements* is the same agent at a socket that does not name its protocol: its
connections keep Nagle's algorithm (RFC 896), and what is written behind an answer's headers waits until the client acknowledges
these. A new connection acknowledges at once, a kept one when the client's system has nothing better to do. Both ways in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any
from unittest.mock import patch

import httpx
from rich.progress import track

from benchmarks.report import Grid, add_arguments, publish
from device_agent import server
from device_agent.config import AgentConfig
from speculation.listening import bind

BLOCK = "kept-connection"
NUM_ANSWERS, NUM_ROUNDS = 40, 5
PROMPT = "The module"
STREAM = {"prompt": PROMPT, "max_tokens": 1, "mode": "device"}
ASKED: Mapping[str, tuple[str, str, dict[str, Any] | None]] = {
    "POST /v1/stream": ("POST", "/v1/stream", STREAM),
    "GET /v1/models": ("GET", "/v1/models", None),
    "GET /health": ("GET", "/health", None),
}
CONNECTIONS = {True: "kept", False: "new for each"}
COLUMNS = ("asked", "connection", "at once: median, ms", "p90, ms", "behind acknowledgements: median, ms", "p90, ms", "times")


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked, and whether all of it goes over one connection."""

    asked: str
    is_kept: bool


@dataclass(frozen=True, slots=True)
class Row:
    """Milliseconds from a request to the first bytes of what answers it: a way each."""

    case: Case
    at_once_ms: list[float]
    behind_ms: list[float]


def without_protocol(host: str, port: int) -> socket.socket:
    """What ``bind`` would be without its protocol."""
    with bind(host, port) as bound:
        return socket.socket(bound.family, bound.type, 0, fileno=bound.detach())


async def measure(num_answers: int, num_rounds: int) -> list[Row]:
    rows = [Row(Case(asked, is_kept), [], []) for asked in ASKED for is_kept in CONNECTIONS]
    ways: tuple[tuple[Callable[[str, int], socket.socket], Callable[[Row], list[float]]], ...] = (
        (bind, lambda row: row.at_once_ms),
        (without_protocol, lambda row: row.behind_ms),
    )
    for _ in track(range(num_rounds), "answers"):
        for way, figures in ways:
            with patch.object(server, "bind", way):
                async with server.serve(AgentConfig(port=0)) as running:
                    for row in rows:
                        figures(row).extend(await _answers(running.url, row.case, num_answers))
    return rows


async def _answers(url: str, case: Case, num_answers: int) -> list[float]:
    """Behind a first one, which is not counted."""
    limits = httpx.Limits(max_keepalive_connections=1 if case.is_kept else 0)
    async with httpx.AsyncClient(base_url=url, limits=limits) as client:
        return [await _first_bytes_ms(client, case) for _ in range(num_answers + 1)][1:]


async def _first_bytes_ms(client: httpx.AsyncClient, case: Case) -> float:
    method, path, body = ASKED[case.asked]
    began_s, first_s = time.perf_counter(), None
    async with client.stream(method, path, json=body) as answer:
        answer.raise_for_status()
        async for _ in answer.aiter_raw():
            first_s = first_s or time.perf_counter()
    assert first_s is not None
    return 1000 * (first_s - began_s)


def grid(rows: list[Row]) -> Grid:
    cells = []
    for row in rows:
        at_once_ms, behind_ms = median(row.at_once_ms), median(row.behind_ms)
        figures = (at_once_ms, _p90(row.at_once_ms), behind_ms, _p90(row.behind_ms))
        cells.append(
            [row.case.asked, CONNECTIONS[row.case.is_kept], *(f"{ms:.1f}" for ms in figures), f"{behind_ms / at_once_ms:.1f}"]
        )
    return Grid("Measured: from a request to the first bytes of its answer, the device alone, one token", COLUMNS, cells)


def _p90(figures: list[float]) -> float:
    return quantiles(figures, n=10)[-1] if len(figures) > 1 else figures[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    arguments = parser.parse_args()
    rows = asyncio.run(measure(*((2, 1) if arguments.quick else (NUM_ANSWERS, NUM_ROUNDS))))
    publish(arguments, BLOCK, [grid(rows)], [asdict(row) for row in rows])


if __name__ == "__main__":
    main()
