"""One answer's route: who writes it now, and whether somebody else shall from here on. Pure; times are arguments, in seconds.

Some things are no policy's to decide, and hold whatever policy is asked:

- What is labelled ``device_only`` is written on the device; the policy is not asked.
- Without a verifier the device writes.
- The device alone writes nothing for a reader who wants final text, or likelier text than this is (reveal ``stable``), and
  nothing that does not fit the draft's context.
- There is no way back: once a verifier was asked, all of the text is the full model's.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from device_agent.assignment import Assignment
from device_agent.drafting.branches import Branch
from device_agent.request import Mode, Reveal
from device_agent.routing.policy import Decision, LinkState, Reason, RoutingPolicy, View

RECENT_TOKENS = 8
"""Over so many drafts ``View.confidence`` is a mean: a word or two."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What is so around all answers of an agent at one moment; the fields are those of ``View``."""

    link: LinkState = LinkState.UNKNOWN
    rtt_ms: float | None = None
    thermal: str | None = None
    battery_percent: float | None = None


class Route:
    """Of an answer in mode ``auto``; of any other it is the mode that was asked for, and nothing is ever decided.

    ``assignment`` is the one given, its mode replaced by what was decided last. ``policy`` None: there is no verifier to ask.
    ``began_s`` is when the request came, ``look`` tells what is around it at a moment.
    """

    def __init__(
        self,
        assignment: Assignment,
        draft_context_length: int,
        policy: RoutingPolicy | None,
        look: Callable[[float], Surroundings],
        began_s: float,
    ) -> None:
        self.assignment = assignment
        self._policy = None if assignment.request.is_private else policy
        self._look = look
        self._deadline_s = _deadline_s(assignment, began_s)
        self._draft_room = draft_context_length - len(assignment.prompt)
        self._drafted_tokens, self._stability = 0, 1.0
        self._recent: deque[float] = deque(maxlen=RECENT_TOKENS)
        self.first = self._begun(began_s) if assignment.request.mode is Mode.AUTO else None
        self._is_auto = self.first is not None
        if self.first is not None:
            self._follow(self.first)

    def again(self, mode: Mode, grown: Sequence[Branch], now_s: float) -> Decision | None:
        """What changes now for an answer that is written in ``mode``; None: it goes on as it is. ``grown`` was drafted since
        the last time."""
        if not self._is_auto or self._policy is None:
            return None
        if mode is Mode.DEVICE and self.assignment.request.mode is not Mode.DEVICE:  # who was lost is waited for
            return None
        self._drafted([branch.chance for branch in grown])
        decision = self._decided(self._policy, mode, now_s)
        is_way_back = decision.mode is Mode.DEVICE and mode is not Mode.DEVICE
        if decision.mode is mode or is_way_back:
            return None
        self._follow(decision)
        return decision

    def _begun(self, now_s: float) -> Decision:
        if self.assignment.request.is_private:
            return Decision(Mode.DEVICE, Reason.PRIVATE)
        if self._policy is not None:
            return self._decided(self._policy, None, now_s)
        if self._is_for_verifier:
            return Decision(Mode.COLLABORATE, Reason.FINAL_ONLY)
        return Decision(Mode.DEVICE, Reason.ALONE)

    def _decided(self, policy: RoutingPolicy, mode: Mode | None, now_s: float) -> Decision:
        """What the policy says, as far as the device can do it."""
        decision, why_not = policy.decide(self._view(mode, now_s)), self._why_not_device()
        if decision.mode is Mode.DEVICE and why_not is not None:
            return Decision(Mode.COLLABORATE, why_not)
        return decision

    @property
    def _is_for_verifier(self) -> bool:
        """Whether the reader wants what the draft has not: final text alone, or log probabilities of the full model."""
        request = self.assignment.request
        return request.reveal is Reveal.FINAL or request.logprobs is not None

    def _why_not_device(self) -> Reason | None:
        request = self.assignment.request
        if self._is_for_verifier:
            return Reason.FINAL_ONLY
        if request.reveal is Reveal.STABLE and self._stability < request.min_stability:
            return Reason.UNSURE
        return Reason.NO_ROOM if self.assignment.max_tokens > self._draft_room else None

    def _view(self, mode: Mode | None, now_s: float) -> View:
        around = self._look(now_s)
        return View(
            prompt_tokens=len(self.assignment.prompt),
            max_tokens=self.assignment.max_tokens,
            draft_room=self._draft_room,
            mode=mode,
            drafted_tokens=self._drafted_tokens,
            stability=self._stability,
            confidence=sum(self._recent) / len(self._recent) if self._recent else 1.0,
            link=around.link,
            rtt_ms=around.rtt_ms,
            thermal=around.thermal,
            battery_percent=around.battery_percent,
            deadline_ms=None if self._deadline_s is None else 1000 * (self._deadline_s - now_s),
            priority=self.assignment.request.priority,
        )

    def _drafted(self, chances: Sequence[float]) -> None:
        self._drafted_tokens += len(chances)
        self._recent.extend(chances)
        for chance in chances:
            self._stability *= chance

    def _follow(self, decision: Decision) -> None:
        self.assignment = replace(self.assignment, request=replace(self.assignment.request, mode=decision.mode))


def _deadline_s(assignment: Assignment, began_s: float) -> float | None:
    deadline_ms = assignment.request.deadline_ms
    return None if deadline_ms is None else began_s + deadline_ms / 1000
