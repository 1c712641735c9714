"""Many scenes, one after the other, until so many answers were compared whole with plain decoding; and what they came to."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.faults.models import Pair
from tests.faults.pairs import RealPair, TablePair
from tests.faults.scene import Answer, Ending, play


@dataclass(frozen=True, slots=True)
class Plan:
    """Which pair, how many answers are to be compared whole, and the command that plays one seed of it again."""

    name: str
    pair: Callable[[], Pair]
    num_whole: int
    command: str


TABLES = Plan("seeded tables", TablePair, 2000, "python -m tests.faults")
REAL = Plan("the bundled pair", RealPair, 50, "python -m tests.faults --real")


@dataclass
class Run:
    """What scenes came to. ``tally`` counts what was done to them, and what the code made of it."""

    answers: list[Answer] = field(default_factory=list)
    tally: Counter[str] = field(default_factory=Counter)
    num_scenes: int = 0
    cpu_s: float = 0.0

    @property
    def num_whole(self) -> int:
        return self._num(Ending.WHOLE)

    @property
    def answers_per_s(self) -> float:
        """A second of this process's own time, which neighbours on the machine hardly change."""
        return len(self.answers) / self.cpu_s

    def figures(self) -> dict[str, int]:
        """All counts; none of them depends on the machine."""
        return {
            "scenes": self.num_scenes,
            "answers": len(self.answers),
            **{ending.value: self._num(ending) for ending in Ending},
            "tokens": sum(answer.num_tokens for answer in self.answers),
            **{name: self.tally[name] for name in sorted(self.tally)},
        }

    def _num(self, ending: Ending) -> int:
        return sum(answer.ending is ending for answer in self.answers)


def run(plan: Plan, num_whole: int | None = None, seeds: Iterable[int] | None = None) -> Run:
    """Scenes of the seeds in turn (0, 1, ...), until so many answers were compared whole. Raises ``SceneError``."""
    pair, wanted = plan.pair(), plan.num_whole if num_whole is None else num_whole
    done = Run()
    began_cpu_s = time.process_time()
    for seed in itertools.count() if seeds is None else seeds:
        done.answers += play(seed, pair, plan.command, done.tally)
        done.num_scenes += 1
        if done.num_whole >= wanted:
            break
    done.cpu_s = time.process_time() - began_cpu_s
    return done
