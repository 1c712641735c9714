"""What a client may ask of ``POST /v1/tasks``: sub-tasks with names, each a prompt over earlier results. Pure.

A sub-task waits for those that its prompt takes in, and for those in ``after``. What could never run is refused here, all of it
at once: a circle, a name that is none, a result that may not leave the device in a prompt that may.
"""

from __future__ import annotations

import difflib
import graphlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from device_agent.checks import require
from device_agent.request import KNOWN_KEYS, NEUTRAL, StreamRequest
from device_agent.tasks.template import RESERVED, Template
from device_agent.values import text
from speculation.errors import InvalidRequestError, UnknownNameError

Number = TypeVar("Number", int, float)

TASKS, DEFAULTS, AFTER, PROMPT = "tasks", "defaults", "after", "prompt"
MAX_TASKS = 64
MAX_NAME_CHARACTERS = 32
NOT_HERE = {
    "messages": "a sub-task has a prompt",
    "timeline": "the whole graph has one",
}
PARAMETERS = sorted({*KNOWN_KEYS} - {PROMPT, *NOT_HERE})
"""What a sub-task takes of a request of ``/v1/stream``, beside its prompt."""


@dataclass(frozen=True, slots=True)
class SubTask:
    """One of a graph. ``after`` has all that it waits for, those that its prompt takes in among them. ``request`` is the
    answer that it is, its prompt still as it was given."""

    name: str
    template: Template
    after: tuple[str, ...]
    request: StreamRequest

    def filled(self, results: Mapping[str, str], limit_bytes: int) -> StreamRequest:
        """The request with results in its prompt. Raises ``InvalidRequestError`` for a prompt that is too long, or empty."""
        return replace(self.request, prompt=self.template.fill(results, limit_bytes))

    def least(self) -> StreamRequest:
        """The request with as short a prompt as it can have: what cannot be served even so never can."""
        prompt = self.template.fill(dict.fromkeys(self.template.names, ""), len(self.template.source.encode()))
        return replace(self.request, prompt=prompt or " " if self.template.names else prompt)


@dataclass(frozen=True, slots=True)
class TaskGraph:
    """Sub-tasks by name, in an order in which each comes behind all that it waits for. Made by ``TaskGraph.from_json``."""

    tasks: Mapping[str, SubTask]

    @classmethod
    def from_json(cls, body: object) -> TaskGraph:
        """Raises ``InvalidRequestError`` with what would be right; its parameter is a path, as ``tasks.outline.after``."""
        if not isinstance(body, Mapping):
            raise InvalidRequestError("the body must be a JSON object")
        for key in body:
            if key not in (TASKS, DEFAULTS):
                raise UnknownNameError("key", str(key), (TASKS, DEFAULTS), parameter=str(key))
        defaults = _object(DEFAULTS, body.get(DEFAULTS) or {})
        _check_keys(DEFAULTS, defaults, PARAMETERS)
        given = _object(TASKS, body.get(TASKS))
        require(1 <= len(given) <= MAX_TASKS, TASKS, f"from 1 to {MAX_TASKS} sub-tasks", f"{len(given)} of them")
        tasks = {name: _sub_task(name, told, defaults) for name, told in given.items()}
        for task in tasks.values():
            _check_after(task, tasks)
        graph = cls({name: tasks[name] for name in _in_order(tasks)})
        graph._check_privacy()
        return graph

    def dependants(self, name: str) -> list[str]:
        """Those that wait for this one, in order."""
        return [task.name for task in self.tasks.values() if name in task.after]

    def remaining(self, costs: Mapping[str, Number]) -> dict[str, Number]:
        """What the longest chain that begins with each sub-task costs, its own cost among it: tokens, or seconds."""
        found: dict[str, Number] = {}
        for name in reversed(list(self.tasks)):
            found[name] = costs[name] + max((found[each] for each in self.dependants(name)), default=0)
        return found

    def _check_privacy(self) -> None:
        for task in self.tasks.values():
            source = next((name for name in task.template.names if self.tasks[name].request.is_private), None)
            if source is not None and not task.request.is_private:
                raise leaves(task.name, source)


