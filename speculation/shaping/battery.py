"""The battery of an emulated phone: how full it is, from the joules that its gauges count. Pure; times are arguments.

Drafting empties it by what its steps cost, and time by what the phone draws anyway. The radio is not in it: what that draws
depends on the network and is told by plans (``outrider plan``). It is never charged, and runs on at 0: what an app should do
with a low battery is to be seen, not a phone that is off.
"""

from __future__ import annotations

from speculation.shaping.phone_state import PhoneState

JOULES_PER_WH = 3600.0


class Battery:
    """A battery of ``capacity_wh`` that is ``full_percent`` full when it is first asked."""

    def __init__(self, phone: PhoneState, capacity_wh: float, full_percent: float) -> None:
        self._phone = phone
        self._capacity_j = capacity_wh * JOULES_PER_WH
        self._full_percent = full_percent
        self._began_j: float | None = None

    def percent(self, now_s: float) -> float:
        """How full it is now, 0 to 100."""
        idle_j = self._phone.idle_j(now_s)
        if self._began_j is None:
            self._began_j = idle_j
        used_j = self._phone.joules + idle_j - self._began_j
        return max(0.0, self._full_percent - 100 * used_j / self._capacity_j)
