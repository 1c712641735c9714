"""When a device rests: drafts that are hardly ever right cost the verifier more than they save. Pure; times in seconds.

Beside a pass of a millisecond the message that brings a draft is not free: the verifier's loop reads it between two passes.
Where the passes that drafts save are worth less than that, the device drafts at every ``PROBE_EVERY``-th verdict alone, so that
it learns when its drafts are of use again.
"""

from __future__ import annotations

from device_agent.drafting.adaptive import SAVED_PASSES

MESSAGE_S = 2e-4
"""What a message costs the verifier, about (``docs/one-stream.md``: what gRPC adds, and a turn of the loop)."""

PROBE_EVERY = 16

WEIGHT = 1 / 32
"""Of the newest comparison."""


class Resting:
    """How often the draft was right lately, over all streams of an agent; even odds to begin with."""

    def __init__(self) -> None:
        self.acceptance = 0.5

    def compared(self, num_agreed: int, is_contradicted: bool) -> None:
        """Drafts met final tokens: so many agreed, and the one behind them perhaps did not."""
        self.acceptance = 1 - (1 - self.acceptance) * (1 - WEIGHT) ** num_agreed
        self.acceptance *= 1 - WEIGHT * is_contradicted

    def is_due(self, num_verdicts: int, pass_s: float | None) -> bool:
        """Whether to leave drafting alone until the next verdict; never where it is not known what a pass takes."""
        if not pass_s or num_verdicts % PROBE_EVERY == 0:
            return False
        return self.acceptance * SAVED_PASSES * pass_s < MESSAGE_S
