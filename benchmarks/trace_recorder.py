"""Records traces of the real pair: the full model's own paths, and what the draft says on them and beside them.

Every choice is made by the product's own rule, with the noise of the real positions. What comes out depends on the pair and the
plan, and, where logits nearly tie, on the processor: so the file is committed, and not recorded anew where it is used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress

from benchmarks.trace_file import FIRST, NO_TOKEN, PLACES, SECOND, Branch, Proposals, Recording, Trace
from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import build_engine
from device_agent.build import draft_engine
from device_agent.config import AgentConfig
from speculation.choice import Ranked, choose, choose_ranked
from speculation.engines.base import CacheId, Chunk, Engine, Forkable
from speculation.engines.package import Pair, load_pair
from speculation.parameters import SamplingParameters

NUM_LANES = 32
"""Branches that are followed in one step of the draft."""

FULL_VARIANT, DRAFT_VARIANT = "fp32", "q4"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded. The first prompt has the seed ``first_seed``, the next the next.

    A first choice that misses is followed for ``first_length`` tokens: as far as the agent drafts ahead by default. A choice
    behind it that is not the full model's is followed for ``second_length``, beside a hit as beside a miss, where the draft is
    at least ``least_second`` confident of it: below that nobody extends it.
    """

    num_prompts: int = 16
    num_tokens: int = 192
    temperatures: tuple[float, ...] = (0.0, 0.8)
    first_seed: int = 1
    first_length: int = 31
    second_length: int = 12
    least_second: float = 0.05


class ForkableEngine(Engine, Forkable, Protocol):
    """What the draft has to be able to do."""


@dataclass(frozen=True, slots=True)
class _Start:
    """A proposal to follow: that of ``rank`` at the path's generated token ``offset``."""

    offset: int
    rank: int
    token_id: int


@dataclass(slots=True)
class _Lane:
    """A branch that is being followed: the token that goes into its cache next, and where that stands."""

    token_id: int
    position: int
    cache: CacheId
    said: list[Ranked]


class Recorder:
    """Records one prompt after the other on two engines; ``draft`` needs ``NUM_LANES`` slots and one more."""

    def __init__(self, full: Engine, draft: ForkableEngine, end_token_ids: tuple[int, ...], plan: Plan) -> None:
        self._full = full
        self._draft = draft
        self._end_token_ids = end_token_ids
        self._plan = plan

    def record(self, name: str, prompt: Sequence[int], parameters: SamplingParameters) -> Trace:
        """One trace."""
        path = self._path(prompt, parameters)
        cache = self._draft.open()
        fed = [*prompt, *path[:-1]]
        logits = self._draft.extend([Chunk(cache, fed, len(path))])
        positions = range(len(prompt), len(prompt) + len(path))
        ranked = choose_ranked(logits, positions, [parameters] * len(path), len(PLACES))
        branches = [branch for lot in self._lots(ranked, path) for branch in self._follow(cache, len(prompt), lot, parameters)]
        self._draft.close(cache)
        return Trace(
            prompt=name,
            prompt_length=len(prompt),
            temperature=parameters.temperature,
            seed=parameters.seed,
            token_ids=np.array(path, np.int64),
            said=_proposals([ranked]),
            probabilities=_probabilities(logits, ranked, parameters.temperature),
            branches=branches,
        )

    def _path(self, prompt: Sequence[int], parameters: SamplingParameters) -> list[int]:
        """What the full model alone writes."""
        cache = self._full.open()
        path: list[int] = []
        new = list(prompt)
        while len(path) < self._plan.num_tokens:
            logits = self._full.extend([Chunk(cache, new, 1)])
            new = [int(choose(logits, [len(prompt) + len(path)], [parameters]).token_ids[0])]
            path += new
            if new[0] in self._end_token_ids:
                break
        self._full.close(cache)
        return path

    def _lots(self, ranked: Ranked, path: Sequence[int]) -> Iterator[list[_Start]]:
        """The proposals to follow, as many at a time as there are lanes."""
        for rank in range(ranked.token_ids.shape[1]):
            least = 0.0 if rank == FIRST else self._plan.least_second
            said = zip(path, ranked.token_ids[:, rank].tolist(), ranked.confidences[:, rank].tolist(), strict=True)
            starts = [
                _Start(offset, rank, token_id)
                for offset, (true, token_id, confidence) in enumerate(said)
                if token_id not in (true, *self._end_token_ids) and confidence >= least
            ]
            yield from (starts[first : first + NUM_LANES] for first in range(0, len(starts), NUM_LANES))

    def _follow(self, path: CacheId, start: int, lot: Sequence[_Start], parameters: SamplingParameters) -> list[Branch]:
        """What the draft says behind each of these, one step of the engine for all of them."""
        lanes = [_Lane(each.token_id, start + each.offset, self._draft.fork(path, start + each.offset), []) for each in lot]
        for _ in range(self._plan.first_length if lot[0].rank == FIRST else self._plan.second_length):
            self._step([lane for lane in lanes if lane.token_id not in self._end_token_ids], parameters)
        for lane in lanes:
            self._draft.close(lane.cache)
        return [Branch(each.offset, each.rank, _beside(lane.said)) for each, lane in zip(lot, lanes, strict=True)]

    def _step(self, lanes: Sequence[_Lane], parameters: SamplingParameters) -> None:
        logits = self._draft.extend([Chunk(lane.cache, [lane.token_id], 1) for lane in lanes])
        ranked = choose_ranked(logits, [lane.position + 1 for lane in lanes], [parameters] * len(lanes), len(PLACES))
        for row, lane in enumerate(lanes):
            lane.said.append(Ranked(ranked.token_ids[row : row + 1], ranked.confidences[row : row + 1]))
            lane.token_id = int(ranked.token_ids[row, FIRST])
            lane.position += 1


