"""Ways to route, run over held-out prompts by the production code with the bundled pair under the virtual clock.

One agent answers the prompts of a run one after the other, on a warm link, so that calibration learns as it would. Tokens and
confidences are the pair's own; times and joules are those of the machines that are emulated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from benchmarks.routing_texts import Point, agreement, distance
from benchmarks.virtual import Bench, Setting
from device_agent.events import DoneEvent
from device_agent.request import Mode, StreamRequest
from device_agent.routing.default import ByRules, Thresholds
from device_agent.routing.policy import Decision, Reason, RoutingPolicy, View
from outrider.planning.scene import Written, written
from speculation.shaping import profiles

STABILITY, CONFIDENCE = "all of the text", "the last 8 tokens"
"""Two things that a draft's confidence may be asked about: ``View.stability`` and ``View.confidence``."""


@dataclass(frozen=True, slots=True)
class ByConfidence:
    """Hands over where the mean chance of the last few tokens is below ``least``; otherwise the default policy without limits
    of length. For comparison."""

    least: float

    def decide(self, view: View) -> Decision:
        if view.is_verified or view.confidence < self.least:
            return Decision(Mode.COLLABORATE, Reason.UNSURE)
        return Decision(Mode.DEVICE, Reason.SWIFT)


def policy_of(signal: str, least: float) -> RoutingPolicy:
    """Hands over where this signal is below ``least``, and for no other reason that counts here."""
    return ByRules(Thresholds(stability=least)) if signal == STABILITY else ByConfidence(least)


@dataclass(frozen=True, slots=True)
class Way:
    """How prompts are answered; ``agent`` are further settings of the phone's agent."""

    name: str
    mode: Mode
    network: str = "5g-nsa-low"
    agent: Mapping[str, Any] = field(default_factory=dict)
    routing: RoutingPolicy | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer, its figures, and how near it is to the text of the cloud alone."""

    done: DoneEvent
    figures: Written
    agreement: float
    distance: float

    @property
    def total_s(self) -> float:
        """To the last token."""
        return self.figures.ended_s

    @property
    def joules(self) -> float:
        """Of drafting, and of a radio that is active for all of an answer that sent anything."""
        return self.figures.num_tokens * ((self.figures.work_j_per_token or 0.0) + (self.figures.radio_j_per_token or 0.0))


@dataclass(frozen=True, slots=True)
class Summary:
    """All answers of a way: means, but for the median of the first visible token."""

    name: str
    num_alone: int
    num_prompts: int
    agreement: float
    distance: float
    first_visible_ms: float
    total_ms: float
    passes_per_token: float
    joules_per_token: float

    def cells(self) -> list[str]:
        kept = f"{self.num_alone} of {self.num_prompts}"
        times = (f"{self.first_visible_ms:.0f}", f"{self.total_ms:.0f}")
        texts = (f"{self.agreement:.3f}", f"{self.distance:.3f}")
        return [self.name, kept, *texts, *times, f"{self.passes_per_token:.2f}", f"{self.joules_per_token:.2f}"]


class Prompts:
    """Held-out prompts, the same in every run, and what the cloud alone writes to them."""

    def __init__(self, bench: Bench, count: int, num_tokens: int) -> None:
        self._bench = bench
        self._texts = bench.prompts(count)
        self._num_tokens = num_tokens
        self._wanted = [done.token_ids for done in bench.run(Setting(), self._requests(Mode.CLOUD))]

    def answered(self, way: Way) -> list[Answered]:
        setting = Setting(network=way.network, agent=way.agent, routing=way.routing)
        answers = self._bench.run(setting, self._requests(way.mode))
        return [_answered(done, wanted, way.network) for done, wanted in zip(answers, self._wanted, strict=True)]

    def _requests(self, mode: Mode) -> list[StreamRequest]:
        return [StreamRequest(text, max_tokens=self._num_tokens, temperature=0.0, seed=1, mode=mode) for text in self._texts]


def summary(way: Way, answers: Sequence[Answered]) -> Summary:
    num_tokens = sum(answer.figures.num_tokens for answer in answers)
    return Summary(
        name=way.name,
        num_alone=sum(answer.done.verified_count == 0 for answer in answers),
        num_prompts=len(answers),
        agreement=mean(answer.agreement for answer in answers),
        distance=mean(answer.distance for answer in answers),
        first_visible_ms=1000 * median(answer.figures.first_visible_s for answer in answers),
        total_ms=1000 * mean(answer.total_s for answer in answers),
        passes_per_token=sum(passes(answers)) / num_tokens,
        joules_per_token=sum(answer.joules for answer in answers) / num_tokens,
    )


def passes(answers: Sequence[Answered]) -> list[int]:
    return [answer.done.usage["passes"] for answer in answers]


def point(answers: Sequence[Answered], most_passes: int) -> Point:
    return Point(sum(passes(answers)) / most_passes, mean(answer.agreement for answer in answers))


def _answered(done: DoneEvent, wanted: Sequence[int], network: str) -> Answered:
    took_s = len(done.token_ids) / done.figures["tokens_per_s"]["value"]
    figures = written(done, 0.0, took_s, profiles.network(network).power)
    return Answered(done, figures, agreement(done.token_ids, wanted), distance(done.token_ids, wanted))
