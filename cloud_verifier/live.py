"""One session on one stream, as the verifier keeps it: the protocol's state, the cache's length, the outbox, the deadline."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager

from cloud_verifier.companion import Wish
from cloud_verifier.observer import UNOBSERVED, Observer
from cloud_verifier.outbox import Outbox
from cloud_verifier.passes import Entry
from cloud_verifier.patience import Waiting
from cloud_verifier.scheduling import Claim, Survival
from cloud_verifier.timing import Arrivals
from speculation.engines.base import CacheId
from speculation.errors import DeadlineError, LinkError, MalformedMessageError, OutriderError
from speculation.protocol.messages import CloudMessage, DeviceMessage, Draft, Finished, FinishReason, Open, Verdict
from speculation.protocol.verifier import Plan, VerifierSession
from speculation.tenants import Account

MOST_TOLD = 1024
"""Drafts in a pass of a session that is told log probabilities: with twenty tokens beside each that is a verdict of 190 kB,
and a device reads no message of more than 256 KiB."""
ON_A_TICK = 2
"""Messages that may wait for their tick: one, and what a pass says meanwhile."""


class LiveSession:
    """The verifier's end of one stream. ``receive``, ``next`` and ``close`` are for the stream; the rest is the pass loop's.

    What a pass chose is settled by whoever runs the passes, and told on the event loop; nothing else is told before it.
    ``lock`` is that of the seats: who plans and settles holds it, all others take it here. ``on_end`` is called once, when the
    session needs its cache no more; ``on_change`` when it may be ready for a pass that it was not ready for before: a draft
    came, or a full outbox is being read again. ``account`` is that of its tenant, ``place`` its place in the queue for a seat,
    ``pair`` the counter of its pair, ``entered_s`` when the first pass began that it has a part in.
    """

    def __init__(
        self,
        message: Open,
        credit: int,
        vocabulary_size: int,
        outbox_messages: int,
        on_end: Callable[[LiveSession], None],
        on_change: Callable[[], None],
        account: Account,
        lock: AbstractContextManager[object],
        observer: Observer = UNOBSERVED,
    ) -> None:
        self.session_id = message.session_id
        self.attempt = message.attempt
        self.parameters = message.parameters
        self.account = account
        self.state = VerifierSession(message, credit)
        self.cover = message.cover
        # On a tick one message leaves: what is decoded far ahead of that would only wait here.
        self.outbox = Outbox(min(outbox_messages, ON_A_TICK) if message.cover.tick_ms else outbox_messages, on_change)
        self.cache: CacheId | None = None
        self.cached = 0
        self.served = 0
        self.entered_s: float | None = None
        self.place = 0
        self.pair = message.identity.version
        self.survival = Survival()
        self._arrivals = Arrivals() if message.timings else None
        self._own_drafts: tuple[int, ...] = ()
        self._end_token_ids = frozenset(message.end_token_ids)
        self._credit = credit
        self._waiting_since_s: float | None = None
        self._has_drafted = False
        self._was_in_vain = self._hears_no_more = False
        self._vocabulary_size = vocabulary_size
        self._on_end = on_end
        self._on_change = on_change
        self._priority = message.priority
        self._logprobs = message.logprobs
        self._observer = observer
        self._lock = lock
        self._untold: list[tuple[Entry, Sequence[Verdict], float]] = []
        self._failure: OutriderError | None = None
        self._deadline = self._start_deadline(message.deadline_ms)

    # For the stream.

    def receive(self, message: DeviceMessage) -> None:
        """Take a message from the device. One that breaks the protocol ends this session; after the end all are ignored."""
        with self._lock:
            if self.outbox.is_ended:
                return
            try:
                self._take(message)
            except OutriderError as error:
                self.end(error)
                return
            if self.state.finished is not None:
                self.finish(self.state.finished)
        self._on_change()

    def hears_no_more(self) -> None:
        """The device closed its sending side: no draft comes from here on, and none is waited for."""
        with self._lock:
            self._hears_no_more = True
        self._on_change()

    def next(self) -> Awaitable[CloudMessage | None]:
        """The next message for the device, None at an orderly end. Raises the error that ended the session."""
        return self.outbox.next()

    def close(self) -> None:
        """The device is gone: nothing more is computed for it."""
        self.end(LinkError("the device went away"))

    # For the pass loop.

    def end(self, error: OutriderError | None) -> None:
        """End the session, with an error or in order. Only the first end counts."""
        with self._lock:
            try:
                self.tell()
            finally:
                self._end(error)

    def finish(self, message: Finished) -> None:
        """End the session in order, and say so."""
        with self._lock:
            self.tell()
            if not self.outbox.is_ended:
                self.outbox.put(message)
                self.end(None)

    def shut_down(self) -> None:
        with self._lock:
            self.finish(self.state.finish(FinishReason.SHUTDOWN))

    def wake(self) -> None:
        """It may be ready for a pass now."""
        self._on_change()

    @property
    def can_run(self) -> bool:
        """Whether it wants to be in a pass: what it was told before is being read, and more is to be told."""
        is_over = self.outbox.is_ended or self._failure is not None or self.state.finished is not None
        return not is_over and not self.outbox.is_full(len(self._untold))

    @property
    def num_uncached(self) -> int:
        """Final tokens that the cache lacks; at least the last one."""
        return len(self.state.final) - self.cached

    def plan(self, max_rows: int) -> Plan:
        """What the next pass may check: the device's drafts, else the verifier's own, which have no node numbers."""
        plan = self.state.plan(max_rows if self._logprobs is None else min(max_rows, MOST_TOLD))
        if plan.token_ids or not self._own_drafts:
            return plan
        return Plan((), self._own_drafts, plan.start)

    def claim(self, plan: Plan) -> Claim:
        """What the next pass is asked for, while ``plan`` is the longest that can be run now."""
        account, cached = self.account, self.cached
        deadline_s = math.inf if self._deadline is None else self._deadline.when()
        served, is_sampled = (self.served, account.served), self.parameters.temperature > 0
        num_uncached = len(self.state.final) - cached
        # By place: this is made for every session of every pass, and names are matched one by one.
        wanted = num_uncached, len(plan.token_ids), cached, self.survival.chance
        return Claim(*wanted, account, *served, deadline_s, self._priority, is_sampled)

    def waiting(self, plan: Plan, max_rows: int) -> Waiting:
        """What there is to wait for, while ``plan`` is the longest that can be run now."""
        state, count = self.state, len(plan.nodes)
        room = min(max_rows, state.limit - plan.start - 1)
        may_grow = count < room and not state.drafts_end and (not count or state.live_nodes < self._credit)
        is_silent = self._hears_no_more or (self._was_in_vain and not self._has_drafted)
        return Waiting(self._waiting_since_s, count, may_grow, state.passed, is_silent)

    def give_up_waiting(self) -> None:
        """The patience is over: a device that never sent a node is not waited for again until it does."""
        self._was_in_vain = True

    def wish(self) -> Wish | None:
        """What could be drafted for this session here; None where drafts wait, nothing fits or the prompt still runs."""
        room = self.state.limit - len(self.state.final) - 1
        if self._waiting_since_s is None or self._own_drafts or room < 1 or self.state.has_drafts:
            return None
        return Wish(self, self.state.final, self.parameters, room, self._end_token_ids, self.account.tenant.name)

    def take_drafts(self, token_ids: tuple[int, ...]) -> None:
        """Drafts of the verifier's own, for the next pass of this session."""
        self._own_drafts = token_ids

    def enter(self, plan: Plan, rows: int) -> tuple[Entry, Plan]:
        """This session's ``rows`` rows of a pass: uncached final tokens, then as much of the plan as fits behind them."""
        final = self.state.final
        room = rows - self.num_uncached
        if room < 0:
            token_ids = final[self.cached : self.cached + rows]
            return Entry(self.cache, self.cached, token_ids, 0, len(final), (), self.parameters), plan
        if room < len(plan.token_ids):
            plan = Plan(plan.nodes[:room], plan.token_ids[:room], plan.start)
        token_ids = [*final[self.cached :], *plan.token_ids]
        asked = len(plan.token_ids) + 1, len(final), plan.token_ids, self.parameters, self._logprobs
        return Entry(self.cache, self.cached, token_ids, *asked), plan

    def settle(self, entry: Entry, plan: Plan, began_s: float, now_s: float, withholds: bool = False) -> None:
        """Take over what a pass chose that began at ``began_s``, to be told by ``tell``: the device ``withholds`` its drafts
        from now on."""
        self.cache = entry.cache
        if not entry.num_logits:
            self.cached += len(entry.token_ids)
            return
        num_final = len(self.state.final)
        self.cached = entry.position + entry.num_agreed
        self._waiting_since_s = now_s
        if self._own_drafts:
            self._own_drafts = ()
        if len(plan.nodes) == len(plan.token_ids):
            choices, near_ties = entry.choices, entry.near_ties
            verdict, _ = self.state.commit(plan, choices, near_ties, withholds=withholds, logprobs=entry.likelihoods)
            verdicts = [verdict]
        else:
            verdicts = self._commit_own(entry)
        self.account.tokens.take(len(self.state.final) - num_final, now_s)
        if self._arrivals is not None and verdicts:
            verdicts = self._arrivals.timed(verdicts, len(entry.token_ids), began_s, now_s)
        self._untold.append((entry, verdicts, now_s))

    def fail(self, entry: Entry) -> None:
        """Its part of a pass failed: ``tell`` ends it with the entry's error."""
        self.cache = entry.cache
        self._failure = entry.error

    def tell(self) -> None:
        """Tell the device what was settled, on the event loop."""
        with self._lock:
            if self.outbox.is_ended:
                return
            untold, self._untold = self._untold, []
            for entry, verdicts, now_s in untold:
                self._observer.settled(self, entry, verdicts, now_s)
                for verdict in verdicts:
                    self.outbox.put(verdict)
            failure, self._failure = self._failure, None
            if failure is not None:
                self.end(failure)
            elif untold and self.state.finished is not None:
                self.finish(self.state.finished)

    def _end(self, error: OutriderError | None) -> None:
        if self.outbox.is_ended:
            return
        self.outbox.end(error)
        if self._deadline is not None:
            self._deadline.cancel()
        self._on_end(self)
        self._observer.ended(self, error)

    def _commit_own(self, entry: Entry) -> list[Verdict]:
        """A verdict for each token: the device never had these drafts, so no node could name them."""
        verdicts = []
        for index, choice in enumerate(entry.choices[: entry.num_agreed + 1]):
            if self.state.finished is None:
                plan = Plan((), (), len(self.state.final))
                near_ties = 0 if index else entry.near_ties
                told = entry.likelihoods[index : index + 1]
                verdicts.append(self.state.commit(plan, (choice,), near_ties, passes=int(index == 0), logprobs=told)[0])
        return verdicts

    def _start_deadline(self, deadline_ms: int | None) -> asyncio.TimerHandle | None:
        if deadline_ms is None:
            return None
        passed = DeadlineError(f"the session's deadline of {deadline_ms} ms passed")
        return asyncio.get_running_loop().call_later(deadline_ms / 1000, self.end, passed)

    def _take(self, message: DeviceMessage) -> None:
        if isinstance(message, Open):
            raise MalformedMessageError("a stream carries one Open, and it comes first")
        self._refuse_unknown_tokens(message)
        self.state.receive(message)
        if self._arrivals is not None:
            self._arrivals.note(message, asyncio.get_running_loop().time())

    def _refuse_unknown_tokens(self, message: DeviceMessage) -> None:
        if isinstance(message, Draft):
            self._has_drafted = self._has_drafted or bool(message.nodes)
            for node in message.nodes:
                if node.token_id >= self._vocabulary_size:
                    raise MalformedMessageError(
                        f"node {node.number} holds token id {node.token_id}: the vocabulary has {self._vocabulary_size}"
                    )
