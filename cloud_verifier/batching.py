"""Who gets how many rows of the next pass. Pure.

The law: rows are shared max-min fairly. Nobody gets more than they want, and nobody gets more than another who still wants
some, but for the one row that a division leaves over. So a long prefill fills what the others leave and never displaces
their drafts. Who was served longest ago comes first where a row is left over, or where there are more sessions than rows:
then nobody waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence


def allot(wanted: Sequence[int], served: Sequence[int], max_rows: int) -> list[int]:
    """Rows for each session: at most what it wants, ``max_rows`` in all.

    ``wanted`` holds the rows that each session could use, 1 or more; ``served`` the number of the pass that ran it last.
    """
    if sum(wanted) <= max_rows:
        return list(wanted)
    rows = [0] * len(wanted)
    left = max_rows
    by_wish = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for place, i in enumerate(by_wish):
        share = left // (len(by_wish) - place)
        if wanted[i] > share:
            _share_evenly(rows, by_wish[place:], served, left)
            break
        rows[i] = wanted[i]
        left -= wanted[i]
    return rows


def _share_evenly(rows: list[int], indices: Sequence[int], served: Sequence[int], left: int) -> None:
    """Every one of ``indices`` wants more than an even share of what is left."""
    share, over = divmod(left, len(indices))
    for place, i in enumerate(sorted(indices, key=lambda i: (served[i], i))):
        rows[i] = share + (place < over)
