"""One answer, from its first event to its last: who drafts, who sends, who listens, and what happens when one of them is lost.

One task group owns the three. The drafter never waits for verdicts, only for room; the sender hands over what is there; the
listener lets the log grow and rewinds the drafter. Whatever happens, there is exactly one last event: ``done`` or ``error``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import partial

from device_agent.conversation import Conversation
from device_agent.drafting.branches import Branch
from device_agent.drafting.drafting import Drafting
from device_agent.elsewhere import LOST, MISFITS, REFUSED, Misfits, Retries, newest_of, with_one_after_another
from device_agent.ending import PAUSED, STOP, cause, done_event, end_of_tail, finished, tail_room, until_one_ends
from device_agent.events import DoneEvent, ErrorEvent, Event, Reason, StateEvent
from device_agent.figures import Meter
from device_agent.gauges import Gauges
from device_agent.head_start import HeadStart
from device_agent.pair import PairFacts
from device_agent.request import Mode, Reveal
from device_agent.routing.route import Route
from device_agent.sending import Sender
from device_agent.tasks.pausing import Pausing
from device_agent.tasks.places import Place
from speculation.errors import CapacityError, LinkError, OutriderError
from speculation.links.base import Connector
from speculation.protocol.messages import CloudMessage, Finished, FinishReason, Opened, Verdict, VerdictKind
from speculation.protocol.update import Update

_log = logging.getLogger(__name__)


class Generation:
    """Goes a route, once it has its ``place``. ``emit`` gets every event but the first, which tells the session; ``numbers``
    gives out ``seq``. It may be paused for ``max_pause_s`` at a time."""

    def __init__(
        self,
        route: Route,
        pair: PairFacts,
        drafting: Drafting,
        connector: Connector | None,
        meter: Meter,
        numbers: Iterator[int],
        emit: Callable[[Sequence[Event]], None],
        place: Place,
        max_pause_s: float,
    ) -> None:
        self._route = route
        self._assignment = assignment = route.assignment
        self._pair = pair
        self._meter = meter
        self._numbers = numbers
        self._emit = emit
        self._mode = assignment.request.mode
        self._display = assignment.display(pair, numbers)
        self._session = assignment.session(pair)
        self._drafter = drafting.drafter(self._session, pair, place.share, assignment.quotes)
        self._place = place
        self.pausing = Pausing(place.share, max_pause_s, self._tell_pause, lambda: self._end(PAUSED))
        self._gauges = Gauges(drafting.phone, drafting.battery)
        self._sender = sender = Sender(self._session, self._drafter, meter)
        self._may_draft = asyncio.Event()
        self._head_start = start = HeadStart()
        self._talk = Conversation(connector, self._session, sender, meter, start, self._receive, self._refused)
        self._retries, self._misfits = Retries(), Misfits()
        self._is_alone = self._mode is Mode.DEVICE
        self._last: DoneEvent | ErrorEvent | None = None

    @property
    def _is_over(self) -> bool:
        return self._last is not None

    async def run(self) -> DoneEvent | ErrorEvent:
        """Generate until the answer is over. Cancelling it cancels the session at the verifier and frees the cache.

        Returns the last event, once everything that the answer held is given back: who has read it may start the next.
        """
        try:
            async with asyncio.timeout_at(self._place.share.ends_s) as self._limit, self._place.had(self._tell_state):
                await self._generate()
        except Exception as error:
            if self._limit.expired():
                self._end(FinishReason.DEADLINE.value)
            else:
                self._fail(cause(error))
        return self._last or self._fail(LinkError("the answer broke off"))

    def emulation_changed(self, is_emulated: bool) -> None:
        """What is played became something else; whether anything is now. The client is told."""
        self._meter.emulation_changed(is_emulated)
        self._tell_state(Reason.EMULATION)

    async def _generate(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._generate_in(tasks)
        finally:
            self.pausing.end()
            await self._drafter.close()

    async def _generate_in(self, tasks: asyncio.TaskGroup) -> None:
        if self._route.first is not None:
            self._tell_state(self._route.first.reason)
        if self._mode is Mode.CLOUD and self._route.first is None:
            await until_one_ends(tasks, self._converse(tasks))  # a pause cancels that task, and only an end this one
        elif self._is_alone:
            self._display.go_alone()
            await self._draft()
        if not self._is_over:
            await self._collaborate(tasks)

    async def _collaborate(self, tasks: asyncio.TaskGroup) -> None:
        """Draft and converse at once, until one of them has ended the answer."""
        await until_one_ends(tasks, self._converse_again_and_again(tasks), self._draft())

    async def _converse_again_and_again(self, tasks: asyncio.TaskGroup) -> None:
        """Where the verifier is lost, the device drafts on alone, and its drafts are audited once a verifier is there again."""
        while True:
            try:
                return await self._converse(tasks)
            except (*LOST, *REFUSED) as error:
                is_refused = isinstance(error, REFUSED) and not self._is_alone
                if is_refused or self._assignment.request.reveal is Reveal.FINAL:
                    raise
                self._go_alone(error)
            if self._is_over:
                return None
            await self._retries.wait()

    async def _converse(self, tasks: asyncio.TaskGroup) -> None:
        """Until the answer is over, through pauses and from one verifier to the next."""
        stream = partial(self._talk.run, tasks, lambda: self._assignment.opening(self._session, self._place.share))
        await self.pausing.through(partial(with_one_after_another, stream))

    def _receive(self, message: CloudMessage) -> bool:
        """Returns whether the answer goes on."""
        update = self._session.receive(message)
        match message:
            case Verdict():
                self._settled(message, update)
            case Opened():
                self._opened(message, update)
            case Finished():
                self._finished(message.reason)
        if not self._may_draft.is_set() and (self._is_over or not self._drafter.is_resting):  # who rests would ask in vain
            self._may_draft.set()
        return not self._is_over

    def _opened(self, opened: Opened, update: Update) -> None:
        rtt_s = _now_s() - self._talk.opened_s
        self._drafter.schedule.opened(rtt_s)
        rtt_ms = round(rtt_s * 1000, 3)
        self._meter.opened(rtt_s, opened.newest_pair, _now_s())
        if self._is_alone:
            self._come_back()
        self._tell_state(Reason.LINK, rtt_ms)
        if update.fingerprint_changed or not opened.is_exact:
            self._tell_state(Reason.EXACTNESS, rtt_ms)

    def _settled(self, verdict: Verdict, update: Update) -> None:
        now_s, is_drafting = _now_s(), self._mode is Mode.COLLABORATE
        settled = self._drafter.settle(update.start, update.tokens)
        self._meter.compared(len(settled.agreed), settled.contradicted is not None)
        self._meter.verdict(verdict, len(update.tokens), now_s)
        if is_drafting:  # who never drafts says nothing of what drafts cost
            self._drafter.came(now_s, len(update.tokens))
        is_overtaken = self._session.live_nodes == self._session.unsent_nodes
        self._drafter.schedule.verdict(now_s, verdict.kind is VerdictKind.DECODED, is_overtaken, verdict.last_node)
        self._sender.settled()
        events = self._display.finalised(update.tokens, update.logprobs)
        if is_drafting:
            self._drafter.copy()
        if self._drafter.branches.main and not self._drafter.is_resting:  # copies of who rests are soon final, or gone
            events += self._drafted()
        if self._display.is_weighing and not self._display.is_stopped:
            events += self._display.reassessed(self._drafter.chances()[: self._display.num_drafts])
        self._show(events, now_s)
        if self._display.is_stopped:
            self._end(STOP)
        self._reroute(now_s)

    def _reroute(self, now_s: float, grown: Sequence[Branch] = ()) -> bool:
        """Ask who writes from here on, and let them. Returns whether that ends the device's writing alone."""
        decision = None if self._is_over else self._route.again(self._mode, grown, now_s)
        if decision is None:
            return False
        was_alone, self._is_alone = self._is_alone, False
        self._assignment, self._mode = self._route.assignment, decision.mode
        self._drafter.is_paused |= decision.mode is Mode.CLOUD
        self._tell_state(decision.reason)
        self._display.come_back()
        return was_alone

    def _drafted(self) -> list[Event]:
        """What the main branch holds and the display does not, as its reader is told."""
        branches = self._drafter.branches.main[self._display.num_drafts :]
        return [event for branch in branches for event in self._display.drafted(branch.token_id, branch.chance)]

    def _finished(self, reason: FinishReason) -> None:
        """The verifier ended the session. Where that is none of the request's doing, the device treats it as lost."""
        if reason in (FinishReason.SHUTDOWN, FinishReason.CANCELLED):
            raise LinkError(f"the verifier ended the session: {reason.value}")
        self._end(reason.value)

    def _refused(self, error: OutriderError) -> None:
        """Another pair, or other arithmetic: what is final here cannot go on there."""
        if not isinstance(error, MISFITS):
            return
        self._meter.offered(newest_of(error))
        if (reason := self._misfits.news(error)) is not None:
            self._tell_state(reason)

    def _come_back(self) -> None:
        self._misfits.forget()
        self._is_alone = False
        self._mode = Mode.COLLABORATE
        self._retries.reset()
        self._display.come_back()

    def _go_alone(self, error: Exception) -> None:
        if self._is_alone:
            return
        _log.warning("session %s goes on without a verifier: %s", self._assignment.session_id, error)
        self._is_alone = True
        self._mode = Mode.DEVICE
        self._tell_state(Reason.BUSY if isinstance(error, CapacityError) else Reason.OFFLINE)
        self._show([*self._display.go_alone(), *self._drafted()], _now_s())
        if self._display.is_stopped:  # the end is here: a verifier that comes back later could not take it back
            self._end(STOP)
        self._may_draft.set()

    async def _draft(self) -> None:
        """Draft ahead for as long as this task lives; alone, until the answer is over or a verifier is to be asked."""
        await self._head_start.over()
        while not (self._is_alone and (reason := end_of_tail(self._assignment, self._display, self._drafter, self._pair))):
            self._may_draft.clear()
            room, began_s = tail_room(self._assignment, self._drafter) if self._is_alone else None, _now_s()
            grown = [] if self._mode is Mode.CLOUD else await self._drafter.step(room)
            self._sender.wake()
            if self._is_over:
                return
            now_s = _now_s()
            self._meter.drafted(began_s, now_s, len(grown))
            self._gauges.show(self._meter.timeline, now_s)
            is_handed_over = self._reroute(now_s, grown)  # before a stop string in what grew ends the answer
            self._show(self._drafted() if grown else (), now_s)
            if self._gauges.has_changed():
                self._tell_state(Reason.THROTTLING)
            if is_handed_over:
                return
            if self._drafter.is_paused or self._mode is Mode.CLOUD:
                await self._may_draft.wait()
        self._end(reason)

    def _tell_state(self, reason: StrEnum, rtt_ms: float | None = None) -> None:
        if not self._is_over:
            thermal = self._gauges.thermal_at(_now_s())
            self._emit([StateEvent(next(self._numbers), self._mode.value, reason.value, rtt_ms, thermal)])

    def _tell_pause(self, reason: Reason, paused_s: float) -> None:
        self._drafter.broke_off()
        self._meter.broke_off(_now_s(), paused_s)
        self._tell_state(reason)

    def _show(self, events: Sequence[Event], now_s: float) -> None:
        if events:
            self._place.share.wrote(self._drafter.length - len(self._assignment.prompt), now_s)
            self._meter.showed(events, now_s)
            self._emit(events)

    def _end(self, reason: str) -> None:
        """The answer is over; drafts stay only where the device ended alone."""
        if self._is_over:
            return
        events, reason = finished(reason, self._display, self._assignment.max_tail if self._is_alone else None)
        self._show(events, _now_s())
        self._meter.joules, self._meter.battery_percent = self._gauges.joules, self._gauges.battery_percent(_now_s())
        self._meter.shared(self._place.queued_s, self._place.share.waited_s, self.pausing.paused_s)
        if self._mode is Mode.COLLABORATE and not self.pausing.paused_s:
            self._place.wrote(*self._meter.behind_first)
        self._last = done_event(next(self._numbers), reason, self._assignment, self._display, self._meter, self._session)
        self.pausing.end()
        if self._place.is_queued and not self._limit.expired():  # paused for too long: what is over waits for no place
            self._limit.reschedule(_now_s())

    def _fail(self, error: BaseException) -> DoneEvent | ErrorEvent:
        if not isinstance(error, OutriderError):
            _log.error("session %s failed", self._assignment.session_id, exc_info=error)
        self._last = self._last or ErrorEvent.of(next(self._numbers), error)
        return self._last


def _now_s() -> float:
    return asyncio.get_running_loop().time()
