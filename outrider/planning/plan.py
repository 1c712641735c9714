"""Whether device-cloud speculation pays for a phone, a network, a cloud machine and two models: asked of the production code.

Every figure is emulated, by ``scene.run``. What hangs on which tokens the draft gets right is asked of several draws, and the
speed-up comes with its 95 % interval by the bootstrap (Efron, 1979) over them. The draws of one mode meet those of the other,
so that luck counts for both.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from statistics import mean

from device_agent.request import Mode
from outrider.planning.answers import Asked, Effort, Plan, Served, Setting, Warm, interval, mean_of, rate_of
from outrider.planning.scene import Place, Setup, Source, Written, run
from outrider.planning.sources import Synthetic
from outrider.planning.synthetic import Acceptance
from speculation.errors import CapacityError
from speculation.shaping.costs import Work
from speculation.shaping.engine import PhoneCost
from speculation.shaping.heat import HeatState
from speculation.shaping.phone_state import Heat

Tell = Callable[[str], None]


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
