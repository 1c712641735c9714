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
    """Index arrays of one pass (see ``graph.py`` for their meaning); shared between passes, so never written to."""

    num_tokens: int
    num_logits: int
    pad_idx: NDArray[np.int64]
    unpad_idx: NDArray[np.int64]
    out_idx: NDArray[np.int64]
    query_seqlens: NDArray[np.int32]


def concatenated(chunks: Sequence[Chunk]) -> NDArray[np.int64]:
    """All new tokens, chunk after chunk."""
    if len(chunks) == 1:
        return np.asarray(chunks[0].token_ids, np.int64)
    return np.concatenate([np.asarray(chunk.token_ids, np.int64) for chunk in chunks])


@lru_cache(maxsize=KEPT_PACKINGS)
def pack(shares: tuple[Share, ...], batch: int, rows_multiple: int) -> Packing:
    """Index arrays for ``shares`` in a batch of ``batch`` slots; those without a share are idle.

    Each session's rows in the attention node are filled up to a multiple of ``rows_multiple`` by repeats of its last one. They
    lie behind the real ones, so causal attention keeps them out of every real row, and the linear layers never see them.
    """
    counts = [count for _, count, _ in shares]
    padded = [count + -count % rows_multiple for count in counts]
    most, total = max(padded), sum(counts)
    pad_idx, unpad_idx = np.zeros((batch, most), np.int64), np.empty(total, np.int64)
    query_seqlens, wanted, start = np.zeros(batch, np.int32), [], 0
    for (row, count, num_logits), rows in zip(shares, padded, strict=True):
        end = start + count
        pad_idx[row, :rows] = np.minimum(np.arange(start, start + rows), end - 1)
        unpad_idx[start:end] = np.arange(row * most, row * most + count)
        query_seqlens[row] = rows
        wanted.append(np.arange(end - num_logits, end))
        start = end
    return Packing(total, sum(n for _, _, n in shares), pad_idx, unpad_idx, np.concatenate(wanted), query_seqlens)
