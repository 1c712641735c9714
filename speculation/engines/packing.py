"""Which rows of a pass stand where: the index arrays that tie packed tokens to the padded batch of the attention node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from speculation.engines.base import Chunk
from speculation.engines.head_groups import GroupedRows, HeadGroups, Share, grouped_rows

KEPT_PACKINGS = 48
"""Enough for few sessions, whose passes look alike. Those of many sessions never do, and each would be kept for nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Index arrays of one pass (see ``graph.py`` for their meaning); shared between passes, so never written to.

    ``num_tokens`` and ``num_logits`` are what was asked for; in the arrays fillers may lie behind that. ``num_rows`` of logits
    come with them. ``rows`` are the numbers of ``query_seqlens``, which cost less to read one by one. In a graph with head
    groups ``unpad_idx`` is int32 [T, heads] (``grouping.py``), and ``grouped`` is what its second node gets.
    """

    num_tokens: int
    num_logits: int
    num_rows: int
    pad_idx: NDArray[np.int64]
    unpad_idx: NDArray[np.int64] | NDArray[np.int32]
    out_idx: NDArray[np.int64]
    query_seqlens: NDArray[np.int32]
    rows: tuple[int, ...]
    grouped: GroupedRows | None = None


def concatenated(chunks: Sequence[Chunk]) -> NDArray[np.int64]:
    """All new tokens, chunk after chunk."""
    token_ids: list[int] = []
    for chunk in chunks:
        token_ids += chunk.token_ids
    return np.array(token_ids, np.int64)


@lru_cache(maxsize=KEPT_PACKINGS)
def pack(
    shares: tuple[Share, ...],
    batch: int,
    rows_multiple: int,
    tokens_multiple: int = 1,
    least_logits: int = 0,
    groups: HeadGroups | None = None,
) -> Packing:
    """Index arrays for ``shares`` in a batch of ``batch`` slots; those without a share are idle.

    Each session's rows in the attention node are filled up to a multiple of ``rows_multiple`` by repeats of its last one. They
    lie behind the real ones, so causal attention keeps them out of every real row, and the linear layers never see them.

    The rows of the linear layers, and those of the head, are filled up to a multiple of ``tokens_multiple``: by tokens that no
    slot of the batch holds, beside the last real row of attention, and by repeats of the last row that is wanted. Where fewer
    than ``least_logits`` rows of the head are wanted, the last row of the pass is there so often.

    ``groups``: of a graph that has them; else no share may have grouped rows.
    """
    padded = [0 if is_grouped else count + -count % rows_multiple for _, count, _, is_grouped in shares]
    most, start = max(padded), 0
    # Lists, and one array of each in the end: an array operation for every session takes several times as long.
    pad_idx, query_seqlens = [0] * (batch * most), [0] * batch
    unpad_idx: list[int] = []
    out_idx: list[int] = []
    for (row, count, num_logits, _), rows in zip(shares, padded, strict=True):
        first, end = row * most, start + count
        if rows:
            pad_idx[first : first + count] = range(start, end)
            pad_idx[first + count : first + rows] = [end - 1] * (rows - count)
        unpad_idx += range(first, first + count)
        out_idx += range(end - num_logits, end)
        query_seqlens[row] = rows
        start = end
    num_logits = len(out_idx)
    out_idx += [start - 1] * (least_logits - num_logits)
    out_idx += out_idx[-1:] * (-len(out_idx) % tokens_multiple)
    places: NDArray[np.int64] | NDArray[np.int32] = np.array(unpad_idx, np.int64)
    grouped = None
    if groups is not None:
        places, grouped = _by_head(groups, shares, batch, rows_multiple, np.array(unpad_idx, np.int32), most)
    return Packing(
        start,
        num_logits,
        len(out_idx),
        np.array(pad_idx, np.int64).reshape(batch, most),
        np.concatenate([places, places[-1:].repeat(-start % tokens_multiple, axis=0)]),
        np.array(out_idx, np.int64),
        np.array(query_seqlens, np.int32),
        tuple(query_seqlens),
        grouped,
    )


def _by_head(
    groups: HeadGroups, shares: Sequence[Share], batch: int, multiple: int, rows: NDArray[np.int32], most: int
) -> tuple[NDArray[np.int32], GroupedRows]:
    """Where each head of a packed token lies, [T, heads], in what comes out of both nodes; and what the second gets."""
    heads = groups.num_heads
    places = np.add.outer(rows * heads, np.arange(heads, dtype=np.int32), dtype=np.int32)
    grouped, tokens, theirs = grouped_rows(groups, shares, batch, multiple, batch * most * heads)
    places[tokens] = theirs
    return places, grouped
