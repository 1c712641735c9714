"""Which rows of the next pass pay, and who gets them. Pure.

A pass gives each session a token of its own and, with the chance that a draft and all before it agree, one more for each draft.
So a pass over N sessions with drafts of survival chances p gives N + sum(p) tokens, and takes what its rows cost. The drafts
are taken likeliest first, and just so many of them that tokens a second are the most: where rows are free (a pass bound by
reading the weights) all of them, where each row is computed for its own price only those that are likely enough, or none.

Rows of prompts give no token: they fill up what is left, and stretch a pass that others wait for no further than
``PREFILL_STRETCH`` times. What remains is shared by ``batching.py``: fairly among tenants, then among sessions; but a tenant's
prompts are read one after the other, the shortest first.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace

from cloud_verifier.batching import allot_among, in_turn
from cloud_verifier.costs import PassCosts, PassShape, evened, growing, least_row_s
from speculation.choice import run_length
from speculation.values import value

PREFILL_STRETCH = 4.0
DECODING_ROWS = 8
"""A session with more uncached tokens than this is reading a prompt, not decoding."""

PRIOR_CHANCE, PRIOR_WEIGHT = 0.7, 4.0
"""What is believed of a session's drafts before any was compared, and for how many comparisons that counts."""

OVERHEAD_WEIGHT = 1 / 16
"""Weight of the newest gap in the mean of what lies between two passes."""

MEMORY = 0.97
"""What each comparison leaves of the weight of those before it."""


@value
class Claim:
    """What a session could use of the next pass.

    ``num_uncached`` final tokens have to be fed, 1 or more, then up to ``num_drafts``, each of which agrees with ``chance``
    where all before it did. ``served`` and ``tenant_served`` are the numbers of the passes that ran the session, and its
    tenant, last. ``is_sampled``: its choices are drawn, which costs more than to take the likeliest token. Of drafts that are
    equally likely those with the nearer ``deadline_s``, then with the higher ``priority`` come first.
    """

    num_uncached: int
    num_drafts: int
    num_cached: int
    chance: float
    tenant: Hashable
    served: int
    tenant_served: int
    deadline_s: float
    priority: int
    is_sampled: bool = False

    @property
    def is_decoding(self) -> bool:
        return self.num_uncached <= DECODING_ROWS


class Survival:
    """How likely a session's next draft agrees, by those that were compared lately."""

    def __init__(self) -> None:
        self._agreed, self._compared = PRIOR_CHANCE * PRIOR_WEIGHT, PRIOR_WEIGHT
        self.chance = self._agreed / self._compared

    def learn(self, drafted: Sequence[int], choices: Sequence[int]) -> None:
        """Compare drafts, whether they were run or not, with the choices that were made."""
        compared = drafted[: len(choices)]
        num_agreed = run_length(compared, choices)
        of_these, in_all = self._agreed, self._compared
        for _ in range(num_agreed):
            of_these, in_all = MEMORY * of_these + 1, MEMORY * in_all + 1
        if num_agreed < len(compared):
            of_these, in_all = MEMORY * of_these, MEMORY * in_all + 1
        self._agreed, self._compared, self.chance = of_these, in_all, of_these / in_all


class Overhead:
    """What lies between two passes that follow each other at once: verdicts told, drafts read, the next pass planned."""

    def __init__(self) -> None:
        self.mean_s = 0.0
        self._ended_s: float | None = None

    def begins(self, now_s: float) -> None:
        """A pass begins."""
        if self._ended_s is not None:
            self.mean_s += OVERHEAD_WEIGHT * (now_s - self._ended_s - self.mean_s)

    def ended(self, now_s: float) -> float | None:
        """A pass ended: so long after the one that it followed at once, None where there was a rest between."""
        since_s = None if self._ended_s is None else now_s - self._ended_s
        self._ended_s = now_s
        return since_s

    def rests(self) -> None:
        """There is nothing to run: what passes until the next pass is not what it costs."""
        self._ended_s = None


def share_rows(claims: Sequence[Claim], costs: PassCosts | None, overhead_s: float, max_rows: int) -> list[int]:
    """Rows of each session in the next pass, ``max_rows`` in all at most; 0 for one that has to wait.

    ``overhead_s`` is what a pass takes beside its cost. Without ``costs`` every draft is run.
    """
    drafts = [claim.num_drafts for claim in claims]
    if costs is not None:
        drafts = paying_drafts(claims, costs, overhead_s, max_rows)
        max_rows = min(max_rows, _most_rows(claims, drafts, costs))
    return _allotted(claims, drafts, max_rows)


