"""A plan as values: what is asked, and what is answered. Pure but for the pair of models that may be asked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import mean
from typing import Any

import numpy as np

from outrider.planning.scene import Place, Written
from outrider.planning.sources import RealPair
from outrider.planning.synthetic import Acceptance

PAYS_FROM = 1.05
"""A smaller speed-up nobody feels, and it costs the phone's battery all the same."""
NUM_RESAMPLES = 10_000


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
    radio_j_per_token: float | None


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
        radio_j_per_token=told([answer.radio_j_per_token for answer in answers]),
    )


def interval(ratios: Sequence[float]) -> Interval:
    """The mean, and its 95 % interval by the bootstrap's percentiles."""
    random = np.random.default_rng(1)
    means = random.choice(np.asarray(ratios), (NUM_RESAMPLES, len(ratios))).mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return Interval(mean(ratios), float(low), float(high))
