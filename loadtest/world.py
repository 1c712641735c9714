"""What all users of one run share: where they call, with which keys, what they ask for, and the book of what happened."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from benchmarks import trace_file
from loadtest.answers import Answer, Drafts, Ledger, Texts, Times, judge
from loadtest.asking import Library, Request
from loadtest.scenario import Group, Scenario
from speculation.engines.package import load_pair
from speculation.keys import read_key


@dataclass(slots=True)
class World:
    """``verifier`` is ``host:port``; ``keys`` are those of the tenants that have one."""

    scenario: Scenario
    verifier: str
    keys: dict[str, str]
    library: Library
    chance: random.Random
    ledger: Ledger = field(default_factory=Ledger)
    texts: Texts = field(default_factory=Texts)
    _numbers: count[int] = field(default_factory=count)

    @classmethod
    def of(cls, scenario: Scenario, verifier: str, key_files: dict[str, Path]) -> World:
        """Raises ``ConfigurationError`` for a file that holds no key, and for prompts that the pair has no room for;
        ``PackageError`` where the bundled pair is damaged."""
        keys = {tenant: read_key(file) for tenant, file in key_files.items()}
        library = Library(load_pair(), trace_file.load())
        library.check(scenario.groups)
        return cls(scenario, verifier, keys, library, random.Random(scenario.seed))

    @staticmethod
    def now_s() -> float:
        """The one clock of the run."""
        return time.monotonic()

    def request(self, group: Group) -> Request:
        """The next thing to ask."""
        return self.library.request(group, next(self._numbers), self.chance)

    def number(self) -> int:
        """A number of its own for each who asks."""
        return next(self._numbers)

    def ended(self, group: Group, times: Times, how: str, drafts: Drafts, is_resumed: bool) -> Answer:
        """Note an answer's end; ``how`` is empty where it came to its own."""
        return self.note(Answer(group.name, times, self.now_s(), judge(how, group.expected), how, drafts, is_resumed))

    def note(self, answer: Answer) -> Answer:
        """Keep an answer."""
        self.ledger.answers.append(answer)
        return answer
