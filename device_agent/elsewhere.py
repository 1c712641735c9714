"""What follows when a verifier is lost in mid-answer and another is there at once: the session is opened again, there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from device_agent.events import Reason
from speculation.errors import (
    AuthenticationError,
    CapacityError,
    FingerprintError,
    HandshakeError,
    LinkError,
    OutriderError,
    PairError,
)
from speculation.links.base import Connector, Link

LOST, REFUSED = (LinkError, CapacityError), (HandshakeError, AuthenticationError)
"""Errors of the link after which a device can go on alone (no verifier, or no room), and those that waiting does not mend."""

MISFITS = (PairError, FingerprintError)
"""Of these, refusals that say nothing of another verifier: pairs come to verifiers one after the other."""


RECONNECT_S, LONGEST_RECONNECT_S = 1.0, 30.0


class Retries:
    """How long a device that lost its verifier waits before it tries again: doubled each time it fails."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """A verifier is there."""
        self._next_s = RECONNECT_S

    async def wait(self) -> None:
        await asyncio.sleep(self._next_s)
        self._next_s = min(2 * self._next_s, LONGEST_RECONNECT_S)


class Misfits:
    """Of which refusals an answer's reader has heard: of each kind once, until a verifier goes on with the answer."""

    def __init__(self) -> None:
        self._told: set[Reason] = set()

    def news(self, error: HandshakeError) -> Reason | None:
        """What a reader is to be told of one of ``MISFITS``: nothing where another verifier may do."""
        reason = Reason.PAIR if isinstance(error, PairError) else Reason.EXACTNESS
        if reason in self._told or error.can_go_elsewhere:
            return None
        self._told.add(reason)
        return reason

    def forget(self) -> None:
        """A verifier is there again: what is refused from here on is news."""
        self._told.clear()


async def connected(connector: Connector | None) -> Link:
    """A stream to some verifier. Raises ``LinkError``, where none is configured, too."""
    if connector is None:
        raise LinkError("no verifier is configured")
    return await connector.connect()


def newest_of(error: HandshakeError) -> int:
    """Counter of the newest pair that a refusal tells of, 0 where it tells of none."""
    return max(error.served, default=0) if isinstance(error, PairError) else 0


async def with_one_after_another(converse: Callable[[], Awaitable[None]]) -> None:
    """Converse until the answer is over, each time that a verifier is lost with another, as long as there is one.

    Raises what the last stream ended with. Of a refusal behind a loss the loss is raised: the session was well where it was
    lost, and may be again. A refusal before any loss is nobody's to mend, and raised at once, unless another verifier may serve
    this pair.
    """
    lost: OutriderError | None = None
    while True:
        try:
            return await converse()
        except (*LOST, *REFUSED) as error:
            may_fit = isinstance(error, MISFITS) and error.can_go_elsewhere
            if lost is None and isinstance(error, REFUSED) and not may_fit:
                raise
            lost = _to_raise(lost, error)
            if not error.can_go_elsewhere:
                raise lost from None


def _to_raise(before: OutriderError | None, error: OutriderError) -> OutriderError:
    """Of several losses a full verifier says most: when to come back."""
    if before is None or isinstance(error, CapacityError):
        return error
    return before if isinstance(error, REFUSED) or isinstance(before, CapacityError) else error
