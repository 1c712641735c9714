"""The verifier: sessions by id, and the loop that runs one pass after the other over all that can run."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloud_verifier.admission import check_handshake, check_request
from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import LinearCosts, PassCosts
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.holding import Holding
from cloud_verifier.live import LiveSession
from cloud_verifier.observer import UNOBSERVED, Observer
from cloud_verifier.passes import Entry, Pass
from cloud_verifier.patience import Policy, ready_s
from cloud_verifier.scheduling import Overhead, share_rows
from cloud_verifier.seats import Seats
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import CapacityError, EngineError, LinkError, SessionNotFoundError, SessionSupersededError
from speculation.protocol.messages import Open, Opened, PairIdentity
from speculation.protocol.verifier import Plan
from speculation.tenants import NOBODY, Account, Accounts, Tenant


@dataclass(frozen=True, slots=True)
class _Share:
    """A session, its entry in a pass, the plan behind the entry, and all drafts that were there."""

    live: LiveSession
    entry: Entry
    plan: Plan
    offered: Sequence[int]


class Verifier:
    """Decodes every session that is ready in every pass, with whatever drafts have arrived. ``run`` must be running for that.

    With patience 0 every session is ready. The engine is touched by passes alone; sessions, plans and verdicts by the event
    loop alone. So neither needs a lock. ``companion`` drafts for sessions without drafts. With ``costs`` only drafts that pay
    are run (``scheduling.py``), else all.
    """

    def __init__(
        self,
        runner: EngineRunner[Engine],
        identity: PairIdentity,
        self_test: SelfTest,
        config: VerifierConfig,
        companion: Companion | None = None,
        costs: PassCosts | None = None,
    ) -> None:
        self.statistics = VerifierStatistics()
        self.observer: Observer = UNOBSERVED
        self.identity = identity
        self.description = runner.engine.description
        self._runner = runner
        self._self_test = self_test
        self._config = config
        self._companion = companion
        self.costs, self._overhead = costs, Overhead()
        self._holding = Holding(isinstance(costs, LinearCosts) and not runner.is_inline and not config.pass_interval_ms)
        self._next_s = 0.0
        capacity = min(config.max_sessions, self.description.num_slots)
        self.seats = Seats(capacity, self.description.num_slots, config.max_queued, config.max_kept)
        self.policy = Policy(config.patience, config.gather, capacity, config.retry_after_s)
        self.accounts, self.newest_pair = Accounts(), identity.version
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._is_stopping = False

    @property
    def num_sessions(self) -> int:
        return len(self.seats)

    @property
    def patience_s(self) -> float:
        """How long a session is waited for now."""
        now_s = asyncio.get_running_loop().time()
        if self._is_draining:
            return 0.0
        return self.policy.patience_s(len(self.seats.running), now_s, self.seats.num_waiting)

    def account_of(self, tenant: Tenant) -> Account:
        """What a tenant uses of this verifier."""
        return self.accounts.of(tenant)

    def attach(self, message: Open, tenant: Tenant = NOBODY) -> LiveSession:
        """Begin a session, or take it over from an older attempt, which ends.

        Raises ``HandshakeError``, ``InvalidRequestError``, ``SessionSupersededError`` (a later attempt is running),
        ``SessionNotFoundError`` (it is another tenant's), ``CapacityError``, and ``LinkError`` while the verifier shuts down.
        """
        if self._is_draining:
            raise LinkError("the verifier is shutting down: try another, or later")
        check_handshake(message, self.identity, self._self_test.fingerprint)
        check_request(message, self.description)
        account = self.account_of(tenant)
        older = self.seats.find(message.session_id)
        if older is not None and older.account is not account:
            raise SessionNotFoundError("there is no such session")
        if older is not None and older.attempt >= message.attempt:
            raise SessionSupersededError(
                f"attempt {older.attempt} of this session is running, attempt {message.attempt} came late"
            )
        if older is None:
            account.check(asyncio.get_running_loop().time(), self._config.retry_after_s)
        self._check_capacity(older)
        live = self._new_session(message, account)
        self._admit(live, older)
        return live

    async def run(self) -> None:
        """Run passes until ``stop``. Whatever ends it, no session is left without an answer."""
        try:
            wake_s: float | None = 0.0
            while True:
                if wake_s is not None or self._runner.is_inline:
                    # One turn of the loop, so that what has arrived is in the next pass. Behind a pass it was read while the
                    # engine's thread ran that, whose verdicts are told during the next.
                    await asyncio.sleep(0)
                if self._companion is not None:
                    await self._draft(self._companion)
                wake_s = await self._run_pass()
                if wake_s is None:
                    continue
                if self._is_stopping:
                    return
                await self._sleep(wake_s)
        finally:
            for live in self.seats.all:
                live.end(EngineError("the verifier stopped"))

    async def drain(self, grace_s: float) -> None:
        """Refuse new sessions, let those that run finish within ``grace_s``, then end the rest with ``Finished(SHUTDOWN)``."""
        self._is_draining = True
        self._work.set()  # nobody is waited for any more
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            for live in self.seats.all:
                live.shut_down()

    def stop(self) -> None:
        """Let ``run`` return once nothing is left to do."""
        self._is_stopping = self._is_draining = True
        self._work.set()

    async def _run_pass(self) -> float | None:
        """One pass over all sessions that are ready. Where there was nothing to do: when there will be, at the latest."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        if began_s < self._next_s and not self._is_draining:
            return self._next_s
        ready, wake_s = self._ready(began_s)
        closing = self.seats.take_closing()
        if not ready and not closing:
            return wake_s
        if ready:
            self.statistics.passes += 1
            self._next_s = began_s + self._config.pass_interval_ms / 1000
        shares = self._share_out(ready)
        self._overhead.begins(loop.time())
        await self._runner.run(Pass(closing, [share.entry for share in shares]).run)
        now_s = loop.time()
        since_s = self._overhead.ended(now_s)
        if shares:
            self.policy.passed(now_s - began_s)
            waiting = [0] * (len(ready) - len(shares))  # whose prompts come later: they make none, either
            self._holding.passed([share.entry.num_made for share in shares] + waiting, since_s)
            self.observer.passed([share.live for share in shares], began_s, now_s)
        for share in shares:
            self._settle(share, began_s, now_s)
        return None

    def _ready(self, now_s: float) -> tuple[list[tuple[LiveSession, Plan]], float]:
        """Who may run now, with the drafts at hand; and when somebody else will, at the latest (infinite: only if woken)."""
        max_rows = self._config.max_rows
        able, wake_s = self._within_rates(now_s)
        planned = [(live, live.plan(max_rows)) for live in able if not live.outbox.is_full]
        patience_s = self.patience_s
        if not patience_s:
            return planned, wake_s
        ready = []
        for live, plan in planned:
            waiting = live.waiting(plan, max_rows)
            at_s = ready_s(waiting, patience_s, self.policy.gather)
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
        for live in self.seats.running:
            ready_s = live.account.tokens.ready_s
            if ready_s <= now_s:
                able.append(live)
            else:
                wake_s = min(wake_s, ready_s)
        return able, wake_s

    async def _sleep(self, until_s: float) -> None:
        """Until something changes, and no longer than ``until_s``."""
        self._overhead.rests()
        self._work.clear()
        alarm = asyncio.get_running_loop().call_at(until_s, self._work.set) if until_s < math.inf else None
        try:
            await self._work.wait()
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _draft(self, companion: Companion) -> None:
        """Let the companion draft for whoever would run without drafts."""
        ready, _ = self._ready(asyncio.get_running_loop().time())
        wishes = [(live, wish) for live, _ in ready if (wish := live.wish()) is not None]
        if wishes or companion.must_close:
            drafts = await companion.draft([wish for _, wish in wishes])
            for (live, _), token_ids in zip(wishes, drafts, strict=True):
                live.take_drafts(token_ids)

    def _share_out(self, ready: list[tuple[LiveSession, Plan]]) -> list[_Share]:
        claims = [live.claim(plan) for live, plan in ready]
        shares = []
        for (live, plan), rows in zip(
            ready, share_rows(claims, self.costs, self._overhead.mean_s, self._config.max_rows), strict=True
        ):
            if rows:
                shares.append(_Share(live, *live.enter(plan, rows), plan.token_ids))
                live.served = live.account.served = self.statistics.passes
                self.statistics.rows += rows
        return shares

    def _settle(self, share: _Share, began_s: float, now_s: float) -> None:
        live, entry = share.live, share.entry
        if live.outbox.is_ended:
            if live.cache is None and entry.cache is not None:
                self.seats.close_later(entry.cache)
        elif entry.error is not None:
            live.cache = entry.cache
            live.end(entry.error)
        else:
            if not share.plan.nodes:
                self.statistics.own_proposed += len(share.plan.token_ids)
                self.statistics.own_accepted += entry.num_agreed
            live.survival.learn(share.offered, entry.choices)
            live.settle(entry, share.plan, began_s, now_s, self._holding.is_on and not self.patience_s)

    def _new_session(self, message: Open, account: Account) -> LiveSession:
        config, size = self._config, self.description.vocabulary_size
        ends = self._release, self._work.set
        live = LiveSession(message, config.credit, size, config.outbox_messages, *ends, account, self.observer)
        proof = self._self_test
        opened = Opened(message.session_id, config.credit, proof.fingerprint, proof.is_exact, reads_packed=True)
        live.outbox.put(replace(opened, newest_pair=self.newest_pair, logprobs=message.logprobs))
        return live

    def _admit(self, live: LiveSession, older: LiveSession | None) -> None:
        self.statistics.sessions += 1
        self.seats.admit(live, older)
        if older is not None:
            older.end(SessionSupersededError(f"attempt {live.attempt} of this session took over"))
        self.observer.opened(live)
        self._idle.clear()
        self._work.set()
        if live.state.finished is not None:
            live.finish(live.state.finished)

    def _release(self, live: LiveSession) -> None:
        """Forget a session that ended."""
        self.seats.release(live)
        if self._companion is not None:
            self._companion.forget(live)
        if not self.num_sessions:
            self._idle.set()
        self._work.set()

    def _check_capacity(self, older: LiveSession | None) -> None:
        try:
            self.seats.check(older, self._config.retry_after_s)
        except CapacityError:
            self.policy.refused(asyncio.get_running_loop().time())
            raise
