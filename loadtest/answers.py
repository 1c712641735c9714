"""What a load test keeps of each answer, and of who was there when. Pure: moments are handed in, in seconds of one clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

TICK_S, STALL_S = 0.25, 0.75
"""How often the users' process says that it is alive, and how late that is remarkable."""


class End(StrEnum):
    """How an answer ended: as it should, left by its user for good, by an end that the scenario expects, or otherwise."""

    DONE = "done"
    LEFT = "left"
    EXPECTED = "expected"
    FAILED = "failed"


@dataclass(slots=True)
class Times:
    """When an answer's tokens came. ``updates`` are moments at which tokens became final, and how many."""

    began_s: float
    visible_s: float | None = None
    updates: list[tuple[float, int]] = field(default_factory=list)

    def visible(self, now_s: float) -> None:
        """Something can be read now."""
        self.visible_s = now_s if self.visible_s is None else self.visible_s

    def final(self, count: int, now_s: float) -> None:
        """So many tokens became final; text may come without a token."""
        if count:
            self.updates.append((now_s, count))

    @property
    def num_tokens(self) -> int:
        return sum(count for _, count in self.updates)

    @property
    def first_visible_s(self) -> float | None:
        """From the request on."""
        return None if self.visible_s is None else self.visible_s - self.began_s

    @property
    def first_final_s(self) -> float | None:
        """From the request on."""
        return self.updates[0][0] - self.began_s if self.updates else None

    @property
    def gaps_s(self) -> list[float]:
        """Time before each final token but those of the first update: tokens that become final together share the time since
        those before them."""
        gaps: list[float] = []
        for (before_s, _), (now_s, count) in zip(self.updates, self.updates[1:], strict=False):
            gaps += [(now_s - before_s) / count] * count
        return gaps


@dataclass(frozen=True, slots=True)
class Drafts:
    """What became of the drafts of one answer. ``withdrawn`` of the ``shown`` ones were taken back.

    ``agreed`` and ``contradicted`` are those that stood where tokens became final.
    """

    shown: int = 0
    withdrawn: int = 0
    agreed: int = 0
    contradicted: int = 0


NO_DRAFTS = Drafts()


@dataclass(frozen=True, slots=True)
class Answer:
    """One request and how it went. ``how`` says why it is not ``DONE``: a status, or what was wrong.

    ``is_resumed``: its connection was cut, and it went on over another.
    """

    group: str
    times: Times
    ended_s: float
    end: End
    how: str = ""
    drafts: Drafts = NO_DRAFTS
    is_resumed: bool = False


@dataclass(slots=True)
class Ledger:
    """All that happened. ``began`` counts answers that were asked for; some may never have ended.

    ``stalls_s``: for how long the users themselves stood still, each time.
    """

    answers: list[Answer] = field(default_factory=list)
    crowd: list[tuple[float, str, int]] = field(default_factory=list)
    began: int = 0
    stalls_s: list[float] = field(default_factory=list)
    _last_s: float | None = None

    def came(self, group: str, now_s: float) -> None:
        """A user is there from now on."""
        self.crowd.append((now_s, group, 1))

    def went(self, group: str, now_s: float) -> None:
        """A user is gone."""
        self.crowd.append((now_s, group, -1))

    def ticked(self, now_s: float) -> None:
        """The users' process is alive; told every ``TICK_S``. What is far later than that was no service's doing."""
        late_s = 0.0 if self._last_s is None else now_s - self._last_s - TICK_S
        if late_s > STALL_S:
            self.stalls_s.append(late_s)
        self._last_s = now_s

    @property
    def num_open(self) -> int:
        """Answers without an end."""
        return self.began - len(self.answers)


def judge(how: str, expected: Sequence[str]) -> End:
    """What an end is called; ``how`` is empty where the answer came to its own end, else a status, a colon and more words."""
    if not how:
        return End.DONE
    return End.EXPECTED if how.partition(":")[0] in expected else End.FAILED


class Texts:
    """Whether one request has one text: the same prompt, temperature and seed may never read otherwise, whoever asked."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[int, ...]] = {}

    def agrees(self, request: tuple[object, ...], token_ids: Sequence[int]) -> bool:
        """Whether the tokens are what was read before, as far as both go; the longer of the two is kept."""
        new, known = tuple(token_ids), self._known.get(request, ())
        common = min(len(new), len(known))
        if new[:common] != known[:common]:
            return False
        if len(new) > len(known):
            self._known[request] = new
        return True
