"""The verifier: sessions by id, and the loop that runs one pass after the other over all that can run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from cloud_verifier.admission import check_handshake, check_request
from cloud_verifier.batching import allot
from cloud_verifier.config import VerifierConfig
from cloud_verifier.live import LiveSession
from cloud_verifier.passes import Entry, Pass
from speculation.engines.base import CacheId, Engine
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.errors import CapacityError, EngineError, LinkError, SessionSupersededError
from speculation.protocol.messages import Open, Opened, PairIdentity
from speculation.protocol.verifier import Plan


@dataclass(slots=True)
class VerifierStatistics:
    """Counted since the start. ``rows`` are tokens fed to the full model, prompts included."""

    sessions: int = 0
    passes: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class _Share:
    """A session, its entry in a pass, and the plan behind the entry."""

    live: LiveSession
    entry: Entry
    plan: Plan


class Verifier:
    """Decodes every session in every pass, with whatever drafts have arrived. ``run`` must be running for anything to happen.

    The engine is touched by passes alone; sessions, plans and verdicts by the event loop alone. So neither needs a lock.
    """

    def __init__(
        self, runner: EngineRunner[Engine], identity: PairIdentity, self_test: SelfTest, config: VerifierConfig
    ) -> None:
        self.statistics = VerifierStatistics()
        self.identity = identity
        self.description = runner.engine.description
        self._runner = runner
        self._self_test = self_test
        self._config = config
        self._capacity = min(config.max_sessions, self.description.num_slots)
        self._sessions: dict[str, LiveSession] = {}
        self._closing: list[CacheId] = []
        self._work = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False
        self._is_stopping = False

    @property
    def num_sessions(self) -> int:
        return len(self._sessions)

    def attach(self, message: Open) -> LiveSession:
        """Begin a session, or take it over from an older attempt, which ends.

        Raises ``HandshakeError``, ``InvalidRequestError``, ``SessionSupersededError`` (a later attempt is running),
        ``CapacityError``, and ``LinkError`` while the verifier shuts down.
        """
        if self._is_draining:
            raise LinkError("the verifier is shutting down: try another, or later")
        check_handshake(message, self.identity, self._self_test.fingerprint)
        check_request(message, self.description)
        older = self._sessions.get(message.session_id)
        if older is not None and older.attempt >= message.attempt:
            raise SessionSupersededError(
                f"attempt {older.attempt} of this session is running, attempt {message.attempt} came late"
            )
        self._check_capacity(self.num_sessions - (older is not None))
        live = self._new_session(message)
        if older is not None:
            older.end(SessionSupersededError(f"attempt {message.attempt} of this session took over"))
        self._admit(live)
        return live

    async def run(self) -> None:
        """Run passes until ``stop``. Whatever ends it, no session is left without an answer."""
        try:
            while True:
                # One turn of the loop, so that what has arrived is in the next pass even where the engine computes inline.
                await asyncio.sleep(0)
                if not await self._run_pass():
                    if self._is_stopping:
                        return
                    self._work.clear()
                    await self._work.wait()
        finally:
            for live in list(self._sessions.values()):
                live.end(EngineError("the verifier stopped"))

    async def drain(self, grace_s: float) -> None:
        """Refuse new sessions, let those that run finish within ``grace_s``, then end the rest with ``Finished(SHUTDOWN)``."""
        self._is_draining = True
        try:
            async with asyncio.timeout(grace_s):
                await self._idle.wait()
        except TimeoutError:
            for live in list(self._sessions.values()):
                live.shut_down()

    def stop(self) -> None:
        """Let ``run`` return once nothing is left to do."""
        self._is_stopping = self._is_draining = True
        self._work.set()

    async def _run_pass(self) -> bool:
        """One pass over all sessions that can run; False where there was nothing to do."""
        runnable = [live for live in self._sessions.values() if not live.outbox.is_full]
        closing, self._closing = self._closing, []
        if not runnable and not closing:
            return False
        if runnable:
            self.statistics.passes += 1
        shares = self._share_out(runnable)
        await self._runner.run(Pass(closing, [share.entry for share in shares]).run)
        for share in shares:
            self._settle(share)
        return True

    def _share_out(self, runnable: list[LiveSession]) -> list[_Share]:
        plans = [live.state.plan(self._config.max_rows) for live in runnable]
        wanted = [live.num_uncached + len(plan.token_ids) for live, plan in zip(runnable, plans, strict=True)]
        allotted = allot(wanted, [live.served for live in runnable], self._config.max_rows)
        shares = []
        for live, plan, rows in zip(runnable, plans, allotted, strict=True):
            if rows:
                shares.append(_Share(live, *live.enter(plan, rows)))
                live.served = self.statistics.passes
                self.statistics.rows += rows
        return shares

    def _settle(self, share: _Share) -> None:
        live, entry = share.live, share.entry
        if live.outbox.is_ended:
            if live.cache is None and entry.cache is not None:
                self._close_later(entry.cache)
        elif entry.error is not None:
            live.cache = entry.cache
            live.end(entry.error)
        else:
            live.settle(entry, share.plan)

    def _new_session(self, message: Open) -> LiveSession:
        config = self._config
        live = LiveSession(
            message, config.credit, self.description.vocabulary_size, config.outbox_messages, self._release, self._work.set
        )
        live.outbox.put(Opened(message.session_id, config.credit, self._self_test.fingerprint, self._self_test.is_exact))
        return live

    def _admit(self, live: LiveSession) -> None:
        self.statistics.sessions += 1
        self._sessions[live.session_id] = live
        self._idle.clear()
        self._work.set()
        if live.state.finished is not None:
            live.finish(live.state.finished)

    def _release(self, live: LiveSession) -> None:
        """Forget a session that ended; its cache is given back before the next pass."""
        if self._sessions.get(live.session_id) is live:
            del self._sessions[live.session_id]
        if live.cache is not None:
            self._close_later(live.cache)
        if not self._sessions:
            self._idle.set()

    def _close_later(self, cache: CacheId) -> None:
        self._closing.append(cache)
        self._work.set()

    def _check_capacity(self, num_others: int) -> None:
        if num_others >= self._capacity:
            raise CapacityError(f"all {self._capacity} sessions of this verifier are taken", self._config.retry_after_s)
