"""Bugs planted in the running process, to see that the fault scenes find them: ``python -m tests.faults.mutants``.

Each mutant replaces the smallest function of production code that holds the rule it breaks; no file is changed. The table names
the first scene that turns red, and which of the tests of the protocol, the verifier and the agent do.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import logging
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest

from benchmarks.report import Grid, add_arguments, publish
from cloud_verifier import passes
from cloud_verifier.live import LiveSession
from speculation.protocol.device import DeviceSession
from speculation.protocol.outbox import Outbox
from speculation.protocol.verifier import VerifierSession
from tests.faults.runs import TABLES
from tests.faults.scene import SceneError, play

MAX_SEEDS = 60
"""Scenes within which a mutant must turn red."""

NEARBY = ("tests/speculation/protocol", "tests/cloud_verifier/test_verification.py", "tests/device_agent/test_reconnect.py")
COLUMNS = ("planted bug", "in", "fault scenes: red at", "because", "other tests that turn red")
NUM_NAMED = 3


@dataclass(frozen=True, slots=True)
class Mutant:
    """A bug: what it is, and the functions that it replaces, each by what it makes of the original."""

    name: str
    what: str
    replaced: tuple[tuple[Any, str, Callable[[Any], Any]], ...]

    @property
    def place(self) -> str:
        return ", ".join(f"`{getattr(owner, '__name__', owner)}.{name}`" for owner, name, _ in self.replaced)

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for owner, name, bug in self.replaced:
                stack.enter_context(mock.patch.object(owner, name, bug(getattr(owner, name))))
            yield


@dataclass(frozen=True, slots=True)
class Kill:
    """The first scene that turned red, after so many, and why."""

    seed: int
    num_scenes: int
    reason: str


# The bugs ------------------------------------------------------------------------------------------------------------------


def _keep_children_of_the_dead(original: Any) -> Any:
    """Where a choice contradicts a draft, what was drafted behind that draft goes on to count, behind the choice."""

    def advance(self: VerifierSession, token_id: int) -> None:
        chain = list(self._tree.likeliest())
        original(self, token_id)
        if chain and chain[0].token_id != token_id:
            parent = None
            for stale in chain[1:]:
                parent, _ = self._tree.add(parent, stale.token_id, stale.rank)
                parent.number = stale.number
                self._remember(stale.number, parent)

    return advance


class _KeepsRows:
    """An engine that takes nothing back."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def truncate(self, cache: Any, length: int) -> None:
        pass


def _keep_rejected_rows(original: Any) -> Any:
    return lambda engine, entry: original(_KeepsRows(engine), entry)


def _choose_one_further(original: Any) -> Any:
    return lambda logits, runs: original(logits, [dataclasses.replace(run, position=run.position + 1) for run in runs])


def _number_one_further(original: Any) -> Any:
    def number(self: Outbox, node: Any) -> Any:
        told = original(self, node)
        return told if told.parent else dataclasses.replace(told, root_position=told.root_position + 1)

    return number


def _resumed(live: LiveSession) -> int:
    """Tokens that were final, behind the prompt, when the stream was opened."""
    return len(live.state._open.prefix) - live.state.generation_start


def _enter_as_new(original: Any) -> Any:
    """The noise of a resumed session starts over, as if its prefix were the prompt."""

    def enter(self: LiveSession, *arguments: Any) -> Any:
        entry, plan = original(self, *arguments)
        entry.position -= _resumed(self)
        return entry, plan

    return enter


def _settle_as_new(original: Any) -> Any:
    """Only the noise is wrong: what is cached is counted right again."""

    def settle(self: LiveSession, entry: Any, *arguments: Any) -> None:
        entry.position += _resumed(self)
        original(self, entry, *arguments)

    return settle


def _apply_again(original: Any) -> Any:
    def newly_final(self: DeviceSession, verdict: Any) -> Any:
        return original(self, dataclasses.replace(verdict, start=max(verdict.start, len(self.final))))

    return newly_final


MUTANTS = (
    Mutant("stale", "a stale node is accepted", ((VerifierSession, "_advance", _keep_children_of_the_dead),)),
    Mutant("rollback", "rejected rows stay in the cache", ((passes, "_prepare", _keep_rejected_rows),)),
    Mutant("noise-position", "the noise is that of the next position", ((passes, "choose_runs", _choose_one_further),)),
    Mutant("root-position", "drafts stand one position too far", ((Outbox, "_number", _number_one_further),)),
    Mutant(
        "resume",
        "after a resume the noise starts over",
        ((LiveSession, "enter", _enter_as_new), (LiveSession, "settle", _settle_as_new)),
    ),
    Mutant("overlap", "what a verdict repeats is applied again", ((DeviceSession, "_newly_final", _apply_again),)),
)


# Who sees them -------------------------------------------------------------------------------------------------------------


def killed(mutant: Mutant, max_seeds: int = MAX_SEEDS) -> Kill | None:
    """The first scene that turns red under a mutant; None where none of them does."""
    pair = TABLES.pair()
    with mutant.planted():
        for seed in range(max_seeds):
            try:
                play(seed, pair, TABLES.command, Counter())
            except SceneError as error:
                return Kill(seed, seed + 1, error.reason)
    return None


class _Reds:
    """A plugin of pytest that notes what fails, and lets no failing example be made small, or be remembered."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def pytest_configure(self) -> None:
        import hypothesis  # not before pytest, which rewrites its assertions

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("planted", phases=phases, derandomize=True, database=None)
        hypothesis.settings.load_profile("planted")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.names.add(report.nodeid.partition("[")[0])


def _run_nearby_tests(mutant: Mutant) -> None:
    """In a process of its own: print the names of the tests that fail as the last line."""
    reds = _Reds()
    with mutant.planted():
        pytest.main(["-q", "--no-header", "--tb=no", "-p", "no:cacheprovider", *NEARBY], plugins=[reds])
    print(json.dumps(sorted(reds.names)))


def nearby_reds(mutant: Mutant) -> list[str]:
    """Tests of ``NEARBY`` that turn red under a mutant."""
    command = [sys.executable, "-m", "tests.faults.mutants", "--nearby", mutant.name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return names


def _cells(mutant: Mutant, kill: Kill | None, reds: list[str] | None) -> list[str]:
    seen = ["survives", ""] if kill is None else [f"seed {kill.seed}", f"`{kill.reason}`"]
    return [mutant.what, mutant.place, *seen, "not run" if reds is None else _named(reds)]


def _named(reds: list[str]) -> str:
    shown = [f"`{name.rpartition('/')[2]}`" for name in reds[:NUM_NAMED]]
    more = len(reds) - len(shown)
    return ", ".join([*shown, f"{more} more"] if more else shown) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nearby", choices=[mutant.name for mutant in MUTANTS], help=argparse.SUPPRESS)
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.nearby:
        _run_nearby_tests(next(mutant for mutant in MUTANTS if mutant.name == arguments.nearby))
        return
    logging.disable(logging.CRITICAL)
    found = [(mutant, killed(mutant), None if arguments.quick else nearby_reds(mutant)) for mutant in MUTANTS]
    num_killed = sum(kill is not None for _, kill, _ in found)
    title = f"{num_killed} of {len(found)} planted bugs turn the fault scenes red, each within {MAX_SEEDS} scenes"
    figures = [
        {"name": m.name, "what": m.what, "kill": kill and dataclasses.asdict(kill), "other": reds} for m, kill, reds in found
    ]
    publish(arguments, "mutants", [Grid(title, COLUMNS, [_cells(*one) for one in found])], figures)
    if num_killed < len(found):
        sys.exit(1)


if __name__ == "__main__":
    main()
