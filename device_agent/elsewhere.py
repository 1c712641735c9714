"""What follows when a verifier is lost in mid-answer and another is there at once: the session is opened again, there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from speculation.errors import AuthenticationError, CapacityError, HandshakeError, LinkError, OutriderError

LOST, REFUSED = (LinkError, CapacityError), (HandshakeError, AuthenticationError)
"""Errors of the link after which a device can go on alone (no verifier, or no room), and those that waiting does not mend."""


async def with_one_after_another(converse: Callable[[], Awaitable[None]]) -> None:
    """Converse until the answer is over, each time that a verifier is lost with another, as long as there is one.

    Raises what the last stream ended with. Of a refusal behind a loss the loss is raised: the session was well where it was
    lost, and may be again. A refusal before any loss is nobody's to mend, and raised at once.
    """
    lost: OutriderError | None = None
    while True:
        try:
            return await converse()
        except (*LOST, *REFUSED) as error:
            if lost is None and isinstance(error, REFUSED):
                raise
            lost = _to_raise(lost, error)
            if not error.can_go_elsewhere:
                raise lost from None


def _to_raise(before: OutriderError | None, error: OutriderError) -> OutriderError:
    """Of several losses a full verifier says most: when to come back."""
    if before is None or isinstance(error, CapacityError):
        return error
    return before if isinstance(error, REFUSED) or isinstance(before, CapacityError) else error
