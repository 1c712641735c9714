"""The verifier: sessions by id, and the loop that runs one pass after the other over all that can run."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from cloud_verifier.admission import check_handshake, check_request
from cloud_verifier.companion import Companion
from cloud_verifier.config import VerifierConfig
from cloud_verifier.costs import LinearCosts, PassCosts
from cloud_verifier.counts import VerifierStatistics
from cloud_verifier.holding import Holding
from cloud_verifier.live import LiveSession
from cloud_verifier.observer import UNOBSERVED, Observer
from cloud_verifier.passes import Pass
from cloud_verifier.patience import Policy
from cloud_verifier.rounds import Rounds
from cloud_verifier.seats import Seats
from speculation.engines.base import Engine
from speculation.engines.handover import when_computing
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.engines.wake import Waker, waker_of
from speculation.errors import CapacityError, EngineError, LinkError, SessionNotFoundError, SessionSupersededError
from speculation.protocol.messages import Open, Opened, PairIdentity
from speculation.tenants import NOBODY, Account, Accounts, Tenant


class Verifier:
    """Decodes every session that is ready in every pass, with whatever drafts have arrived. ``run`` must be running for that.

    With patience 0 every session is ready. The engine is touched by passes alone, devices are told on the event loop alone.
    Passes that follow each other are settled and planned on the engine's thread, and everything else that touches a session
    waits for that (``seats.lock``). ``companion`` drafts for sessions without drafts. With ``costs`` only drafts that pay
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
        self.observer: Observer = UNOBSERVED
        self.identity = identity
        self.description = runner.engine.description
        self._runner = runner
        self._self_test = self_test
        self._config = config
        self._companion = companion
        capacity = min(config.max_sessions, self.description.num_slots)
        self.seats = Seats(capacity, self.description.num_slots, config.max_queued, config.max_kept)
        self.policy = Policy(config.patience, config.gather, capacity, config.retry_after_s)
        holding = Holding(isinstance(costs, LinearCosts) and not runner.is_inline and not config.pass_interval_ms)
        self.rounds = Rounds(config, self.seats, self.policy, costs, holding)
        self.accounts, self.newest_pair = Accounts(), identity.version
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_stopping = self._is_over = False
        self._fault: Exception | None = None

    @property
    def statistics(self) -> VerifierStatistics:
        """What it counted; verifiers can share it."""
        return self.rounds.statistics

    @property
    def num_sessions(self) -> int:
        return len(self.seats)

    @property
    def patience_s(self) -> float:
        """How long a session is waited for now."""
        with self.seats.lock:
            return self.rounds.patience_s(asyncio.get_running_loop().time())

    def account_of(self, tenant: Tenant) -> Account:
        """What a tenant uses of this verifier."""
        return self.accounts.of(tenant)

    def attach(self, message: Open, tenant: Tenant = NOBODY) -> LiveSession:
        """Begin a session, or take it over from an older attempt, which ends.

        Raises ``HandshakeError``, ``InvalidRequestError``, ``SessionSupersededError`` (a later attempt is running),
        ``SessionNotFoundError`` (it is another tenant's), ``CapacityError``, and ``LinkError`` while the verifier shuts down.
        """
        with self.seats.lock:
            return self._attach(message, tenant)

    def _attach(self, message: Open, tenant: Tenant) -> LiveSession:
        if self.rounds.is_draining:
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
        self._admit(live, older, message.logprobs)
        return live

    async def run(self) -> None:
        """Run passes until ``stop``. Whatever ends it, no session is left without an answer."""
        try:
            wake_s: float | None = 0.0
            while True:
                if wake_s is not None or self._runner.is_inline:
                    # One turn of the loop, so that what has arrived is in the next pass. Behind a pass it was read while the
                    # engine's thread ran that.
                    await asyncio.sleep(0)
                if self._companion is not None:
                    await self._draft(self._companion)
                wake_s = await self._run_passes()
                if wake_s is None:
                    continue
                if self._is_stopping:
                    return
                await self._sleep(wake_s)
        finally:
            with self.seats.lock, contextlib.ExitStack() as ends:  # all of them, whatever one of them raises
                self._is_over = True
                for live in self.seats.all:
                    ends.callback(live.end, EngineError("the verifier stopped"))

    async def drain(self, grace_s: float) -> None:
        """Refuse new sessions, let those that run finish within ``grace_s``, then end the rest with ``Finished(SHUTDOWN)``."""
        self.rounds.is_draining = True
        self._work.set()  # nobody is waited for any more
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            for live in self.seats.all:
                live.shut_down()

    def stop(self) -> None:
        """Let ``run`` return once nothing is left to do."""
        self._is_stopping = self.rounds.is_draining = True
        self._work.set()

    async def _run_passes(self) -> float | None:
        """A pass over all sessions that are ready, and those that follow it at once. Where there was nothing to do: when there
        will be, at the latest."""
        loop = asyncio.get_running_loop()
        with self.seats.lock:
            planned = self._plan(loop)
        if not isinstance(planned, Pass):
            return planned
        # A companion drafts between two passes, so the loop has to come in between; and a job on the loop holds it up.
        may_follow = self._companion is None and not self._runner.is_inline
        follow = partial(self._follow, loop, waker_of(loop)) if may_follow else None
        await self._runner.run(planned.run, follow=follow)
        if self._fault is not None:
            raise self._fault
        with self.seats.lock:
            self.rounds.settle(loop.time())
        self._tell()
        return None

    def _follow(self, loop: asyncio.AbstractEventLoop, waker: Waker, _: None) -> Callable[[Engine], None] | None:
        """The pass behind one that is over, on the engine's thread; None where the loop has to go on."""
        with self.seats.lock:
            if self._is_over or self._fault is not None:
                return None
            self.rounds.settle(loop.time())
            planned = self._plan(loop)
        if not isinstance(planned, Pass):
            return None
        when_computing(partial(waker.call, self._tell_beside))
        return planned.run

    def _plan(self, loop: asyncio.AbstractEventLoop) -> Pass | float:
        planned = self.rounds.plan(loop.time())
        if isinstance(planned, Pass):
            self.rounds.begins(loop.time())
        return planned

    def _tell_beside(self) -> None:
        """Tell while the next pass computes. A fault ends the pass loop, as it would between two passes."""
        try:
            self._tell()
        except Exception as error:
            self._fault = error

    def _tell(self) -> None:
        """Tell of the passes that are settled."""
        with self.seats.lock:
            news = self.rounds.take_news()
        for over in news:
            self.observer.passed(over.lives, over.began_s, over.ended_s)
            for live in over.lives:
                live.tell()

    async def _sleep(self, until_s: float) -> None:
        """Until something changes, and no longer than ``until_s``."""
        with self.seats.lock:
            self.rounds.rests()
        self._work.clear()
        alarm = asyncio.get_running_loop().call_at(until_s, self._work.set) if until_s < math.inf else None
        try:
            await self._work.wait()
        finally:
            if alarm is not None:
                alarm.cancel()

    async def _draft(self, companion: Companion) -> None:
        """Let the companion draft for whoever would run without drafts."""
        with self.seats.lock:
            wishes = self.rounds.wishes(asyncio.get_running_loop().time())
        if wishes or companion.must_close:
            drafts = await companion.draft([wish for _, wish in wishes])
            for (live, _), token_ids in zip(wishes, drafts, strict=True):
                live.take_drafts(token_ids)

    def _new_session(self, message: Open, account: Account) -> LiveSession:
        config, size = self._config, self.description.vocabulary_size
        ends = self._release, self._work.set
        lock = self.seats.lock
        return LiveSession(message, config.credit, size, config.outbox_messages, *ends, account, lock, self.observer)

    def _admit(self, live: LiveSession, older: LiveSession | None, logprobs: int | None) -> None:
        self.statistics.sessions += 1
        self.seats.admit(live, older)
        live.outbox.put(self._opened(live, logprobs))
        if older is not None:
            older.end(SessionSupersededError(f"attempt {live.attempt} of this session took over"))
        self.observer.opened(live)
        self._idle.clear()
        self._work.set()
        if live.state.finished is not None:
            live.finish(live.state.finished)

    def _opened(self, live: LiveSession, logprobs: int | None) -> Opened:
        proof, cached = self._self_test, live.cached  # of who still waits for a seat nobody knows what will be kept by then
        opened = Opened(live.session_id, self._config.credit, proof.fingerprint, proof.is_exact, cached, reads_packed=True)
        return replace(opened, newest_pair=self.newest_pair, logprobs=logprobs)

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
