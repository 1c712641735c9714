"""Whether device-cloud speculation pays for a phone, a network, a cloud machine and two models: asked of the production code.

Every figure is emulated, by ``scene.run``. What hangs on which tokens the draft gets right is asked of several draws, and the
speed-up comes with its 95 % interval by the bootstrap (Efron, 1979) over them. The draws of one mode meet those of the other,
so that luck counts for both.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

import numpy as np

from device_agent.request import Mode
from outrider.planning.scene import Place, Setup, Source, Written, run
from outrider.planning.sources import RealPair, Synthetic
from outrider.planning.synthetic import Acceptance
from speculation.errors import CapacityError
from speculation.shaping.costs import Work
from speculation.shaping.engine import PhoneCost
from speculation.shaping.heat import HeatState
from speculation.shaping.phone_state import Heat

PAYS_FROM = 1.05
"""A smaller speed-up nobody feels, and it costs the phone's battery all the same."""
NUM_RESAMPLES = 10_000

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is run: tokens of an answer, draws of the main question and of the others, the most devices at once, and which
    round trips and fixed settings are tried."""

    num_tokens: int = 256
    num_draws: int = 12
    num_search_draws: int = 4
    num_served_tokens: int = 64
    most_devices: int = 128
    round_trips_ms: tuple[float, ...] = (0.0, 20.0, 50.0, 100.0, 200.0, 400.0, 800.0, 1600.0)
    depths: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    widths: tuple[int, ...] = (1, 2, 4)
    moments_s: tuple[float, ...] = (0.0, 60.0, 180.0, 600.0)


QUICK = Effort(num_tokens=96, num_draws=4, num_search_draws=1, num_served_tokens=32, most_devices=16)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be planned. ``rate_tokens_per_s`` is what each device must get where many share a server."""

    place: Place
    acceptance: Acceptance
    prompt_length: int = 64
    context_length: int = 2048
    rate_tokens_per_s: float = 20.0
    effort: Effort = field(default_factory=Effort)
    pair: RealPair | None = None


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and between what it lies with 95 %."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Mean:
    """What the answers of one mode reached, on average; counts are a final token's."""

    tokens_per_s: float
    first_visible_ms: float
    first_final_ms: float | None
    passes_per_token: float
    acceptance: float | None
    revoked_share: float | None
    bytes_up_per_token: float
    bytes_down_per_token: float
    draft_steps_per_token: float
    work_j_per_token: float | None
    radio_j_per_token: float


@dataclass(frozen=True, slots=True)
class Warm:
    """After so long of drafting without a pause: the phone's share of its full speed, its thermal status, and how fast
    collaboration and the device alone write there."""

    after_s: float
    phone_speed: float
    status: str
    tokens_per_s: float
    device_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Setting:
    """A fixed way of drafting, and how fast it is; beside it ``adaptive`` on the same draws."""

    depth: int
    width: int
    tokens_per_s: float
    adaptive_tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Served:
    """How many devices a server holds at the rate. ``bound`` says why not more: ``rate``, ``memory``, or ``tried`` for the most
    that were tried. ``tokens_per_s`` is each one's, ``usd_per_million`` the price of a million final tokens at that load."""

    num_devices: int
    bound: str
    tokens_per_s: float
    usd_per_million: float | None


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer. ``by_round_trip``: the speed-up by the round trip in milliseconds, on an otherwise equal network. ``heat``
    is empty where the phone's profile has no figures of it."""

    collaborate: Mean
    cloud: Mean
    device: Mean
    speed_up: Interval
    acceptance: float
    by_round_trip: dict[float, float]
    best: Setting
    served: dict[str, Served]
    heat: list[Warm]

    @property
    def pays(self) -> bool:
        return self.speed_up.low >= PAYS_FROM

    @property
    def break_even_ms(self) -> float | None:
        """The round trip from which on it no longer pays, between two that were tried; None where it pays at all of them."""
        return break_even(self.by_round_trip)

    def to_json(self) -> dict[str, Any]:
        return {"pays": self.pays, "break_even_ms": self.break_even_ms, **asdict(self)}


def plan(asked: Asked, tell: Tell) -> Plan:
    """All answers; ``tell`` hears what is being asked. Raises ``CapacityError`` where a model does not fit its machine."""
    return _Planner(asked, tell).plan()


def num_steps(effort: Effort) -> int:
    """How often ``tell`` is called at most: a server that is full, or a phone without heat, saves some."""
    settings = 1 + len(effort.depths) * len(effort.widths)
    return 3 + len(effort.round_trips_ms) + settings + 2 * len(list(_loads(effort))) + len(effort.moments_s)


