"""What one stream believes of its drafts, and what verdicts teach it. Pure."""

from __future__ import annotations

from device_agent.drafting.branches import Branch, Proposal, Settled
from device_agent.drafting.calibration import Calibration
from device_agent.drafting.policy import Pace


class Beliefs:
    """``calibration`` is shared by all streams of a draft model; what was copied says nothing of that model."""

    def __init__(self, calibration: Calibration, is_greedy: bool) -> None:
        self.pace = Pace()
        self._calibration = calibration
        self._is_greedy = is_greedy

    def chances(self, proposal: Proposal) -> list[float]:
        """Of each choice, given the draft that it follows, by what is known now."""
        if proposal.is_copied:
            return list(proposal.confidences)
        return self._calibration.chances(proposal, self._is_greedy)

    def chance(self, branch: Branch) -> float:
        """Of a draft, given the one before it, by what is known now."""
        if branch.parent is None or branch.parent.proposal is None:
            return branch.chance
        return self.chances(branch.parent.proposal)[branch.choice]

    def learn(self, settled: Settled) -> None:
        """Tokens became final: what was drafted in their places was right or not."""
        if not settled.compared:
            return
        for proposal, token_id in settled.compared:
            if not proposal.is_copied:
                self._calibration.observe(proposal, token_id, self._is_greedy)
        self.pace.compared(len(settled.agreed), settled.contradicted is not None)
