"""Privacy labels: what may leave the device, said by whoever asks. Pure.

A label of a request counts for all of it. A label of a message counts for the whole request, too: every token of an answer is
chosen from the whole context, so what a message says cannot be kept here while the rest of the thinking is done elsewhere.
Leaving the message out of what the cloud reads would be another question with another answer, and is not done.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Privacy(StrEnum):
    """``open``: a verifier may read it. ``device_only``: it is answered on the device, and nothing of it is ever sent."""

    OPEN = "open"
    DEVICE_ONLY = "device_only"


def strictest(labels: Iterable[Privacy]) -> Privacy:
    """The label of what is made of all these."""
    return Privacy.DEVICE_ONLY if Privacy.DEVICE_ONLY in labels else Privacy.OPEN
