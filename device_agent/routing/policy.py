"""What a routing policy is: what it sees, what it may answer, and the reasons that an answer's reader is told. Pure.

The device is fast and small, the cloud deep and far: System 1 and System 2 (``docs/routing.md``). A policy is asked before
anything is written, then again after each draft step and each verdict. What it may not decide is kept from it by ``route.py``:
what is labelled ``device_only`` never gets here at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from device_agent.request import Mode


class Reason(StrEnum):
    """Why an answer is written as it is: what a ``state`` event says of a decision."""

    PRIVATE = "private"
    ALONE = "alone"
    SWIFT = "swift"
    DEADLINE = "deadline"
    UNSURE = "unsure"
    FINAL_ONLY = "final_only"
    NO_ROOM = "no_room"
    LONG_PROMPT = "long_prompt"
    LONG_ANSWER = "long_answer"
    HOT = "hot"
    BATTERY = "battery"
    RESTED = "rested"


MEANINGS: Mapping[Reason, str] = MappingProxyType(
    {
        Reason.PRIVATE: "The request, or a message of it, is labelled device_only: it is answered here and never leaves.",
        Reason.ALONE: "This agent has no verifier.",
        Reason.SWIFT: "The device begins at once; it is asked again after every draft step whether it is still sure.",
        Reason.DEADLINE: "The deadline is nearer than a verifier's answer.",
        Reason.UNSURE: "What the draft wrote is no longer likely enough to be the full model's text.",
        Reason.FINAL_ONLY: "The reader wants final text alone, or log probabilities, which a verifier makes.",
        Reason.NO_ROOM: "Prompt and answer do not fit the draft's context.",
        Reason.LONG_PROMPT: "The prompt is long: the device would read it for longer than a verifier does.",
        Reason.LONG_ANSWER: "The answer may be long: a draft that writes for long is hardly ever right to the end.",
        Reason.HOT: "The phone is hot: drafting would heat it further, and is slow.",
        Reason.BATTERY: "The battery is low: drafting would empty it.",
        Reason.RESTED: "What kept the device from drafting is over.",
    }
)
"""A sentence for each reason, as ``docs/routing.md`` has it."""


class LinkState(StrEnum):
    """What the newest word of any stream of this agent was: from a verifier, that none is there, or none yet."""

    UNKNOWN = "unknown"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True)
class View:
    """What a policy decides from; None is what nobody knows.

    ``mode`` is how the answer is written now, None before it began. ``draft_room`` are the tokens that the draft's context has
    behind the prompt. ``drafted_tokens`` counts what the device has written; ``stability`` is how likely all of it is the full
    model's text, by confidences that verdicts calibrated, and ``confidence`` the mean chance of the last few tokens. ``rtt_ms``
    is from ``Open`` to ``Opened`` of the newest stream, ``thermal`` the thermal status in the words of the phone's system,
    ``deadline_ms`` what is left until the deadline.
    """

    prompt_tokens: int
    max_tokens: int
    draft_room: int
    mode: Mode | None = None
    drafted_tokens: int = 0
    stability: float = 1.0
    confidence: float = 1.0
    link: LinkState = LinkState.UNKNOWN
    rtt_ms: float | None = None
    thermal: str | None = None
    battery_percent: float | None = None
    deadline_ms: float | None = None
    priority: int = 0

    @property
    def is_verified(self) -> bool:
        """Whether a verifier has been asked: then all of the text is to be the full model's, and there is no way back."""
        return self.mode in (Mode.COLLABORATE, Mode.CLOUD)


@dataclass(frozen=True, slots=True)
class Decision:
    """``mode`` is one of ``device``, ``collaborate`` and ``cloud``. Raises ``ValueError`` for ``auto``, which is none."""

    mode: Mode
    reason: Reason

    def __post_init__(self) -> None:
        if self.mode is Mode.AUTO:
            raise ValueError("a decision is device, collaborate or cloud; auto is the question")


class RoutingPolicy(Protocol):
    """Give an object with this one method to ``outrider.DeviceAgent(routing=...)`` to replace the default."""

    def decide(self, view: View) -> Decision:
        """Who thinks from here on. The same view must get the same answer."""