class _Planner:
    def __init__(self, asked: Asked, tell: Tell) -> None:
        self._asked, self._tell, self._effort = asked, tell, asked.effort
        self._source: Source = asked.pair or self._synthetic(asked.acceptance)

    def plan(self) -> Plan:
        effort, place = self._effort, self._asked.place
        draws = range(effort.num_draws)
        found = {mode: self._written(place, self._source, mode, draws) for mode in (Mode.CLOUD, Mode.COLLABORATE)}
        self._tell("device alone")
        alone = run(place, self._source, Setup.of(Mode.DEVICE), [0], effort.num_tokens)
        ratios = [ours.tokens_per_s / theirs.tokens_per_s for ours, theirs in zip(*reversed(found.values()), strict=True)]
        collaborate = mean_of(found[Mode.COLLABORATE])
        met = self._asked.acceptance
        if self._asked.pair is not None and collaborate.acceptance is not None:
            met = dataclasses.replace(met, alpha=min(max(collaborate.acceptance, 0.01), 0.99))
        return Plan(
            collaborate=collaborate,
            cloud=mean_of(found[Mode.CLOUD]),
            device=mean_of(alone),
            speed_up=interval(ratios),
            acceptance=met.alpha,
            by_round_trip={ms: self._speed_up(met, ms / 1000) for ms in effort.round_trips_ms},
            best=self._best(met),
            served={mode.value: self._served(mode, met) for mode in (Mode.CLOUD, Mode.COLLABORATE)},
            heat=[self._warm(met, state, cold_s) for cold_s, state in self._heat()],
        )

    def _synthetic(self, met: Acceptance) -> Synthetic:
        return Synthetic(met, self._asked.context_length, self._asked.prompt_length)

    def _written(self, place: Place, source: Source, mode: Mode, draws: Sequence[int]) -> list[Written]:
        """An answer for each draw, one after the other."""
        self._tell(f"{mode.value}, {len(draws)} answers")
        setup = Setup.of(mode)
        return [answer for draw in draws for answer in run(place, source, setup, [draw], self._effort.num_tokens)]

    def _speed_up(self, met: Acceptance, round_trip_s: float) -> float:
        """On a few draws of the synthetic pair, with the network that near or far."""
        self._tell(f"a round trip of {round_trip_s * 1000:.0f} ms")
        place, source = self._asked.place.at_round_trip(round_trip_s), self._synthetic(met)
        ratios = []
        for draw in range(self._effort.num_search_draws):
            ours, theirs = (
                run(place, source, Setup.of(mode), [draw], self._effort.num_tokens)[0]
                for mode in (Mode.COLLABORATE, Mode.CLOUD)
            )
            ratios.append(ours.tokens_per_s / theirs.tokens_per_s)
        return mean(ratios)

    def _best(self, met: Acceptance) -> Setting:
        """The fastest of the fixed settings, on a few draws."""
        source, found = self._synthetic(met), dict[tuple[int, int], float]()
        self._tell("adaptive")
        adaptive = self._rate(source, Setup.of())
        for depth, width in itertools.product(self._effort.depths, self._effort.widths):
            self._tell(f"{depth} deep, {width} wide")
            policy = "ahead" if width == 1 else "second-branch"
            found[depth, width] = self._rate(source, Setup.of(drafting=policy, draft_depth=depth, draft_width=width))
        best = max(found, key=lambda setting: found[setting])
        return Setting(*best, found[best], adaptive)

    def _rate(self, source: Source, setup: Setup) -> float:
        draws, place = range(self._effort.num_search_draws), self._asked.place
        return mean(run(place, source, setup, [draw], self._effort.num_tokens)[0].tokens_per_s for draw in draws)

    def _served(self, mode: Mode, met: Acceptance) -> Served:
        """More and more devices, twice as many each time, until each gets less than the rate."""
        best, source = Served(0, "rate", 0.0, None), self._synthetic(met)
        room = self._room()
        for num_devices in _loads(self._effort):
            self._tell(f"{mode.value}, {num_devices} devices")
            if num_devices > room:
                return dataclasses.replace(best, bound="memory")
            try:
                answers = run(
                    self._asked.place, source, Setup.of(mode, num_devices), range(num_devices), self._effort.num_served_tokens
                )
            except CapacityError:
                return dataclasses.replace(best, bound="memory")
            rate = rate_of(answers)
            if rate < self._asked.rate_tokens_per_s:
                return best
            best = Served(num_devices, "tried", rate, self._usd_per_million(rate * num_devices))
        return best

    def _heat(self) -> list[tuple[float, HeatState]]:
        """The phone at each moment of drafting without a pause."""
        cost = PhoneCost(self._asked.place.phone, self._asked.place.draft)
        if cost.phone.heat is None:
            return []
        return list(warming(cost, self._asked.prompt_length + self._effort.num_tokens, self._effort.moments_s))

    def _warm(self, met: Acceptance, state: HeatState, after_s: float) -> Warm:
        """With the phone as slow as it is by then, all through an answer."""
        self._tell(f"after {after_s:.0f} s of drafting")
        place, source = self._asked.place.at_speed(state.speed), self._synthetic(met)
        draws = range(self._effort.num_search_draws)
        rates = [run(place, source, Setup.of(), [draw], self._effort.num_tokens)[0].tokens_per_s for draw in draws]
        alone = run(place, source, Setup.of(Mode.DEVICE), [0], self._effort.num_tokens)[0].tokens_per_s
        return Warm(after_s, state.speed, state.word, mean(rates), alone)

    def _room(self) -> float:
        """Contexts that the cloud machine holds beside the full model."""
        machine, model = self._asked.place.cloud.machine, self._asked.place.full
        left = machine.memory_bytes - model.weight_bytes - machine.runtime_bytes
        return left / (model.kv_bytes_per_token * self._asked.context_length)

    def _usd_per_million(self, tokens_per_s: float) -> float | None:
        usd_per_hour = self._asked.place.cloud.usd_per_hour
        return None if usd_per_hour is None else usd_per_hour / (3600 * tokens_per_s) * 1e6


