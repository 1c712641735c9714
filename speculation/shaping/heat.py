"""How hot a phone gets, and how much slower that makes it: two heat stores, a governor, and the words for it. Pure.

The die (the chip and what is close around it) takes the heat, hands it to the skin (the body of the phone), and that to the
air: two capacities and two resistances, an RC circuit of second order. ``ThermalCircuit.after`` solves it exactly for a
constant power, so a result does not depend on the steps in which time is told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

PIECE_S = 0.1
"""Seconds of work, at full speed, for which one decision of the governor stands; a longer step is decided piece by piece."""


@dataclass(frozen=True, slots=True)
class Temperatures:
    """Of the two heat stores, in degrees Celsius."""

    die_c: float
    skin_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalCircuit:
    """Power flows into the die, from there into the skin, from there into air of ``ambient_c``. J/K and K/W."""

    ambient_c: float
    die_j_per_k: float
    skin_j_per_k: float
    die_to_skin_k_per_w: float
    skin_to_ambient_k_per_w: float

    @property
    def cold(self) -> Temperatures:
        """As cold as the air."""
        return Temperatures(self.ambient_c, self.ambient_c)

    def settled(self, power_w: float) -> Temperatures:
        """Where a constant power leads in the end."""
        skin_c = self.ambient_c + power_w * self.skin_to_ambient_k_per_w
        return Temperatures(skin_c + power_w * self.die_to_skin_k_per_w, skin_c)

    def after(self, start: Temperatures, power_w: float, seconds: float) -> Temperatures:
        """The temperatures after ``seconds`` of a constant power.

        With x the distance of (die, skin) from where they settle, x' = M x with M = [[-a, a], [b, -(b + c)]]; so x(t) =
        exp(M t) x(0), and for the two distinct real eigenvalues l1 < l2 < 0 of M,
        exp(M t) = (exp(l2 t) (M - l1 I) - exp(l1 t) (M - l2 I)) / (l2 - l1).
        """
        settled = self.settled(power_w)
        die_k, skin_k = start.die_c - settled.die_c, start.skin_c - settled.skin_c
        a = 1 / (self.die_to_skin_k_per_w * self.die_j_per_k)
        b = 1 / (self.die_to_skin_k_per_w * self.skin_j_per_k)
        c = 1 / (self.skin_to_ambient_k_per_w * self.skin_j_per_k)
        total = a + b + c
        fast = -(total + math.sqrt(total * total - 4 * a * c)) / 2
        slow = a * c / fast  # their product is the determinant: no difference of nearly equal numbers
        fast_left, slow_left = math.exp(fast * seconds), math.exp(slow * seconds)
        die_rate, skin_rate = a * (skin_k - die_k), b * (die_k - skin_k) - c * skin_k
        gap = slow - fast
        return Temperatures(
            settled.die_c + (slow_left * (die_rate - fast * die_k) - fast_left * (die_rate - slow * die_k)) / gap,
            settled.skin_c + (slow_left * (skin_rate - fast * skin_k) - fast_left * (skin_rate - slow * skin_k)) / gap,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Governor:
    """How fast a die may run, as a share of full speed.

    All of it up to ``throttle_from_c``, ``slope_per_k`` less for each kelvin above, never less than ``slowest``. Speed that was
    taken comes back only once the die is ``hysteresis_k`` cooler.
    """

    throttle_from_c: float
    slope_per_k: float
    slowest: float
    hysteresis_k: float

    def speed(self, die_c: float, before: float) -> float:
        """The speed from now on, given that up to now: what it was, kept between the two lines."""
        return min(max(before, self._line(die_c + self.hysteresis_k)), self._line(die_c))

    def _line(self, die_c: float) -> float:
        return min(1.0, max(self.slowest, 1 - self.slope_per_k * (die_c - self.throttle_from_c)))


@dataclass(frozen=True, slots=True)
class StatusWords:
    """What an operating system calls it: a word from each die temperature on, and ``coolest`` below the first.

    A word is left once the die is ``hysteresis_k`` cooler than where it began.
    """

    coolest: str
    from_c: Sequence[tuple[float, str]]
    hysteresis_k: float

    def word(self, die_c: float, before: str) -> str:
        """The word from now on, given that up to now."""
        words = [self.coolest, *(word for _, word in self.from_c)]
        reached = self._num_reached(die_c)
        kept = min(words.index(before), self._num_reached(die_c + self.hysteresis_k)) if before in words else 0
        return words[max(reached, kept)]

    def _num_reached(self, die_c: float) -> int:
        return sum(1 for _ in itertools.takewhile(lambda step: die_c >= step[0], self.from_c))


@dataclass(frozen=True, slots=True)
class HeatModel:
    """A phone's heat: how it flows, what it slows, what it is called. ``idle_w`` is drawn whether or not a step runs."""

    circuit: ThermalCircuit
    governor: Governor
    words: StatusWords
    idle_w: float

    @property
    def cold(self) -> HeatState:
        """A phone that has lain idle for hours, at the temperature that its idle power keeps."""
        return self._state(self.circuit.settled(self.idle_w), 1.0, 0.0)

    def hot(self, dynamic_w: float) -> HeatState:
        """A phone that has worked without a pause until nothing changed any more. Work at full speed draws ``dynamic_w``.

        Where speed and temperature agree is found by bisection: a faster phone is hotter, and a hotter one slower. It became so
        from a colder one, whose speed falls along the upper line.
        """
        low, high = self.governor.slowest, 1.0
        for _ in range(60):
            speed = (low + high) / 2
            die_c = self.circuit.settled(self.idle_w + dynamic_w * speed).die_c
            low, high = (speed, high) if self.governor.speed(die_c, 1.0) > speed else (low, speed)
        return self._state(self.circuit.settled(self.idle_w + dynamic_w * low), low, 0.0)

    def rest(self, state: HeatState, seconds: float) -> HeatState:
        """After ``seconds`` without work."""
        return self._pass(state, self.idle_w, seconds)

    def work(self, state: HeatState, full_speed_s: float, dynamic_j: float, until_s: float = math.inf) -> HeatState:
        """After work that takes ``full_speed_s``, and ``dynamic_j``, where nothing throttles it; given up at ``until_s``."""
        num_pieces = math.ceil(full_speed_s / PIECE_S)
        for _ in range(num_pieces):
            seconds = full_speed_s / num_pieces / state.speed
            power_w = self.idle_w + dynamic_j / num_pieces / seconds
            state = self._pass(state, power_w, max(0.0, min(seconds, until_s - state.at_s)))
        return state

    def _pass(self, state: HeatState, power_w: float, seconds: float) -> HeatState:
        temperatures = self.circuit.after(state.temperatures, power_w, seconds)
        return self._state(temperatures, state.speed, state.at_s + seconds, state.word)

    def _state(self, temperatures: Temperatures, speed: float, at_s: float, before: str = "") -> HeatState:
        die_c = temperatures.die_c
        return HeatState(at_s, temperatures, self.governor.speed(die_c, speed), self.words.word(die_c, before))


@dataclass(frozen=True, slots=True)
class HeatState:
    """A phone at one moment: ``speed`` is the share of full speed at which it may run, ``word`` its system's thermal status."""

    at_s: float
    temperatures: Temperatures
    speed: float
    word: str