def paying_drafts(claims: Sequence[Claim], costs: PassCosts, overhead_s: float, max_rows: int) -> list[int]:
    """How many of its drafts each session runs, for the most tokens a second; none where the pass does not end its prompt."""
    chosen = [0] * len(claims)
    if not any(claim.num_drafts for claim in claims):
        return chosen  # without a look at who chooses: most passes of sessions that draft nothing
    choosing = _choosing(claims, costs, max_rows)
    if not any(claims[index].num_drafts for index in choosing):
        return chosen
    shape = _shape([claims[index] for index in choosing])
    tokens = float(shape.num_sessions)
    best, num_best = tokens / (overhead_s + costs.seconds(shape)), 0
    seconds_with = growing(costs, shape)
    # What gives less for the price of a row than all before it lowers the rate, and so does all behind it.
    order = _likeliest_first(claims, choosing, best * least_row_s(costs))
    for number, (negative, _, _, index) in enumerate(order, 1):
        claim = claims[index]
        seconds = seconds_with(claim.num_uncached + chosen[index], claim.num_cached, -negative * claim.is_sampled)
        chosen[index] += 1
        tokens -= negative
        if (rate := tokens / (overhead_s + seconds)) >= best:
            best, num_best = rate, number
    for *_, index in order[num_best:]:
        chosen[index] -= 1
    return chosen


def _choosing(claims: Sequence[Claim], costs: PassCosts, max_rows: int) -> Sequence[int]:
    """The sessions that the pass chooses a token for: those who decode, and those whose prompt it ends."""
    if all(claim.is_decoding for claim in claims):
        return range(len(claims))
    none = [0] * len(claims)
    rows = _allotted(claims, none, min(max_rows, _most_rows(claims, none, costs)))
    return [i for i, claim in enumerate(claims) if claim.is_decoding or rows[i] == claim.num_uncached]


def _allotted(claims: Sequence[Claim], drafts: Sequence[int], max_rows: int) -> list[int]:
    wanted = [claim.num_uncached + drafts[index] for index, claim in enumerate(claims)]
    if sum(wanted) <= max_rows:
        return wanted
    tenants = [claim.tenant for claim in claims]
    tenants_served, served = [claim.tenant_served for claim in claims], [claim.served for claim in claims]
    rows = allot_among(tenants, tenants_served, wanted, served, max_rows)
    for reading in _readers(claims):
        rows = in_turn(rows, reading, wanted, served)
    return rows


def _readers(claims: Sequence[Claim]) -> Iterable[list[int]]:
    """The sessions of each tenant that read prompts: those of higher priority first, then those with the least to read."""
    by_tenant: dict[Hashable, list[int]] = {}
    for index, claim in enumerate(claims):
        if not claim.is_decoding:
            by_tenant.setdefault(claim.tenant, []).append(index)
    for reading in by_tenant.values():
        reading.sort(key=lambda i: (-claims[i].priority, claims[i].num_uncached, claims[i].deadline_s, claims[i].served))
    return by_tenant.values()


def _likeliest_first(claims: Sequence[Claim], choosing: Sequence[int], least: float) -> list[tuple[float, float, int, int]]:
    """Drafts that survive with a chance of ``least`` or more, each as (minus that chance, deadline, minus priority, index of
    its session)."""
    drafts = []
    for index in choosing:
        claim, survival = claims[index], 1.0
        for _ in range(claim.num_drafts):
            survival *= claim.chance
            if survival < least:
                break
            drafts.append((-survival, claim.deadline_s, -claim.priority, index))
    drafts.sort()
    return drafts


def _shape(claims: Sequence[Claim], drafts: Sequence[int] | None = None) -> PassShape:
    """What these sessions need, and the drafts that they run."""
    rows = evens = cached = attended = 0
    sampled = 0.0
    for claim, count in zip(claims, drafts or [0] * len(claims), strict=True):
        num_rows = claim.num_uncached + count
        num_evened = evened(num_rows)
        rows, evens, cached = rows + num_rows, evens + num_evened, cached + claim.num_cached
        attended += num_evened * claim.num_cached
        if claim.is_sampled:
            sampled += sum(claim.chance**place for place in range(1 + count))
    return PassShape(len(claims), rows, evens, cached, attended, sampled)


def _most_rows(claims: Sequence[Claim], drafts: Sequence[int], costs: PassCosts) -> int:
    """Rows up to which prompts may fill a pass: as many as they are where nobody decodes beside them."""
    pairs = [(claim, count) for claim, count in zip(claims, drafts, strict=True) if claim.is_decoding]
    if len(pairs) in (0, len(claims)):
        return sum([claim.num_uncached for claim in claims]) + sum(drafts)
    everything = _shape(claims, drafts)
    decoding = _shape([claim for claim, _ in pairs], [count for _, count in pairs])
    waited_s, whole_s = costs.seconds(decoding), costs.seconds(everything)
    most_s = PREFILL_STRETCH * waited_s
    if whole_s <= most_s:
        return everything.num_rows
    least = _shape([claim if claim.is_decoding else replace(claim, num_uncached=1) for claim in claims], drafts)
    least_s, num_prompts = costs.seconds(least), least.num_sessions - decoding.num_sessions
    if most_s < least_s:
        # Not a row for each prompt: for as many as there is time for, and one at least, so that they come to an end.
        return decoding.num_rows + max(1, int(num_prompts * (most_s - waited_s) / (least_s - waited_s)))
    # On a line from one row of each prompt to all rows.
    num_more = everything.num_rows - least.num_rows
    return least.num_rows + int(num_more * (most_s - least_s) / (whole_s - least_s))
