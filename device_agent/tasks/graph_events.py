"""What a client of ``POST /v1/tasks`` is told, as values; ``docs/tasks.md`` is the contract, ``schema/graph.schema.json`` its
letter. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from device_agent.events import Event, Json


@dataclass(frozen=True, slots=True)
class GraphEvent:
    """One event; ``seq`` counts from 0 without gaps over the whole graph."""

    name: ClassVar[str] = ""
    seq: int

    def to_json(self) -> Json:
        """Its name, then its fields in order."""
        return {"event": self.name, "seq": self.seq} | {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True, slots=True)
class GraphBegunEvent(GraphEvent):
    """First: the sub-tasks, each behind all that it waits for, and how many may run at once."""

    name: ClassVar[str] = "graph"
    graph_id: str
    max_at_once: int
    tasks: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class TaskEvent(GraphEvent):
    """A sub-task began or is over. ``error`` says why it did not end well."""

    name: ClassVar[str] = "task"
    task: str
    state: str
    at_ms: float
    error: Mapping[str, Any] | None


@dataclass(frozen=True, slots=True)
class OutputEvent(GraphEvent):
    """An event of the answer of a sub-task, as ``/v1/stream`` has it."""

    name: ClassVar[str] = "output"
    task: str
    output: Event

    def to_json(self) -> Json:
        return {"event": self.name, "seq": self.seq, "task": self.task, "output": self.output.to_json()}


@dataclass(frozen=True, slots=True)
class GraphDoneEvent(GraphEvent):
    """Last: ``status`` is done, failed (a sub-task did not end well) or cancelled; what each wrote, when what ran, and the
    chain of sub-tasks that decided how long it took."""

    name: ClassVar[str] = "done"
    graph_id: str
    status: str
    makespan_ms: float
    critical_path: Sequence[str]
    results: Mapping[str, Any]
    schedule: Sequence[Mapping[str, Any]]
