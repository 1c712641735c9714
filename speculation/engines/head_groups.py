"""The query heads of a group as rows of one head: for which sessions of a pass, and what stands where then.

ONNX Runtime's attention node lays out a session's keys and values anew for every query head, though the heads of a group share
them. So a graph may have a second node (``grouping.py``) that knows one head a group: the heads of a group are further rows,
row ``head of the group * tokens + token``. The keys of the first ``tokens`` rows are the session's; those of the others say
nothing, are hidden from all rows by a bias, and lie in the cache behind the real ones, where the next pass overwrites them.
A row comes out as it does from the other node, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

TOKENS_BOUND = 16
"""A session with more new tokens than this has rows enough for its keys to be laid out once a head."""

Share = tuple[int, int, int, bool]
"""One session's part in a pass: its row in the batch, its number of new tokens, how many logits it wants, and whether the
heads of a group are rows of one."""
_NO_TOKENS = np.zeros(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of one session with t new tokens. ``offsets``: tokens that a row's stands behind the session's first new one.

    ``hidden``: keys that a row must not see: the row, the first of them, counted from the end of the session's cache, and how
    many they are. ``pieces`` [rows, 3 * G]: as ``GroupedRows``, of a session whose tokens are the first that are packed.
    ``places`` [t, heads]: where the heads of a token lie among all that come out of its rows.
    """

    offsets: tuple[int, ...]
    hidden: tuple[tuple[int, int, int], ...]
    pieces: NDArray[np.int32]
    places: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class GroupedRows:
    """What the second node gets; shared between passes, so never written to. B slots, S most rows of one, G groups.

    ``shares``: the sessions that have rows, each as its number in the pass, its row in the batch, and its rows. ``pieces``
    [B, S, 3 * G]: of the packed queries, keys and values, cut into heads, those of each row. ``num_rows`` [B]: rows that count.
    """

    most_rows: int
    shares: tuple[tuple[int, int, Rows], ...]
    pieces: NDArray[np.int32]
    num_rows: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class HeadGroups:
    """A model's ``num_groups`` groups (its key-value heads), of ``heads_each`` query heads. Compared by identity, which costs
    nothing where passes are looked up."""

    num_groups: int
    heads_each: int

    @property
    def num_heads(self) -> int:
        return self.num_groups * self.heads_each

    def pays(self, length: int, count: int) -> bool:
        """Whether ``count`` tokens behind ``length`` others are computed sooner so.

        What is saved is to lay out all keys for further heads; what it costs is scores of further rows with further keys, and
        where both are alike was measured (``docs/models.md``).
        """
        return count <= TOKENS_BOUND and length >= self.heads_each * count * count

    def num_rows(self, count: int, multiple: int) -> int:
        """Rows of the second node for so many tokens, made up to a multiple."""
        rows = self.heads_each * count
        return rows + -rows % multiple

    def most_rows(self, length: int, multiple: int) -> int:
        """The most rows of a pass that brings a cache to ``length`` tokens."""
        count = min(TOKENS_BOUND, length)
        while count and not self.pays(length - count, count):
            count -= 1
        return self.num_rows(count, multiple)


@lru_cache(maxsize=16 * TOKENS_BOUND)
def rows_of(groups: HeadGroups, count: int, multiple: int) -> Rows:
    """The rows of a session with so many tokens. Those that make them up to a multiple repeat the last one, behind it."""
    each, heads = groups.heads_each, groups.num_heads
    rows = [min(row, each * count - 1) for row in range(groups.num_rows(count, multiple))]
    offsets = [row % count for row in rows]
    # A row sees the keys up to its own; its token's, and then the session's last one, lie before that.
    hidden = [(row, offset + 1, row - offset) for row, offset in enumerate(offsets) if row > offset]
    first = np.array(offsets)[:, None] * (heads + 2 * groups.num_groups)
    head, group = np.array(rows)[:, None] // count, np.arange(groups.num_groups)
    pieces = np.concatenate([first + group * each + head, first + heads + group, first + heads + groups.num_groups + group], 1)
    row = np.arange(each) * count + np.arange(count)[:, None]
    places = row[:, None] * groups.num_groups + group[:, None]
    return Rows(tuple(offsets), tuple(hidden), pieces.astype(np.int32), places.reshape(count, heads).astype(np.int32))


def grouped_rows(
    groups: HeadGroups, shares: Sequence[Share], batch: int, multiple: int, first_place: int
) -> tuple[GroupedRows, NDArray[np.int64], NDArray[np.int32]]:
    """Rows of the second node for the shares that have them; beside them the packed tokens of those shares [t], and where each
    of their heads lies in what comes out of both nodes [t, heads], for the second node from ``first_place`` on."""
    found: list[tuple[int, int, Rows]] = []
    starts, start = [], 0
    for number, (lane, count, _, is_grouped) in enumerate(shares):
        if is_grouped:
            found.append((number, lane, rows_of(groups, count, multiple)))
            starts.append(start)
        start += count
    num_rows = np.zeros(batch, np.int32)
    if not found:
        nothing = np.zeros((batch, 0, 3 * groups.num_groups), np.int32)
        return GroupedRows(0, (), nothing, num_rows), _NO_TOKENS, np.zeros((0, groups.num_heads), np.int32)
    lanes, first_tokens = np.array([lane for _, lane, _ in found]), np.array(starts)
    lengths, counts = (np.array(sizes) for sizes in zip(*((len(r.offsets), len(r.places)) for _, _, r in found), strict=True))
    num_rows[lanes] = lengths
    most_rows = int(lengths.max())
    pieces = np.zeros((batch * most_rows, 3 * groups.num_groups), np.int32)
    heads_before = np.repeat(first_tokens * (groups.num_heads + 2 * groups.num_groups), lengths)
    pieces[_runs(lanes * most_rows, lengths)] = np.concatenate([rows.pieces for _, _, rows in found]) + heads_before[:, None]
    places_before = np.repeat(first_place + lanes * most_rows * groups.num_groups, counts)
    places = np.concatenate([rows.places for _, _, rows in found]) + places_before[:, None].astype(np.int32)
    made = GroupedRows(most_rows, tuple(found), pieces.reshape(batch, most_rows, -1), num_rows)
    return made, _runs(first_tokens, counts), places


def _runs(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Whole numbers from each start on, as many as its count."""
    return np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
