"""What an emulated phone's own gauges would show while it works: joules, and, where heat is emulated, speed and thermal status.

Time comes from the caller: when each job begins, and how long its steps take at full speed. No clock is read here.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

from speculation.shaping.energy import PhoneEnergy
from speculation.shaping.heat import HeatModel, HeatState, Temperatures


class Heat(StrEnum):
    """Whether a phone gets hot, and how it begins: ``on`` after hours of rest, ``hot`` after hours of drafting."""

    OFF = "off"
    ON = "on"
    HOT = "hot"


class PhoneState:
    """Written by whoever owns the engine; ``joules`` and ``status`` may be read by anyone at any time.

    ``joules`` counts the work alone, not what the phone draws anyway. ``num_gaps`` counts the times that it became, or had
    been, a phone whose work nobody can tell in joules: what lies on both sides of one is not the whole.
    """

    def __init__(self, energy: PhoneEnergy | None, heat: PhoneHeat | None = None) -> None:
        self.joules = 0.0
        self.num_gaps = 0
        self.heat = heat
        self._energy = energy
        self._idle = (0.0, 0.0, self.idle_w)  # joules so far, since when, and watts: one value, read by other threads
        self._began_s = self._job_s = self._job_j = 0.0

    @property
    def has_energy(self) -> bool:
        """Whether ``joules`` means anything."""
        return self._energy is not None

    @property
    def status(self) -> str | None:
        """The thermal status in the words of the phone's system, as of the last work; None where no heat is emulated."""
        return None if self.heat is None else self.heat.state.word

    @property
    def idle_w(self) -> float:
        """What the phone draws anyway; 0 where it has no figures of energy."""
        return 0.0 if self._energy is None else self._energy.idle_w

    def idle_j(self, now_s: float) -> float:
        """What the phone drew anyway since time 0, each phone that it was for its own time."""
        so_far_j, since_s, idle_w = self._idle
        return so_far_j + idle_w * (now_s - since_s)

    def status_at(self, now_s: float) -> str | None:
        """The status now, where the phone has rested since its last work: ``status`` would stay hot until there is some."""
        return None if self.heat is None else self.heat.at(now_s).word

    @property
    def coolest(self) -> str | None:
        """The status of a phone that nothing troubles; None where no heat is emulated."""
        return None if self.heat is None else self.heat.coolest

    @property
    def temperatures(self) -> Temperatures | None:
        """Of the die and of the skin, as of the last work; None where no heat is emulated."""
        return None if self.heat is None else self.heat.state.temperatures

    def become(self, other: PhoneState, now_s: float) -> None:
        """From now on these are the gauges of another phone, before any work of its own; joules count on."""
        self.num_gaps += self._energy is None or other._energy is None
        self._idle = self.idle_j(now_s), now_s, other.idle_w
        self._energy, self.heat = other._energy, other.heat

    def begin(self, now_s: float) -> None:
        """A job begins. Of the one before, where it was given up, only what was done counts; then the phone rested."""
        left_s = self._began_s + self._job_s - now_s
        if left_s > 0:  # a job's power counts as even
            self.joules -= self._job_j * min(1.0, left_s / self._job_s)
        if self.heat is not None:
            self.heat.begin(now_s)
        self._began_s, self._job_s, self._job_j = now_s, 0.0, 0.0

    def step(self, num_bytes: float, full_speed_s: float) -> float:
        """Seconds of a step that reads ``num_bytes`` and takes ``full_speed_s`` where nothing throttles it."""
        step_j = 0.0 if self._energy is None else self._energy.step_j(num_bytes, full_speed_s).total_j
        seconds = full_speed_s if self.heat is None else self.heat.work(full_speed_s, step_j)
        self.joules += step_j
        self._job_s += seconds
        self._job_j += step_j
        return seconds


class PhoneHeat:
    """A heat model at one moment, ``state``, which moves on with each job."""

    def __init__(self, model: HeatModel, start: HeatState) -> None:
        self.state = start
        self._model = model
        self._is_new = True
        self._job_start = start
        self._job: list[tuple[float, float]] = []

    @property
    def coolest(self) -> str:
        return self._model.words.coolest

    def at(self, now_s: float) -> HeatState:
        """The state at this time, if no work comes before it. Nothing is changed."""
        state = self.state
        return state if self._is_new else self._model.rest(state, max(0.0, now_s - state.at_s))

    def begin(self, now_s: float) -> None:
        """A job begins at this time, which is the first one's beginning of all time."""
        if self._is_new:
            self.state = replace(self.state, at_s=now_s)
        elif now_s < self.state.at_s:
            self.state = self._replayed(now_s)
        self.state = self._model.rest(self.state, now_s - self.state.at_s)
        self._is_new, self._job_start, self._job = False, self.state, []

    def work(self, full_speed_s: float, dynamic_j: float) -> float:
        """Seconds that such work takes."""
        began_s = self.state.at_s
        self.state = self._model.work(self.state, full_speed_s, dynamic_j)
        self._job.append((full_speed_s, dynamic_j))
        return self.state.at_s - began_s

    def _replayed(self, until_s: float) -> HeatState:
        """The state in the middle of the last job."""
        state = self._job_start
        for full_speed_s, dynamic_j in self._job:
            state = self._model.work(state, full_speed_s, dynamic_j, until_s)
        return state
