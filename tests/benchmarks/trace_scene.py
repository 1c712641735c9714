"""Recordings made up for tests, and what an engine says behind a text."""

from pathlib import Path

import numpy as np

from benchmarks.trace_file import (
    Proposals,
    Recording,
    Trace,
)
from benchmarks.trace_recorder import Plan
from benchmarks.trace_replay import Replay
from speculation.choice import choose_ranked
from speculation.engines.base import Chunk
from speculation.parameters import SamplingParameters

GREEDY = SamplingParameters()
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
TINY_PLAN = Plan(num_prompts=1, num_tokens=10, first_length=4, second_length=3, least_second=0.0)


def made_trace(token_ids, vocabulary_size, branches=()):
    """A trace whose draft is right at every second place."""
    count = len(token_ids)
    firsts = [token if offset % 2 else (token + 1) % vocabulary_size for offset, token in enumerate(token_ids)]
    said = Proposals(
        np.array([[first, (first + 2) % vocabulary_size] for first in firsts]),
        np.linspace([0.2, 0.1], [0.9, 0.05], count),
    )
    return Trace("made", 3, 0.8, 1, np.array(token_ids), said, said.confidences, list(branches))


def made(traces, vocabulary_size):
    return Replay(Recording("made 1", "0" * 64, vocabulary_size, (), {}, traces))


def row_behind(engine, tokens):
    cache = engine.open()
    row = engine.extend([Chunk(cache, tokens, 1)])
    engine.close(cache)
    return row


def said_behind(engine, tokens, count=2):
    ranked = choose_ranked(row_behind(engine, tokens), [len(tokens)], [GREEDY], count)
    return ranked.token_ids[0].tolist(), ranked.confidences[0].tolist()
