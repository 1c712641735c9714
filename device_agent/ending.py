"""How an answer ends: its last event, from what was counted, shown and told."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from device_agent.assignment import Assignment
from device_agent.display import Display
from device_agent.drafting.drafter import Drafter
from device_agent.events import DoneEvent, Event, Reason
from device_agent.figures import Meter, usage_json
from device_agent.pair import PairFacts
from speculation.errors import OutriderError
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import FinishReason

STOP, LENGTH = FinishReason.STOP.value, FinishReason.LENGTH.value
OFFLINE, PAUSED = Reason.OFFLINE.value, Reason.PAUSED.value


def end_of_tail(assignment: Assignment, display: Display, drafter: Drafter, pair: PairFacts) -> str | None:
    """Why a device that writes alone is at its end; None where it is not."""
    num_generated = drafter.length - len(assignment.prompt)
    if display.is_holding:  # what is not shown cannot be the end of the text
        return OFFLINE
    if display.is_stopped or (num_generated and drafter.last_token_id in pair.end_token_ids):
        return STOP
    if drafter.length >= assignment.limit:
        return LENGTH
    # An answer that is the device's own fits its context: where this one does not, a verifier was to write it.
    is_full = drafter.length > pair.draft_context_length
    return OFFLINE if is_full or tail_room(assignment, drafter) <= 0 else None


def tail_room(assignment: Assignment, drafter: Drafter) -> int:
    """Tokens that a device which writes alone may still add."""
    return assignment.max_tail - len(drafter.branches.main)


def finished(reason: str, display: Display, max_drafts: int | None) -> tuple[list[Event], str]:
    """What ends the display, and why the answer ends. ``max_drafts`` may stay of what a device wrote alone; None: it did not.

    Where more were drafted than may stay, before the verifier was lost, or than may be shown, that is what ends the text, and
    not the stop string, the end token or the limit that nobody gets to see.
    """
    is_cut = max_drafts is not None and (display.num_drafts > max_drafts or display.is_holding)
    events = display.finish(max_drafts or 0)
    reason = STOP if display.is_stopped else reason
    return events, OFFLINE if is_cut and reason in (STOP, LENGTH) else reason


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


async def until_one_ends(tasks: asyncio.TaskGroup, *works: Coroutine[Any, Any, None]) -> None:
    """Do all at once until one of them is done; the others are cancelled."""
    running = [tasks.create_task(work) for work in works]
    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in running:
        task.cancel()
