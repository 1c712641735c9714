"""One pass of the full model over many sessions, as one job for the engine's thread. Synchronous; knows no session."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from speculation.choice import Choices, Run, choose_runs, run_length
from speculation.engines.base import CacheId, Chunk, Engine
from speculation.errors import EngineError, OutriderError
from speculation.log_softmax import token_logprobs
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.values import value

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Entry:
    """One session's part of a pass: what to feed, and afterwards what came of it.

    ``cache`` None is opened by the pass. The cache is cut to ``cached`` tokens first, then ``token_ids`` are fed; the last
    ``num_logits`` rows choose the tokens from ``position`` on. ``drafted`` are the last ``num_logits - 1`` tokens fed.
    ``logprobs``: how many of the likeliest tokens to tell beside each that counts; None where nothing is told.

    Filled in by the pass: ``choices`` (one for each of those rows; behind the first that its draft does not equal they mean
    nothing), ``num_agreed`` (the drafted tokens before that), ``near_ties`` among the rows that count and their
    ``likelihoods``, or ``error``.
    """

    cache: CacheId | None
    cached: int
    token_ids: Sequence[int]
    num_logits: int
    position: int
    drafted: Sequence[int]
    parameters: SamplingParameters
    logprobs: int | None = None
    choices: Sequence[int] = ()
    num_agreed: int = 0
    near_ties: int = 0
    likelihoods: Sequence[TokenLogprobs] = ()
    error: OutriderError | None = None

    @property
    def num_made(self) -> int:
        """Tokens that became final by it."""
        return self.num_agreed + 1 if self.choices else 0


@value
class Pass:
    """Caches to give back, then entries to run in one forward and one choice."""

    closing: Sequence[CacheId] = ()
    entries: Sequence[Entry] = field(default_factory=list)

    def run(self, engine: Engine) -> None:
        """Never raises: a failure stands in the entries it touched."""
        for cache in self.closing:
            _close(engine, cache)
        ready = [entry for entry in self.entries if _prepare(engine, entry)]
        if not ready:
            return
        try:
            _run(engine, ready)
        except Exception as error:
            # Whatever a runtime throws: the sessions of this pass end by name, the others and the server go on.
            _log.exception("a pass over %d sessions failed", len(ready))
            for entry in ready:
                entry.error = _as_engine_error(error)


def _prepare(engine: Engine, entry: Entry) -> bool:
    """Give the entry a cache that holds just its first ``cached`` tokens."""
    try:
        if entry.cache is None:
            entry.cache = engine.open()
        elif engine.length(entry.cache) > entry.cached:
            engine.truncate(entry.cache, entry.cached)
    except Exception as error:
        entry.error = error if isinstance(error, OutriderError) else _as_engine_error(error)
        return False
    return True


def _run(engine: Engine, entries: Sequence[Entry]) -> None:
    chunks, choosing, runs = [], [], []
    for entry in entries:
        assert entry.cache is not None
        chunks.append(Chunk(entry.cache, entry.token_ids, entry.num_logits))
        if entry.num_logits:
            choosing.append(entry)
            runs.append(Run(entry.position, entry.parameters, entry.drafted))
    logits = engine.extend(chunks)
    if choosing:
        _hand_out(choosing, choose_runs(logits, runs), logits)


def _hand_out(entries: Sequence[Entry], choices: Choices, logits: NDArray[np.float32]) -> None:
    token_ids, near_ties = choices.token_ids, choices.near_ties
    row = 0
    for entry in entries:
        entry.choices = token_ids[row : row + entry.num_logits]
        entry.num_agreed = run_length(entry.drafted, entry.choices)
        entry.near_ties = sum(near_ties[row : row + entry.num_agreed + 1])
        if entry.logprobs is not None:
            chosen = zip(logits[row:], entry.choices[: entry.num_agreed + 1], strict=False)
            entry.likelihoods = [token_logprobs(line, token_id, entry.logprobs) for line, token_id in chosen]
        row += entry.num_logits


def _close(engine: Engine, cache: CacheId) -> None:
    try:
        engine.close(cache)
    except Exception:
        _log.exception("a cache could not be closed")


def _as_engine_error(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    return EngineError(f"the full model's pass failed: {type(error).__name__}: {error}")
