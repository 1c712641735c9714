"""What the next pass runs, and what becomes of it: the work between two passes, on whichever thread does it.

It knows no event loop: times are arguments, in seconds of the loop's clock, and nobody is told anything here. Each method
wants the lock of the seats (``seats.py``), as does everything else that touches a session's log, its drafts or its seat.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from cloud_verifier.companion import Wish
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import PassCosts
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.holding import Holding
from cloud_verifier.live import LiveSession
from cloud_verifier.passes import Entry, Pass
from cloud_verifier.patience import Policy, ready_s
from cloud_verifier.scheduling import Overhead, share_rows
from cloud_verifier.seats import Seats
from speculation.protocol.verifier import Plan
from speculation.values import value


@value
class Share:
    """A session, its entry in a pass, the plan behind the entry, and all drafts that were there."""

    live: LiveSession
    entry: Entry
    plan: Plan
    offered: Sequence[int]


@value
class UnderWay:
    """The shares of a pass, and when it began; ``num_waiting`` more sessions were ready and got no row."""

    shares: Sequence[Share]
    num_waiting: int
    began_s: float


@value
class Over:
    """A pass that is over, and whom it ran: what the observer is told."""

    lives: Sequence[LiveSession]
    began_s: float
    ended_s: float


class Rounds:
    """One round after the other: ``plan``, then the pass, then ``settle``, and ``take_news`` for whoever tells of it.

    With ``costs`` only drafts that pay are run (``scheduling.py``), else all. While ``is_draining`` nobody is waited for.
    """

    def __init__(self, config: VerifierConfig, seats: Seats, policy: Policy, costs: PassCosts | None, holding: Holding) -> None:
        self.statistics = VerifierStatistics()
        self.costs = costs
        self.is_draining = False
        self._max_rows, self._interval_s = config.max_rows, config.pass_interval_ms / 1000
        self._seats, self._policy, self._holding = seats, policy, holding
        self._overhead = Overhead()
        self._next_s = 0.0
        self._under_way: UnderWay | None = None
        self._news: list[Over] = []

    def patience_s(self, now_s: float) -> float:
        """How long a session is waited for now."""
        if self.is_draining:
            return 0.0
        return self._policy.patience_s(len(self._seats.running), now_s, self._seats.num_waiting)

    def rests(self) -> None:
        """There is nothing to run for a while."""
        self._overhead.rests()

    def plan(self, now_s: float) -> Pass | float:
        """The next pass. Where there is nothing to run: when there will be, at the latest (infinite: only if woken)."""
        if now_s < self._next_s and not self.is_draining:
            return self._next_s
        ready, wake_s = self._ready(now_s)
        closing = self._seats.take_closing()
        if not ready and not closing:
            return wake_s
        if ready:
            self.statistics.passes += 1
            self._next_s = now_s + self._interval_s
        shares = self._share_out(ready)
        for share in shares:
            if share.live.entered_s is None:
                share.live.entered_s = now_s
        self._under_way = UnderWay(shares, len(ready) - len(shares), now_s)
        return Pass(closing, [share.entry for share in shares])

    def begins(self, now_s: float) -> None:
        """The pass of the newest plan begins."""
        self._overhead.begins(now_s)

    def settle(self, now_s: float) -> None:
        """Take over what the pass chose that ended now. Once is enough."""
        over, self._under_way = self._under_way, None
        if over is None:
            return
        since_s = self._overhead.ended(now_s)
        if not over.shares:
            return
        self._policy.passed(now_s - over.began_s)
        waiting = [0] * over.num_waiting  # whose prompts come later: they make none, either
        made, lives = [], []
        for share in over.shares:
            made.append(share.entry.num_made)
            lives.append(share.live)
        self._holding.passed(made + waiting, since_s)
        withholds = self._holding.is_on and not self.patience_s(now_s)
        self._news.append(Over(lives, over.began_s, now_s))
        for share in over.shares:
            self._settle(share, over.began_s, now_s, withholds)

    def take_news(self) -> list[Over]:
        """The passes that nobody was told of yet. Their sessions know what to tell of them (``LiveSession.tell``)."""
        news, self._news = self._news, []
        return news

    def wishes(self, now_s: float) -> list[tuple[LiveSession, Wish]]:
        """What could be drafted here, for those who would run without drafts."""
        ready, _ = self._ready(now_s)
        return [(live, wish) for live, _ in ready if (wish := live.wish()) is not None]

    def _ready(self, now_s: float) -> tuple[list[tuple[LiveSession, Plan]], float]:
        """Who may run now, with the drafts at hand; and when somebody else will, at the latest (infinite: only if woken)."""
        able, wake_s = self._within_rates(now_s)
        planned = [(live, live.plan(self._max_rows)) for live in able if live.can_run]
        patience_s = self.patience_s(now_s)
        if not patience_s:
            return planned, wake_s
        ready = []
        for live, plan in planned:
            waiting = live.waiting(plan, self._max_rows)
            at_s = ready_s(waiting, patience_s, self._policy.gather)
            if at_s > now_s:
                wake_s = min(wake_s, at_s)
                continue
            if at_s > 0:
                live.give_up_waiting()
            ready.append((live, plan))
        return ready, wake_s

    def _within_rates(self, now_s: float) -> tuple[list[LiveSession], float]:
        """Sessions of tenants that owe no tokens, and when the first of the others will owe none either."""
        able, wake_s = [], math.inf
        for live in self._seats.running:
            ready_s = live.account.tokens.ready_s
            if ready_s <= now_s:
                able.append(live)
            else:
                wake_s = min(wake_s, ready_s)
        return able, wake_s

    def _share_out(self, ready: list[tuple[LiveSession, Plan]]) -> list[Share]:
        claims = [live.claim(plan) for live, plan in ready]
        rows_of = share_rows(claims, self.costs, self._overhead.mean_s, self._max_rows)
        shares = []
        for index, (live, plan) in enumerate(ready):
            if rows := rows_of[index]:
                shares.append(Share(live, *live.enter(plan, rows), plan.token_ids))
                live.served = live.account.served = self.statistics.passes
                self.statistics.rows += rows
        return shares

    def _settle(self, share: Share, began_s: float, now_s: float, withholds: bool) -> None:
        live, entry = share.live, share.entry
        if live.outbox.is_ended:
            if live.cache is None and entry.cache is not None:
                self._seats.close_later(entry.cache)
        elif entry.error is not None:
            live.fail(entry)
        else:
            if not share.plan.nodes:
                self.statistics.own_proposed += len(share.plan.token_ids)
                self.statistics.own_accepted += entry.num_agreed
            live.survival.learn(share.offered, entry.choices)
            live.settle(entry, share.plan, began_s, now_s, withholds)
