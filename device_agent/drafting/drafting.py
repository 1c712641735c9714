"""What all streams of one agent share when they draft: the draft model, the policy, and what was learned of the draft."""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.config import AgentConfig
from device_agent.drafting.calibration import Calibration
from device_agent.drafting.drafter import Drafter
from device_agent.drafting.quotes import Quotes
from device_agent.drafting.quoting import QuotingSteps
from device_agent.drafting.resting import Resting
from device_agent.drafting.share import Share
from device_agent.drafting.step import DraftSteps
from device_agent.drafting.turns import StepCost
from device_agent.pair import PairFacts
from speculation.engines.base import Engine
from speculation.engines.runner import EngineRunner
from speculation.protocol.device import DeviceSession


class Drafting:
    """Makes a drafter for each stream. It owns the draft model's runner from here on.

    ``phone`` holds the gauges of the phone that is emulated, or may be, and ``battery`` its battery; None where none can.
    """

    def __init__(self, runner: EngineRunner[Engine], config: AgentConfig) -> None:
        self.calibration = Calibration()
        self._resting = {is_greedy: Resting() for is_greedy in (False, True)}
        self._steps = DraftSteps(runner, config.draft_turns)
        self.phone = self._steps.phone.state
        self.battery = None if self.phone is None else config.battery(self.phone)
        self._policy = config.policy()
        self._depth = config.draft_depth
        self._num_choices = config.draft_choices
        self._is_gathering = config.draft_gather
        self._quote_share = config.rag_draft_share

    def drafter(self, session: DeviceSession, pair: PairFacts, share: Share, quotes: Sequence[int] = ()) -> Drafter:
        """A drafter for a session that has just begun, with what it may have of the phone. ``quotes``: tokens of documents that
        its drafts may quote."""
        is_quoting = bool(quotes) and self._quote_share > 0
        return Drafter(
            QuotingSteps(self._steps, session, Quotes(quotes, self._quote_share)) if is_quoting else self._steps,
            session,
            self._policy,
            self.calibration,
            pair.end_token_ids,
            self._depth,
            pair.draft_context_length,
            self._num_choices,
            self._is_gathering,
            self._resting[session.parameters.temperature == 0],
            share,
        )

    def step_cost(self) -> StepCost | None:
        """What steps cost now; None as long as that is not known."""
        return self._steps.cost_s if self._steps.phone.is_known or self._steps.step_s is not None else None

    @property
    def num_preempted(self) -> int:
        """Draft steps that were taken back."""
        return self._steps.num_preempted

    @property
    def num_branches(self) -> int:
        """Branches of a stream, each with a cache, that one step may extend beside a verifier."""
        return self._policy.width if self._steps.can_fork else 1

    async def aclose(self) -> None:
        """Give back the caches of streams that were cut off while they did so themselves."""
        await self._steps.close_rest()
