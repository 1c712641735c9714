"""What all answers of one agent share when it is decided who thinks: the policy, the link's newest word, the phone's gauges."""

from __future__ import annotations

from collections.abc import Sequence

from device_agent.assignment import Assignment
from device_agent.events import Event, Reason, StateEvent
from device_agent.routing.policy import LinkState, RoutingPolicy
from device_agent.routing.route import Route, Surroundings
from speculation.shaping.battery import Battery
from speculation.shaping.phone_state import PhoneState

_LINK_WORDS = {
    Reason.LINK.value: LinkState.UP,
    Reason.OFFLINE.value: LinkState.DOWN,
    Reason.BUSY.value: LinkState.DOWN,
}


class Router:
    """Makes a route for each answer. ``policy`` None: the agent has no verifier. ``phone`` and ``battery`` None: none is
    emulated, and nothing is known of them."""

    def __init__(self, policy: RoutingPolicy | None, phone: PhoneState | None, battery: Battery | None) -> None:
        self._policy = policy
        self._phone = phone
        self._battery = battery
        self._link = LinkState.UNKNOWN
        self._rtt_ms: float | None = None

    def told(self, events: Sequence[Event]) -> None:
        """These events go to a client; those of the link say how it is."""
        for event in events:
            if isinstance(event, StateEvent) and event.reason in _LINK_WORDS:
                self._link = _LINK_WORDS[event.reason]
                self._rtt_ms = self._rtt_ms if event.rtt_ms is None else event.rtt_ms

    def route(self, assignment: Assignment, draft_context_length: int, began_s: float) -> Route:
        """Of an answer that begins; its request came at ``began_s`` of the loop's clock."""
        return Route(assignment, draft_context_length, self._policy, self._look, began_s)

    def _look(self, now_s: float) -> Surroundings:
        return Surroundings(
            link=self._link,
            rtt_ms=self._rtt_ms,
            thermal=None if self._phone is None else self._phone.status_at(now_s),
            battery_percent=None if self._battery is None else self._battery.percent(now_s),
        )