def _proposals(said: Sequence[Ranked]) -> Proposals:
    return Proposals(np.concatenate([r.token_ids for r in said]), np.concatenate([r.confidences for r in said]))


def _beside(said: Sequence[Ranked]) -> Proposals:
    """Third choices, and those behind them, keep no name beside the path."""
    proposals = _proposals(said)
    proposals.token_ids[:, SECOND + 1 :] = NO_TOKEN
    return proposals


def _probabilities(logits: NDArray[np.float32], ranked: Ranked, temperature: float) -> NDArray[np.float64]:
    scores = logits.astype(np.float64) / (temperature or 1.0)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    told = ranked.token_ids[:, : SECOND + 1]
    return np.asarray(np.take_along_axis(weights, told, axis=1) / weights.sum(axis=1, keepdims=True))


def engines(pair: Pair, folder: Path | None = None) -> tuple[Engine, ForkableEngine]:
    """The full model, proved, and the draft, as the services run them; ``folder`` is where the pair lies."""
    full = build_engine(VerifierConfig(pair=folder, variant=FULL_VARIANT)).engine
    draft = draft_engine(pair.draft, AgentConfig(variant=DRAFT_VARIANT, max_streams=NUM_LANES + 1))
    if not isinstance(draft, Forkable):
        raise TypeError(f"{draft.description.name} cannot copy a cache, which branches need")
    return full, draft


def record(plan: Plan, folder: Path | None = None) -> Recording:
    """Traces of all prompts and temperatures of the plan, with a bar that tells how far it is. Takes minutes."""
    pair = load_pair(folder)
    full, draft = engines(pair, folder)
    recorder = Recorder(full, draft, pair.full.end_token_ids, plan)
    wanted = [
        (t, seed, p) for t in plan.temperatures for seed, p in enumerate(pair.prompts[: plan.num_prompts], plan.first_seed)
    ]
    traces = []
    with Progress(transient=True) as progress:
        for temperature, seed, prompt in progress.track(wanted, description="traces"):
            token_ids = pair.full.tokenizer.encode(prompt["text"]).ids
            parameters = SamplingParameters(temperature=temperature, seed=seed)
            traces.append(recorder.record(prompt["source"], token_ids, parameters))
    return Recording(
        pair=f"{pair.name} {pair.version}",
        pair_digest=pair.identity.pair_digest,
        vocabulary_size=full.description.vocabulary_size,
        end_token_ids=pair.full.end_token_ids,
        parameters={**asdict(plan), "full": FULL_VARIANT, "draft": DRAFT_VARIANT},
        traces=traces,
    )
