"""Log probabilities by another way: a model fed one token at a time, alone, and its logits put through a sum of Python's."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from speculation.engines.base import Chunk, Engine
from speculation.logprobs import TokenLogprobs


def likelihood(row: Sequence[float], token_id: int, count: int) -> TokenLogprobs:
    """The log-softmax of one row, exactly summed and then rounded to single precision."""
    logits = [float(logit) for logit in row]
    highest = max(logits)
    total = math.log(math.fsum(math.exp(logit - highest) for logit in logits))

    def told(other: int) -> float:
        return float(np.float32(logits[other] - highest - total))

    order = sorted(range(len(logits)), key=lambda other: (-logits[other], other))
    return TokenLogprobs(told(token_id), tuple((other, told(other)) for other in order[:count]))


def likelihoods(engine: Engine, token_ids: Sequence[int], start: int, count: int) -> list[TokenLogprobs]:
    """Of the tokens of a text from position ``start`` on."""
    cache, told = engine.open(), []
    for position, token_id in enumerate(token_ids[:-1]):
        (row,) = engine.extend([Chunk(cache, [token_id], 1)])
        if position + 1 >= start:
            told.append(likelihood(row, token_ids[position + 1], count))
    engine.close(cache)
    return told