def warming(cost: PhoneCost, num_past: int, moments_s: Sequence[float]) -> Iterator[tuple[float, HeatState]]:
    """A phone that drafts one token behind the other from a cold start, at each of these moments in seconds, which rise."""
    phone, works = cost.state(Heat.ON), [Work(num_past, 1)]
    if phone.heat is None:
        return
    step_s, num_bytes = cost.step_s(works), cost.bytes_read(works)
    for moment_s in moments_s:
        while phone.heat.state.at_s < moment_s:
            phone.step(num_bytes, step_s)
        yield moment_s, phone.heat.state


def _loads(effort: Effort) -> Iterator[int]:
    count = 1
    while count <= effort.most_devices:
        yield count
        count *= 2


def break_even(by_round_trip: Mapping[float, float]) -> float | None:
    """Where the speed-up falls through ``PAYS_FROM`` for the first time, on straight lines; 0 where it is below at once."""
    points = sorted(by_round_trip.items())
    if points[0][1] < PAYS_FROM:
        return 0.0
    for (near, above), (far, below) in itertools.pairwise(points):
        if below < PAYS_FROM:
            return near + (far - near) * (above - PAYS_FROM) / (above - below)
    return None


def rate_of(answers: Sequence[Written]) -> float:
    """Tokens a second of a device in the middle, from its first final token on."""
    taken_s = [answer.ended_s - answer.began_s - (answer.first_final_s or 0.0) for answer in answers]
    return float(np.median([(answer.num_tokens - 1) / took_s for answer, took_s in zip(answers, taken_s, strict=True)]))


def mean_of(answers: Sequence[Written]) -> Mean:
    """Over all answers, each as heavy as the next."""

    def told(values: Sequence[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return mean(known) if known else None

    return Mean(
        tokens_per_s=mean(answer.tokens_per_s for answer in answers),
        first_visible_ms=1000 * mean(answer.first_visible_s for answer in answers),
        first_final_ms=told([None if answer.first_final_s is None else 1000 * answer.first_final_s for answer in answers]),
        passes_per_token=mean(answer.passes_per_token for answer in answers),
        acceptance=told([answer.acceptance for answer in answers]),
        revoked_share=told([answer.revoked_share for answer in answers]),
        bytes_up_per_token=mean(answer.bytes_up_per_token for answer in answers),
        bytes_down_per_token=mean(answer.bytes_down_per_token for answer in answers),
        draft_steps_per_token=mean(answer.draft_steps_per_token for answer in answers),
        work_j_per_token=told([answer.work_j_per_token for answer in answers]),
        radio_j_per_token=mean(answer.radio_j_per_token for answer in answers),
    )


def interval(ratios: Sequence[float]) -> Interval:
    """The mean, and its 95 % interval by the bootstrap's percentiles."""
    random = np.random.default_rng(1)
    means = random.choice(np.asarray(ratios), (NUM_RESAMPLES, len(ratios))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(mean(ratios), float(low), float(high))
