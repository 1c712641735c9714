"""``outrider tasks``: a graph of sub-tasks from a file, its progress as it runs, its results, its schedule as a picture."""

from __future__ import annotations

import json
import sys
import tomllib
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from device_agent.tasks.graph import TaskGraph
from device_agent.tasks.graph_events import GraphBegunEvent, GraphDoneEvent, GraphEvent, OutputEvent, TaskEvent
from outrider.client import Client
from outrider.display import is_watched
from outrider.generate import JsonLines, client_at
from outrider.local import Emulation, Models, agent_at
from outrider.pictures import check_can_be_drawn
from outrider.running import harmless, say
from outrider.transcript import Transcript
from speculation.errors import InvalidRequestError

MAX_FILE_BYTES = 1_000_000
SHOWN_CHARACTERS = 60
REFRESHES_PER_SECOND = 10
SIGNS = {"waiting": "·", "running": "▶", "done": "✓", "failed": "✗", "skipped": "–", "cancelled": "■"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A graph that was read and judged, and where its picture goes."""

    graph: dict[str, Any]
    svg: Path | None = None

    @classmethod
    def of(cls, file: Path, svg: Path | None) -> Asked:
        """Raises ``InvalidRequestError`` for a file that holds no graph that could run, or a picture that cannot be written."""
        graph = read(file)
        TaskGraph.from_json(graph)
        if svg is not None:
            check_can_be_drawn(svg, "svg")
        return cls(graph, svg)


def read(file: Path) -> dict[str, Any]:
    """Raises ``InvalidRequestError``."""
    try:
        text = file.read_bytes()
        if len(text) > MAX_FILE_BYTES:
            raise InvalidRequestError(f"{file} has {len(text)} bytes; a graph has at most {MAX_FILE_BYTES}")
        load = tomllib.loads if file.suffix.lower() == ".toml" else json.loads
        value = load(text.decode())
    except OSError as error:
        raise InvalidRequestError(f"{file} cannot be read ({error.strerror}); name a file with a graph of sub-tasks") from error
    except (ValueError, RecursionError) as error:
        kind = "TOML" if file.suffix.lower() == ".toml" else "JSON"
        raise InvalidRequestError(f"{file} is no {kind} in UTF-8: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{file} must hold an object with tasks")
    return value


async def run(
    asked: Asked, emulation: Emulation | None, agent: str | None, models: Models, key: str | None, is_json: bool
) -> int:
    """The exit code: 0 where every sub-task is done."""
    if is_json:
        with JsonLines(sys.stdout) as lines:
            async with agent_at(agent, emulation, models) as url, Client(url, key=key) as client:
                last = await _read(client, asked, lines.show)
    else:
        async with client_at(agent, emulation, models, key) as client:
            with Progress() as progress:
                last = await _read(client, asked, progress.show)
        _print(last)
    if asked.svg is not None:
        _draw(last, asked.svg)
    return 0 if last.status == "done" else 1


async def _read(client: Client, asked: Asked, show: Any) -> GraphDoneEvent:
    async with aclosing(client.tasks(asked.graph)) as events:
        async for event in events:
            show(event)
            if isinstance(event, GraphDoneEvent):
                last = event
    return last


class Progress:
    """A row for each sub-task on a terminal; elsewhere a line on standard error for each that is over."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._live = Live(console=console, refresh_per_second=REFRESHES_PER_SECOND) if is_watched(console) else None
        self._texts: dict[str, Transcript] = {}
        self._states: dict[str, str] = {}

    def __enter__(self) -> Self:
        (self._live or nullcontext()).__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.__exit__(kind, error, trace)

    def show(self, event: GraphEvent) -> None:
        if isinstance(event, GraphBegunEvent):
            self._states = {entry["task"]: entry["state"] for entry in event.tasks}
            self._texts = {name: Transcript() for name in self._states}
        elif isinstance(event, OutputEvent):
            self._texts[event.task].apply(event.output)
        elif isinstance(event, TaskEvent):
            self._states[event.task] = event.state
            if self._live is None and event.state != "running":
                say(f"outrider: {event.at_ms / 1000:.2f} s: {event.task} {event.state}")
        if self._live is not None:
            self._live.update(self._table())

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for name, state in self._states.items():
            transcript = self._texts[name]
            text = (transcript.final_text + transcript.tentative_text)[-SHOWN_CHARACTERS:]
            table.add_row(SIGNS.get(state, "?"), name, state, Text(harmless(text.replace("\n", " "))))
        return table


def _print(last: GraphDoneEvent) -> None:
    """Each result under its name; what did not end well on standard error, with its reason."""
    for name, result in last.results.items():
        if result["text"] is not None:
            text = harmless(result["text"]) if sys.stdout.isatty() else result["text"]
            print(f"== {name} ==\n{text}\n", flush=True)
        if result["error"] is not None:
            say(f"outrider: error: sub-task {name} {result['state']}: {' '.join(result['error']['message'].split())}")
    chain = " > ".join(last.critical_path)
    say(f"outrider: {last.status} in {last.makespan_ms / 1000:.2f} s" + (f"; decided by {chain}" if chain else ""))


def _draw(last: GraphDoneEvent, file: Path) -> None:
    from device_agent.tasks.graph_svg import drawn

    picture = drawn([dict(entry) for entry in last.schedule], last.makespan_ms, last.critical_path, last.status)
    try:
        file.write_bytes(picture)
    except OSError as error:  # of a full disk, say, which names no file
        raise OSError(error.errno, error.strerror, str(file)) from error
