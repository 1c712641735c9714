"""Messages that say nothing, for a tick on which nothing is to be said. Either end's session bears them as what they are.

Up it is a draft without nodes that knows nothing; down a verdict on the prompt's first token, which was final before.
"""

from __future__ import annotations

from speculation.protocol.messages import CloudMessage, DeviceMessage, Draft, Verdict, VerdictKind

FILLER_UP = Draft((), 0)


def filler_down(first_token_id: int) -> Verdict:
    """For a session whose prompt begins with that token."""
    return Verdict(0, 0, 0, first_token_id, VerdictKind.DECODED)


def is_filler(message: DeviceMessage | CloudMessage) -> bool:
    """No other draft knows nothing, and no other verdict is on the prompt's first token: a session begins behind it."""
    if isinstance(message, Draft):
        return message == FILLER_UP
    return isinstance(message, Verdict) and message.start == 0
