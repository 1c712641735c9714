"""Who is told what happens to a verifier's sessions: the seam that metrics hang on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from cloud_verifier.passes import Entry
from speculation.errors import OutriderError
from speculation.protocol.messages import Verdict

if TYPE_CHECKING:
    from cloud_verifier.live import LiveSession


class Observer(Protocol):
    """Told on the event loop, in the middle of its work: must neither wait nor raise. Times are seconds of the loop's clock."""

    def refused(self, error: OutriderError) -> None:
        """A stream ended before a session was made of it."""

    def opened(self, live: LiveSession) -> None:
        """A session began, or was taken over from an older attempt, which ends."""

    def passed(self, lives: Sequence[LiveSession], began_s: float, ended_s: float) -> None:
        """A pass over these sessions is over; what it chose is not settled yet. Some may have ended meanwhile."""

    def settled(self, live: LiveSession, entry: Entry, verdicts: Sequence[Verdict], now_s: float) -> None:
        """These verdicts of one pass go to the device now."""

    def ended(self, live: LiveSession, error: OutriderError | None) -> None:
        """A session is over, for every one that was opened once: in order, or with an error."""


class _Unobserved:
    def refused(self, error: OutriderError) -> None: ...

    def opened(self, live: LiveSession) -> None: ...

    def passed(self, lives: Sequence[LiveSession], began_s: float, ended_s: float) -> None: ...

    def settled(self, live: LiveSession, entry: Entry, verdicts: Sequence[Verdict], now_s: float) -> None: ...

    def ended(self, live: LiveSession, error: OutriderError | None) -> None: ...


UNOBSERVED: Observer = _Unobserved()
"""Tells nobody."""