def leaves(name: str, source: str) -> InvalidRequestError:
    """Of a sub-task that would take what may not leave the device along."""
    why = f"the prompt of sub-task {name!r} takes in the result of {source!r}, which is to stay on the device"
    advice = "label it, too: privacy device_only, with mode device or auto"
    return InvalidRequestError(f"{why}; {advice}", f"{TASKS}.{name}.privacy")


def _sub_task(name: str, told: object, defaults: Mapping[str, Any]) -> SubTask:
    _check_name(name)
    path = f"{TASKS}.{name}"
    given = _object(path, told)
    _check_keys(path, given, (PROMPT, AFTER, *PARAMETERS))
    try:
        template = Template.of(text(PROMPT, given.get(PROMPT)))
        request = StreamRequest.from_json({**defaults, **{key: given[key] for key in given if key != AFTER}})
        after = _after(given.get(AFTER))
    except InvalidRequestError as error:
        raise in_task(name, error) from error
    return SubTask(name, template, tuple(dict.fromkeys((*after, *template.names))), request)


def in_task(name: str, error: InvalidRequestError) -> InvalidRequestError:
    """The same fault, with the sub-task that has it."""
    path = f"{TASKS}.{name}"
    return InvalidRequestError(f"sub-task {name!r}: {error}", path if error.parameter is None else f"{path}.{error.parameter}")


def _check_name(name: object) -> None:
    is_name = isinstance(name, str) and name.isascii() and name.isidentifier() and len(name) <= MAX_NAME_CHARACTERS
    what = f"letters, digits and _, not a digit first, at most {MAX_NAME_CHARACTERS} characters"
    require(is_name, TASKS, f"sub-tasks by name ({what})", repr(name)[:80])
    if name in RESERVED or str(name).startswith("__"):
        raise InvalidRequestError(f"a sub-task cannot be called {name!r}, which means something else in a prompt", TASKS)


def _check_keys(path: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key in NOT_HERE:
            raise InvalidRequestError(f"{path}: {key} is not for sub-tasks: {NOT_HERE[key]}", f"{path}.{key}")
        if key not in known and key not in NEUTRAL:
            raise UnknownNameError(f"key in {path}:", str(key), known, parameter=f"{path}.{key}")


def _after(value: object) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(names, Sequence):
        raise InvalidRequestError(f"{AFTER} must be a name or a list of names of sub-tasks", AFTER)
    return tuple([text(AFTER, name) for name in names])


def _check_after(task: SubTask, known: Iterable[str]) -> None:
    unknown = next((name for name in task.after if name not in known), None)
    if unknown is None:
        return
    near = difflib.get_close_matches(unknown, [name for name in known if name != task.name], n=3, cutoff=0.5)
    where, what = (PROMPT, "takes in") if unknown in task.template.names else (AFTER, "waits for")
    advice = f"nearest: {', '.join(near)}" if near else f"there are: {', '.join(known)}"
    fault = f"sub-task {task.name!r} {what} {unknown[:80]!r}, which is none of this graph; {advice}"
    raise InvalidRequestError(fault, f"{TASKS}.{task.name}.{where}")


def _in_order(tasks: Mapping[str, SubTask]) -> list[str]:
    """Each behind what it waits for. Raises ``InvalidRequestError`` where they go in a circle."""
    try:
        return list(graphlib.TopologicalSorter({name: task.after for name, task in tasks.items()}).static_order())
    except graphlib.CycleError as error:
        circle = list(reversed(error.args[1]))
        chain = ", ".join(f"{waits} waits for {for_it}" for waits, for_it in itertools.pairwise(circle))
        advice = f"take one of these out of {AFTER}, or out of the prompt"
        raise InvalidRequestError(f"the sub-tasks go in a circle: {chain}; {advice}", f"{TASKS}.{circle[0]}.{AFTER}") from error


def _object(path: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{path} must be an object, not {'missing' if value is None else repr(value)[:40]}", path)
    return value
