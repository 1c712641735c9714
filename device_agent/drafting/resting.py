"""When a device rests: messages of drafts that save less than they cost the verifier. Pure; times in seconds.

Beside a pass of a millisecond or two the message that brings drafts is not free: the verifier's loop reads it between two
passes. A drafted token that a pass accepts saves one pass. Where a message's accepted tokens are worth less than the message,
be it that the drafts are wrong or that they come too late, the device drafts for a few verdicts of many alone, so that it
learns when they are of use again.
"""

from __future__ import annotations

from device_agent.drafting.gathering import SHORTEST_PASS_S

MESSAGE_S = 2e-4
"""What a message costs the verifier, about (``docs/one-stream.md``: what gRPC adds, and a turn of the loop)."""

PROBE_PERIOD, PROBE_LENGTH = 128, 16
"""Of so many verdicts the first so many are drafted for in any case: enough in a row to get ahead of the verifier."""

WEIGHT = 1 / 16
"""Of the newest message."""


class Resting:
    """Passes that a message of drafts saved lately, over all streams of an agent; one to begin with."""

    def __init__(self) -> None:
        self.saved_passes = 1.0

    def sent(self) -> None:
        """A message of drafts went out."""
        self.saved_passes *= 1 - WEIGHT

    def saved(self, num_passes: int) -> None:
        """A pass accepted so many drafted tokens: as many passes are not needed any more."""
        self.saved_passes += WEIGHT * num_passes

    def is_due(self, num_verdicts: int, pass_s: float | None) -> bool:
        """Whether to leave drafting alone until the next verdict.

        Never where it is not known what a pass takes, and not beside long passes: drafts share messages there, and a message
        is next to nothing of a pass.
        """
        if not pass_s or pass_s >= SHORTEST_PASS_S or num_verdicts % PROBE_PERIOD < PROBE_LENGTH:
            return False
        return self.saved_passes * pass_s < MESSAGE_S
