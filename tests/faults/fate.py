"""What a seed draws: sizes, policies, requests, readers, and all that goes wrong with them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloud_verifier.config import VerifierConfig
from device_agent.config import AgentConfig
from device_agent.request import Reveal, StreamRequest
from speculation.protocol.messages import INITIAL_CREDIT
from tests.faults.client import Break
from tests.faults.fleet import Death
from tests.faults.hostile_link import Habits
from tests.faults.models import Models, Pair
from tests.faults.truth import Truth, truth_of

SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"temperature": 1.0},
    {"temperature": 0.8, "top_k": 8},
    {"temperature": 1.2, "top_p": 0.9},
    {"temperature": 0.7, "top_p": 0.95, "top_k": 20},
)
POLICIES = ("adaptive", "ahead", "second-branch", "fixed-length", "confidence-gate")
PATIENCES = (0, "auto", 20, "never")


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer: when it is asked for, what plain decoding writes, and where its reader loses the connection."""

    after_s: float
    request: StreamRequest
    truth: Truth
    breaks: Sequence[Break]


@dataclass(frozen=True, slots=True)
class Fate:
    """All that a scene's seed draws."""

    models: Models
    asked: Sequence[Asked]
    agent: AgentConfig
    verifiers: Sequence[VerifierConfig]
    deaths: Sequence[Death]
    habits: Habits


def fate(seed: int, pair: Pair) -> Fate:
    rng = random.Random(f"{seed} scene")
    num_streams = rng.choice((1, 1, 2, 3, 4))
    models = pair.models(seed, rng, num_streams)
    return Fate(
        models=models,
        asked=[_asked(pair, models, rng) for _ in range(num_streams)],
        agent=_agent(num_streams, rng),
        verifiers=[_verifier(num_streams, rng)] * rng.choice((1, 1, 2)),
        deaths=[_death(rng) for _ in range(rng.choice((0, 0, 0, 1, 2)))],
        habits=Habits(
            mean_delay_s=rng.choice((0.001, 0.05, 0.3, 1.0)),
            cut=rng.choice((0.0, 0.4, 0.8)),
            refuse=rng.choice((0.0, 0.0, 0.2)),
            repeat=rng.choice((0.0, 0.1, 0.4)),
            latest_s=rng.choice((1.0, 3.0, 6.0)),
        ),
    )


def _agent(num_streams: int, rng: random.Random) -> AgentConfig:
    return AgentConfig(
        max_streams=num_streams,
        drafting=rng.choice(POLICIES),
        draft_depth=rng.choice((1, 2, 4, 8, 8, 32, 64)),
        draft_width=rng.randint(1, 4),
        draft_length=rng.randint(1, 6),
        draft_floor=rng.choice((0.0, 0.1, 0.5)),
        draft_price=rng.choice((0.0, 0.05, 0.5)),
        draft_pass_floor=rng.choice((0.0, 0.3)),
        draft_gather=rng.random() < 0.5,
    )


def _verifier(num_streams: int, rng: random.Random) -> VerifierConfig:
    return VerifierConfig(
        credit=rng.choice((INITIAL_CREDIT, INITIAL_CREDIT + 1, 64, 256)),
        max_rows=rng.choice((3, 8, 32, 256)),
        outbox_messages=rng.choice((1, 2, 64)),
        max_sessions=rng.choice((max(1, num_streams - 1), num_streams, 16, 16, 16)),
        patience=rng.choice(PATIENCES),
        gather=rng.randint(1, 4),
        draft_length=rng.choice((0, 0, 0, rng.randint(1, 5))),
    )


def _asked(pair: Pair, models: Models, rng: random.Random) -> Asked:
    request = _request(pair, rng)
    token_ids = models.plain(request)
    stops = _stops(models.facts.decode(list(token_ids)), rng) if rng.random() < 0.2 else ()
    request = dataclasses.replace(request, stop=stops)
    return Asked(rng.choice((0.0, rng.uniform(0, 3))), request, truth_of(token_ids, models.facts, stops), _breaks(rng))


def _request(pair: Pair, rng: random.Random) -> StreamRequest:
    return StreamRequest(
        pair.prompt(rng),
        max_tokens=pair.max_tokens(rng),
        seed=rng.getrandbits(53),
        reveal=rng.choice((Reveal.ALL, Reveal.ALL, Reveal.STABLE)),
        min_stability=rng.choice((0.0, 0.0, 0.0, 0.0, 0.5)),
        deadline_ms=int(1000 * rng.uniform(0.5, 60)) if rng.random() < 0.1 else None,
        **rng.choice(SAMPLINGS),
    )


def _stops(text: str, rng: random.Random) -> tuple[str, ...]:
    """One that the full model's text holds, and perhaps one that begins like it and goes on otherwise."""
    start, length = rng.randrange(len(text)), rng.randint(1, 4)
    held = text[start : start + length]
    return rng.choice(((held,), (text[start : start + 3] + text[0], held)))


def _breaks(rng: random.Random) -> list[Break]:
    """Mostly none; of those who go away now and then, some stay away too long."""
    if rng.random() < 0.8:
        return []
    return [
        Break(int(rng.expovariate(1 / 15)), rng.uniform(0, 4) if rng.random() < 0.9 else 60.0, rng.random() < 0.3)
        for _ in range(rng.randint(1, 3))
    ]


def _death(rng: random.Random) -> Death:
    return Death(1 + int(rng.expovariate(1 / 12)), rng.choice((0.0, 0.0, rng.uniform(2, 8))))
