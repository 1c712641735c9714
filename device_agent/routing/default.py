"""The default policy: a list of rules, the first that holds decides. Pure. ``docs/routing.md`` has it as a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from device_agent.request import Mode
from device_agent.routing.policy import Decision, LinkState, Reason, View
from speculation.shaping.phones import ANDROID_WORDS, IOS_WORDS

HOT_WORDS = frozenset(IOS_WORDS[IOS_WORDS.index("serious") :] + ANDROID_WORDS[ANDROID_WORDS.index("SEVERE") :])
"""Thermal statuses at which both systems ask apps to do less; below them a phone is warm and works on."""

ROUND_TRIPS_TO_ANSWER = 2
"""Of a verifier: one until the session is open, one until a verdict is here."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the rules compare with; the settings ``auto_...`` of an agent. ``stability`` 0 is a draft that is never unsure."""

    stability: float = 0.5
    prompt_tokens: int = 1024
    answer_tokens: int = 256
    battery_percent: float = 20.0


@dataclass(frozen=True, slots=True)
class ByRules:
    """Spares a phone that is hot or empty, asks a verifier where the draft alone will hardly do, and is swift elsewhere."""

    thresholds: Thresholds = Thresholds()

    def decide(self, view: View) -> Decision:
        return next(Decision(mode, reason) for holds, mode, reason in self._rules if holds(view))

    @property
    def _rules(self) -> Sequence[tuple[Callable[[View], bool], Mode, Reason]]:
        least = self.thresholds
        return (
            (_is_due, Mode.DEVICE, Reason.DEADLINE),
            (lambda view: _may_lean_on_cloud(view) and view.thermal in HOT_WORDS, Mode.CLOUD, Reason.HOT),
            (lambda view: _may_lean_on_cloud(view) and self._is_empty(view), Mode.CLOUD, Reason.BATTERY),
            (lambda view: view.is_verified, Mode.COLLABORATE, Reason.RESTED),
            (lambda view: view.prompt_tokens > least.prompt_tokens, Mode.COLLABORATE, Reason.LONG_PROMPT),
            (lambda view: view.max_tokens > least.answer_tokens, Mode.COLLABORATE, Reason.LONG_ANSWER),
            (lambda view: view.stability < least.stability, Mode.COLLABORATE, Reason.UNSURE),
            (lambda view: True, Mode.DEVICE, Reason.SWIFT),
        )

    def _is_empty(self, view: View) -> bool:
        return view.battery_percent is not None and view.battery_percent < self.thresholds.battery_percent


def _may_lean_on_cloud(view: View) -> bool:
    """A phone that has just lost its verifier writes on, hot or not: nobody else would."""
    return view.link is not LinkState.DOWN


def _is_due(view: View) -> bool:
    """Whether nothing final would come in time, and the text so far is not a verifier's yet."""
    if view.deadline_ms is None or view.rtt_ms is None or view.is_verified:
        return False
    return view.deadline_ms < ROUND_TRIPS_TO_ANSWER * view.rtt_ms
