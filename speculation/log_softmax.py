"""The log probability of a token and of the likeliest ones beside it, from a row of logits. Pure.

Law: a function of the row alone. The row's weights are summed by themselves, in float64, so what else is in its pass changes no
bit. The order is that of the choice rule at temperature 0: score descending, then id ascending.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from speculation.logprobs import LEAST_LOGPROB, TokenLogprobs
from speculation.truncation import top_by_value


def token_logprobs(logits: NDArray[np.float32], token_id: int, count: int) -> TokenLogprobs:
    """Of ``token_id`` and of the ``count`` likeliest tokens (of all, where there are fewer): ``logits`` is float32 [V], finite.

    Raises ``ValueError`` for a negative count.
    """
    if count < 0:
        raise ValueError(f"as many of the likeliest tokens as {count} cannot be told")
    highest = float(logits.max())
    total = math.log(float(np.exp(logits - np.float64(highest)).sum()))
    # With top_by_value's ids in ascending order a stable sort leaves the lower id first among equals.
    ids = top_by_value(logits, min(count, len(logits))) if count else np.zeros(0, np.int64)
    ids = ids[np.argsort(-logits[ids], kind="stable")]
    behind = logits[np.append(ids, token_id)] - np.float64(highest) - total
    *top, own = np.maximum(behind, LEAST_LOGPROB).astype(np.float32).tolist()
    return TokenLogprobs(own, tuple(zip(ids.tolist(), top, strict=True)))
