"""Which rows of a pass stand where: the index arrays that tie packed tokens to the padded batch of the attention node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import Chunk

KEPT_PACKINGS = 64
"""Enough for few sessions, whose passes look alike. Those of many sessions never do, and each would be kept for nothing."""

Share = tuple[int, int, int]
"""One session's part in a pass: its row in the batch, its number of new tokens, how many logits it wants."""


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Index arrays of one pass (see ``graph.py`` for their meaning); shared between passes, so never written to.

    ``num_tokens`` and ``num_logits`` are what was asked for; in the arrays fillers may lie behind that. ``num_rows`` of logits
    come with them. ``rows`` are the numbers of ``query_seqlens``, which cost less to read one by one.
    """

    num_tokens: int
    num_logits: int
    num_rows: int
    pad_idx: NDArray[np.int64]
    unpad_idx: NDArray[np.int64]
    out_idx: NDArray[np.int64]
    query_seqlens: NDArray[np.int32]
    rows: tuple[int, ...]


def concatenated(chunks: Sequence[Chunk]) -> NDArray[np.int64]:
    """All new tokens, chunk after chunk."""
    token_ids: list[int] = []
    for chunk in chunks:
        token_ids += chunk.token_ids
    return np.array(token_ids, np.int64)


@lru_cache(maxsize=KEPT_PACKINGS)
def pack(shares: tuple[Share, ...], batch: int, rows_multiple: int, tokens_multiple: int = 1, least_logits: int = 0) -> Packing:
    """Index arrays for ``shares`` in a batch of ``batch`` slots; those without a share are idle.

    Each session's rows in the attention node are filled up to a multiple of ``rows_multiple`` by repeats of its last one. They
    lie behind the real ones, so causal attention keeps them out of every real row, and the linear layers never see them.

    The rows of the linear layers, and those of the head, are filled up to a multiple of ``tokens_multiple``: by tokens that no
    slot of the batch holds, beside the last real row of attention, and by repeats of the last row that is wanted. Where fewer
    than ``least_logits`` rows of the head are wanted, the last row of the pass is there so often.
    """
    padded = [count + -count % rows_multiple for _, count, _ in shares]
    most, start = max(padded), 0
    # Lists, and one array of each in the end: an array operation for every session takes several times as long.
    pad_idx, query_seqlens = [0] * (batch * most), [0] * batch
    unpad_idx: list[int] = []
    out_idx: list[int] = []
    for (row, count, num_logits), rows in zip(shares, padded, strict=True):
        first, end = row * most, start + count
        pad_idx[first : first + count] = range(start, end)
        pad_idx[first + count : first + rows] = [end - 1] * (rows - count)
        unpad_idx += range(first, first + count)
        out_idx += range(end - num_logits, end)
        query_seqlens[row] = rows
        start = end
    num_logits = len(out_idx)
    out_idx += [start - 1] * (least_logits - num_logits)
    unpad_idx += unpad_idx[-1:] * (-start % tokens_multiple)
    out_idx += out_idx[-1:] * (-len(out_idx) % tokens_multiple)
    return Packing(
        start,
        num_logits,
        len(out_idx),
        np.array(pad_idx, np.int64).reshape(batch, most),
        np.array(unpad_idx, np.int64),
        np.array(out_idx, np.int64),
        np.array(query_seqlens, np.int32),
        tuple(query_seqlens),
    )
