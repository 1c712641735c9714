"""Who gets how many rows of the next pass. Pure.

The law: rows are shared max-min fairly. Nobody gets more than they want, and nobody gets more than another who still wants
some, but for the one row that a division leaves over. So a long prefill fills what the others leave and never displaces
their drafts. Who was served longest ago comes first where a row is left over, or where there are more sessions than rows:
then nobody waits for ever. Where sessions are of several tenants, the law holds among the tenants first, then among the
sessions of each: neither many sessions nor long drafts get a tenant more than its share while others want theirs.

Prompts of one tenant that are read at the same time are the exception (``in_turn``): a part of a prompt is worth nothing before
the rest of it, so what they get together goes to few of them at a time.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

SHARES_AT_ONCE = 4
"""The most that a prompt gets of a pass, in even shares of those who read: an engine with a padded batch computes with the
longest share, for each session. Beside 110 sessions of two rows one of 32 made a pass of the bundled model 5 % longer."""


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


def allot_among(
    tenants: Sequence[Hashable],
    served_tenants: Sequence[int],
    wanted: Sequence[int],
    served: Sequence[int],
    max_rows: int,
) -> list[int]:
    """``allot`` among tenants, then among the sessions of each.

    ``tenants`` names the tenant of each session, ``served_tenants`` the number of the pass that ran this tenant last.
    """
    last = dict(zip(tenants, served_tenants, strict=True))
    sessions: dict[Hashable, list[int]] = {}
    for i, tenant in enumerate(tenants):
        sessions.setdefault(tenant, []).append(i)
    sums = [sum(wanted[i] for i in own) for own in sessions.values()]
    shares = allot(sums, [last[tenant] for tenant in sessions], max_rows)
    rows = [0] * len(wanted)
    for own, share in zip(sessions.values(), shares, strict=True):
        for i, count in zip(own, allot([wanted[i] for i in own], [served[i] for i in own], share), strict=True):
            rows[i] = count
    return rows


def in_turn(rows: Sequence[int], order: Sequence[int], wanted: Sequence[int], served: Sequence[int]) -> list[int]:
    """What some sessions have of a pass together, given to few of them, in an order.

    ``rows`` are theirs by ``allot``, ``order`` the places of those who are to be given them, first to last: ``SHARES_AT_ONCE``
    of the largest of these rows to each at most. Who of them was served longest ago keeps what it has, so that everybody's
    turn comes, however many come before it. The others' rows, and the sum of all, stay as they are.
    """
    given = list(rows)
    if len(order) < 2:
        return given
    left = sum(rows[i] for i in order)
    longest_ago = min(order, key=lambda i: (served[i], i))
    for i in order:
        given[i] = 0
    given[longest_ago] = rows[longest_ago]
    left -= rows[longest_ago]
    most = SHARES_AT_ONCE * max(rows[i] for i in order)
    for i in order:
        more = min(wanted[i] - given[i], most - given[i], left)
        given[i] += more
        left -= more
    return given


def _share_evenly(rows: list[int], indices: Sequence[int], served: Sequence[int], left: int) -> None:
    """Every one of ``indices`` wants more than an even share of what is left."""
    share, over = divmod(left, len(indices))
    for place, i in enumerate(sorted(indices, key=lambda i: (served[i], i))):
        rows[i] = share + (place < over)
