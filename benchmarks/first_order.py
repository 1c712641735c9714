"""The first-order model of drafting across a round trip, to hold the production code against. Times in milliseconds. Pure.

It knows positions and not tokens: a process tells how likely a draft's first and second choice are, and which of them the full
model takes. A step, a pass and half a round trip take fixed times, and nothing else takes any. The request is made at time 0,
and rates count to the end of the last pass. Here is what waits (stop-and-wait) or never drafts; ``first_order_ahead.py`` has
drafting ahead.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

LONGEST_SYNC = 32
"""As deep as a device drafts ahead by default. Where nearly all drafts are right, over 300 ms, the best length is 31."""


@dataclass(frozen=True, slots=True)
class Times:
    """A draft step on the device, a pass of the full model, a round trip.

    ``cloud_draft_ms`` is a step of the same draft model on the full model's machine. 1 ms is an assumption: 0.45 GB are read in
    0.13 ms at 65 % of 5.3 TB/s, so that launching the step's many small kernels takes most of it.
    """

    draft_ms: float
    pass_ms: float
    round_trip_ms: float
    cloud_draft_ms: float = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What a policy reaches."""

    tokens_per_s: float
    passes_per_token: float


def cloud(times: Times) -> Figures:
    """The full model alone."""
    return Figures(1000 / times.pass_ms, 1.0)


def device(times: Times) -> Figures:
    """The draft model alone: another text, and no pass."""
    return Figures(1000 / times.draft_ms, 0.0)


def beside_the_full_model(times: Times) -> Times:
    """The times of a draft model that runs in the cloud: no round trip lies between the two."""
    return Times(times.cloud_draft_ms, times.pass_ms, 0.0, times.cloud_draft_ms)


def sync(hits: Sequence[bool], times: Times, num_tokens: int, length: int) -> Figures:
    """Stop and wait: draft ``length`` tokens, send them, wait for the verdict. ``hits``: where the first choice is right.

    The last verdict's way back is behind the end of the last pass, to which rates count.
    """
    position = rounds = 0
    while position < num_tokens:
        run = itertools.takewhile(bool, hits[position : position + length])
        position += sum(run) + 1
        rounds += 1
    round_ms = length * times.draft_ms + times.round_trip_ms + times.pass_ms
    return Figures(1000 * position / (rounds * round_ms - times.round_trip_ms / 2), rounds / position)


def best_sync(draws: Sequence[Sequence[bool]], times: Times, num_tokens: int) -> tuple[Figures, int]:
    """Stop and wait with the fixed length that serves all these draws best."""
    lengths = range(1, LONGEST_SYNC + 1)
    tried = [(mean_of([sync(hits, times, num_tokens, length) for hits in draws]), length) for length in lengths]
    return max(tried, key=lambda pair: pair[0].tokens_per_s)


def mean_of(figures: Sequence[Figures]) -> Figures:
    """Over several draws of one process."""
    return Figures(mean(f.tokens_per_s for f in figures), mean(f.passes_per_token for f in figures))
