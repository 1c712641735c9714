"""One session on one stream, as the verifier keeps it: the protocol's state, the cache's length, the outbox, the deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cloud_verifier.outbox import Outbox
from cloud_verifier.passes import Entry
from speculation.engines.base import CacheId
from speculation.errors import DeadlineError, LinkError, MalformedMessageError, OutriderError
from speculation.protocol.messages import CloudMessage, DeviceMessage, Draft, Finished, FinishReason, Open
from speculation.protocol.verifier import Plan, VerifierSession


class LiveSession:
    """The verifier's end of one stream. ``receive``, ``next`` and ``close`` are for the stream; the rest is the pass loop's.

    ``on_end`` is called once, when the session needs its cache no more; ``on_room`` when a full outbox is being read again.
    """

    def __init__(
        self,
        message: Open,
        credit: int,
        vocabulary_size: int,
        outbox_messages: int,
        on_end: Callable[[LiveSession], None],
        on_room: Callable[[], None],
    ) -> None:
        self.session_id = message.session_id
        self.attempt = message.attempt
        self.parameters = message.parameters
        self.state = VerifierSession(message, credit)
        self.outbox = Outbox(outbox_messages, on_room)
        self.cache: CacheId | None = None
        self.cached = 0
        self.served = 0
        self._vocabulary_size = vocabulary_size
        self._on_end = on_end
        self._deadline = self._start_deadline(message.deadline_ms)

    # For the stream.

    def receive(self, message: DeviceMessage) -> None:
        """Take a message from the device. One that breaks the protocol ends this session; after the end all are ignored."""
        if self.outbox.is_ended:
            return
        try:
            if isinstance(message, Open):
                raise MalformedMessageError("a stream carries one Open, and it comes first")
            self._refuse_unknown_tokens(message)
            self.state.receive(message)
        except OutriderError as error:
            self.end(error)
            return
        if self.state.finished is not None:
            self.finish(self.state.finished)

    async def next(self) -> CloudMessage | None:
        """The next message for the device, None at an orderly end. Raises the error that ended the session."""
        return await self.outbox.next()

    def close(self) -> None:
        """The device is gone: nothing more is computed for it."""
        self.end(LinkError("the device went away"))

    # For the pass loop.

    def end(self, error: OutriderError | None) -> None:
        """End the session, with an error or in order. Only the first end counts."""
        if self.outbox.is_ended:
            return
        self.outbox.end(error)
        if self._deadline is not None:
            self._deadline.cancel()
        self._on_end(self)

    def finish(self, message: Finished) -> None:
        """End the session in order, and say so."""
        if not self.outbox.is_ended:
            self.outbox.put(message)
            self.end(None)

    def shut_down(self) -> None:
        self.finish(self.state.finish(FinishReason.SHUTDOWN))

    @property
    def num_uncached(self) -> int:
        """Final tokens that the cache lacks; at least the last one."""
        return len(self.state.final) - self.cached

    def enter(self, plan: Plan, rows: int) -> tuple[Entry, Plan]:
        """This session's ``rows`` rows of a pass: uncached final tokens, then as much of the plan as fits behind them."""
        final = self.state.final
        room = rows - self.num_uncached
        if room < 0:
            token_ids = final[self.cached : self.cached + rows]
            return Entry(self.cache, self.cached, token_ids, 0, len(final), (), self.parameters), plan
        if room < len(plan.token_ids):
            plan = self.state.plan(room)
        token_ids = [*final[self.cached :], *plan.token_ids]
        num_logits = len(plan.token_ids) + 1
        return Entry(self.cache, self.cached, token_ids, num_logits, len(final), plan.token_ids, self.parameters), plan

    def settle(self, entry: Entry, plan: Plan) -> None:
        """Take over what a pass chose, and tell the device."""
        self.cache = entry.cache
        if not entry.num_logits:
            self.cached += len(entry.token_ids)
            return
        self.cached = entry.position + entry.num_agreed
        verdict, finished = self.state.commit(plan, entry.choices, entry.near_ties)
        self.outbox.put(verdict)
        if finished is not None:
            self.finish(finished)

    def _start_deadline(self, deadline_ms: int | None) -> asyncio.TimerHandle | None:
        if deadline_ms is None:
            return None
        passed = DeadlineError(f"the session's deadline of {deadline_ms} ms passed")
        return asyncio.get_running_loop().call_later(deadline_ms / 1000, self.end, passed)

    def _refuse_unknown_tokens(self, message: DeviceMessage) -> None:
        if isinstance(message, Draft):
            for node in message.nodes:
                if node.token_id >= self._vocabulary_size:
                    raise MalformedMessageError(
                        f"node {node.number} holds token id {node.token_id}: the vocabulary has {self._vocabulary_size}"
                    )
