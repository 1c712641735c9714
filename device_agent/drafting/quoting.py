"""Draft steps of a stream whose drafts may quote documents: its steps go into the same batches, and look up what followed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from device_agent.drafting.branches import Proposal
from device_agent.drafting.caches import Slot
from device_agent.drafting.quotes import Quotes
from device_agent.drafting.step import Step
from speculation.engines.lookup import LONGEST_ENDING
from speculation.protocol.device import DeviceSession


class Steps(Protocol):
    """What a drafter needs of ``DraftSteps``."""

    @property
    def can_fork(self) -> bool: ...

    @property
    def burst(self) -> int: ...

    @property
    def step_s(self) -> float | None: ...

    async def run(self, step: Step) -> list[list[Proposal]]: ...

    async def close(self, slots: Sequence[Slot]) -> None: ...


class QuotingSteps:
    """The steps of one session, each told what it may quote and how the text ends before each of its feeds."""

    def __init__(self, steps: Steps, session: DeviceSession, quotes: Quotes) -> None:
        self._steps = steps
        self._session = session
        self._quotes = quotes

    @property
    def can_fork(self) -> bool:
        return self._steps.can_fork

    @property
    def burst(self) -> int:
        return self._steps.burst

    @property
    def step_s(self) -> float | None:
        return self._steps.step_s

    async def run(self, step: Step) -> list[list[Proposal]]:
        step.quotes, step.endings = self._quotes, [self._ending(feed.slot) for feed in step.feeds]
        return await self._steps.run(step)

    async def close(self, slots: Sequence[Slot]) -> None:
        await self._steps.close(slots)

    def _ending(self, slot: Slot) -> list[int]:
        """The last tokens of what the slot will hold once it is fed."""
        final = self._session.final[max(0, slot.num_final - LONGEST_ENDING) : slot.num_final]
        return [*final, *slot.tail][-LONGEST_ENDING:]
