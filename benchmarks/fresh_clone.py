"""How long a stranger waits: from a fresh clone to the first token on the page, by one command.

python -m benchmarks.fresh_clone [--quick] [--repeat N] [--json FILE] [--fill README.md docs/benchmarks.md]

Clones this checkout's last commit into an empty folder, runs ``COMMANDS`` in it, waits until the agent is healthy, opens its
page in a Chromium that is there already, types a prompt, starts, and waits for a token; without Chromium (extra ``page``) the
answer is asked for over ``POST /v1/stream``, as the page does. Packages are installed by pip, and once more by uv where that is
on the path, as ``make`` does then. ``--quick`` installs nothing: the clone runs with the packages of this environment. Caches
of packages are left out, as a stranger has none. Much of the time is the package index's and the line's, so it differs from
place to place.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from benchmarks.browser import chromium, missing
from benchmarks.report import Grid, add_arguments, publish
from device_agent.events import CorrectEvent
from outrider.client import Client, SpeculativeEvent

COMMANDS = (("make", "page"),)
"""What the README tells a stranger to run, all of it; ``ARGS`` chooses a free port, so that nothing is in the way."""

SHOWN_COMMANDS = "; ".join(" ".join(command) for command in COMMANDS)
AS_INSTALLED = "import runpy, sys; sys.modules['numba'] = None; runpy.run_module('outrider', run_name='__main__')"
"""`python -m outrider` without the extra ``compiled``, as a stranger has it: a new clone would compile all choices first."""

PIP, UV, NOBODY = "installed by pip", "installed by uv", "there already"
INSTALLERS = {PIP: ("UV=",), UV: ()}
"""What ``make`` is told so that it installs that way; uv it takes by itself, where it is."""

BLOCK = "fresh-clone"
ROOT = Path(__file__).resolve().parents[1]
TOTAL_LIMIT_S, END_LIMIT_S = 900.0, 120.0
NO_CACHES = ("PIP_NO_CACHE_DIR=1", "UV_NO_CACHE=1")
"""A stranger has nothing in the cache of either."""

ASK_EVERY_S = 0.05
PROMPT, MAX_TOKENS = "The module provides", 16
SHOWN = "[data-mode=collaborate] .answer :is(.tentative, .final)"
COLUMNS = ("commands", "packages", "seen on", "clone, s", "install and start, s", "first token, s", "all, s")


@dataclass(frozen=True, slots=True)
class Run:
    """One stranger. Times in seconds, each from the end of the one before."""

    packages: str
    is_on_page: bool
    clone_s: float
    serves_s: float
    token_s: float

    @property
    def total_s(self) -> float:
        return self.clone_s + self.serves_s + self.token_s


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextlib.asynccontextmanager
async def serving(folder: Path, port: int, packages: str) -> AsyncIterator[str]:
    """The agent's URL, of what ``COMMANDS`` started in a clone; ended when the block is left."""
    url = f"http://127.0.0.1:{port}"
    (wanted,) = COMMANDS
    command = ["env", *NO_CACHES, *wanted, f"ARGS=--port {port}", *INSTALLERS.get(packages, ())]
    if packages is NOBODY:  # as `make` runs it once it has installed
        command = [sys.executable, "-c", AS_INSTALLED, "serve", "--port", str(port)]
    log = (folder / "fresh_clone.log").open("wb")
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        await healthy(url, process, folder / "fresh_clone.log")
        yield url
    finally:
        log.close()
        await ended(process, folder / "fresh_clone.log")


async def ended(process: asyncio.subprocess.Process, log: Path) -> None:
    """By Ctrl-C, as the page's last line says. Raises ``RuntimeError`` with the end of the log where that does not end it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        async with asyncio.timeout(END_LIMIT_S):
            await process.wait()
    except TimeoutError:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise RuntimeError(f"{SHOWN_COMMANDS} went on {END_LIMIT_S:g} s behind Ctrl-C:\n{end_of(log)}") from None


async def healthy(url: str, process: asyncio.subprocess.Process, log: Path) -> None:
    """Until the agent answers. Raises ``RuntimeError`` with the end of the log where the command ends before."""
    async with httpx.AsyncClient() as client, asyncio.timeout(TOTAL_LIMIT_S):
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get(f"{url}/health")).is_success:
                    return
            if process.returncode is not None:
                raise RuntimeError(f"{SHOWN_COMMANDS} ended with {process.returncode}:\n{end_of(log)}")
            await asyncio.sleep(ASK_EVERY_S)


def end_of(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-2000:]


async def first_token(url: str) -> None:
    """Until a token is there to be seen, tentative or final."""
    async with Client(url) as client, contextlib.aclosing(client.stream(PROMPT, max_tokens=MAX_TOKENS)) as events:
        async for event in events:
            if isinstance(event, SpeculativeEvent | CorrectEvent):
                return
    raise RuntimeError("the answer had no token")


async def first_token_on(page: Any, url: str) -> None:
    """The same on the page, from its address to what stands in the answer."""
    await page.goto(url)
    await page.fill("#prompt", PROMPT)
    await page.click("#start")
    await page.wait_for_selector(SHOWN, state="attached")


@contextlib.asynccontextmanager
async def open_browser() -> AsyncIterator[Any]:
    """An empty page of a Chromium; None where there is none."""
    if missing() is not None:
        yield None
        return
    async with chromium() as browser:
        yield await browser.new_page()


async def clone(folder: Path) -> None:
    process = await asyncio.create_subprocess_exec("git", "clone", "--quiet", str(ROOT), str(folder))
    if await process.wait():
        raise RuntimeError("this checkout cannot be cloned")


async def stranger(packages: str) -> Run:
    """One of them, from nothing to the first token."""
    with tempfile.TemporaryDirectory(prefix="outrider-clone-") as folder:
        async with open_browser() as page:
            return await _wait(Path(folder) / "outrider", packages, page)


async def _wait(folder: Path, packages: str, page: Any) -> Run:
    began_s = time.monotonic()
    await clone(folder)
    cloned_s = time.monotonic()
    async with serving(folder, free_port(), packages) as url:
        served_s = time.monotonic()
        await (first_token(url) if page is None else first_token_on(page, url))
        seen_s = time.monotonic()
    return Run(packages, page is not None, cloned_s - began_s, served_s - cloned_s, seen_s - served_s)


def grid(runs: Sequence[Run]) -> Grid:
    rows = []
    for packages in dict.fromkeys(run.packages for run in runs):
        alike = [run for run in runs if run.packages == packages]
        times_s = (median(getattr(run, name) for run in alike) for name in ("clone_s", "serves_s", "token_s", "total_s"))
        seen_on = "the page" if alike[0].is_on_page else "the stream"
        rows.append([str(len(COMMANDS)), packages, seen_on, *(f"{time_s:.1f}" for time_s in times_s)])
    title = f"Measured: from a fresh clone to the first token, by `{SHOWN_COMMANDS}` (median of {len(runs) // len(rows)})"
    return Grid(title, COLUMNS, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="strangers, one after the other")
    arguments = parser.parse_args()
    ways = [NOBODY] if arguments.quick else [PIP, UV] if shutil.which("uv") else [PIP]
    runs = [asyncio.run(stranger(packages)) for _ in range(arguments.repeat) for packages in ways]
    publish(arguments, BLOCK, [grid(runs)], [asdict(run) for run in runs])


if __name__ == "__main__":
    main()
