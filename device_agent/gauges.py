"""What the gauges of an emulated phone tell of one answer: joules of drafting, the battery, a thermal status that changed."""

from __future__ import annotations

from device_agent.timeline import Timeline
from speculation.shaping.battery import Battery
from speculation.shaping.phone_state import PhoneState


class Gauges:
    """Reads the phone that all streams of an agent share; None where none is emulated. Begins with the answer.

    Joules are the phone's own, so beside an answer that is written at the same time they are those of both.
    """

    def __init__(self, phone: PhoneState | None, battery: Battery | None = None) -> None:
        self._phone = phone
        self._battery = battery
        self._joules_before = 0.0 if phone is None else phone.joules
        self._gaps_before = 0 if phone is None else phone.num_gaps
        self._told = None if phone is None else phone.coolest

    @property
    def thermal(self) -> str | None:
        """The thermal status as of the last work, in the words of the phone's system; None where no heat is emulated."""
        return None if self._phone is None else self._phone.status

    def thermal_at(self, now_s: float) -> str | None:
        """The thermal status at this time, where the phone may have rested since its last work."""
        return None if self._phone is None else self._phone.status_at(now_s)

    @property
    def joules(self) -> float | None:
        """What drafting took since the beginning; None where the phone has no figures of energy, or had none for a while."""
        if self._phone is None or not self._phone.has_energy or self._phone.num_gaps != self._gaps_before:
            return None
        return self._phone.joules - self._joules_before

    def show(self, timeline: Timeline | None, now_s: float) -> None:
        """Let who records them have what they show now."""
        if timeline is not None and self._phone is not None:
            timeline.gauges(self._phone, self.joules, now_s)

    def battery_percent(self, now_s: float) -> float | None:
        """How full the battery is; None where none is emulated."""
        return None if self._battery is None else self._battery.percent(now_s)

    def has_changed(self) -> bool:
        """Whether the status is another than when this was asked last; the first time, than that of a cool phone."""
        before, self._told = self._told, self.thermal
        return before != self._told
