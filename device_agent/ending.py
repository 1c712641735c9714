"""How an answer ends: its last event, from what was counted, shown and told."""

from __future__ import annotations

from device_agent.assignment import Assignment
from device_agent.display import Display
from device_agent.events import DoneEvent
from device_agent.figures import Meter, usage_json
from speculation.errors import OutriderError
from speculation.protocol.device import DeviceSession


def done_event(
    seq: int, reason: str, assignment: Assignment, display: Display, meter: Meter, session: DeviceSession
) -> DoneEvent:
    """The ``done`` of an answer whose display is finished."""
    token_ids = display.token_ids
    # A verifier tells of its own stream; of an answer that took several only the device knows all.
    told = session.usage if session.attempt == 1 else None
    return DoneEvent(
        seq=seq,
        finish_reason=reason,
        prompt_token_ids=assignment.prompt,
        token_ids=token_ids,
        text=display.text,
        verified_count=display.num_final,
        usage=usage_json(len(assignment.prompt), len(token_ids), meter.usage(told)),
        figures=meter.report(len(token_ids), told),
    )


def cause(error: BaseException) -> BaseException:
    """The first error behind a group, and of several the one that says something."""
    while isinstance(error, BaseExceptionGroup):
        error = next((e for e in error.exceptions if isinstance(e, OutriderError)), error.exceptions[0])
    return error
