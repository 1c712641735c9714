"""The figures of one stream: counted while it runs, worked out once, when it ends. Time is handed in. Pure.

Every figure carries its unit and its basis: ``measured`` on this machine, or ``emulated`` where a phone, a network or a cloud
machine is played (then what it counts depends on emulated time too: a slower draft proposes less).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from device_agent.events import SHOWN, Event, Json, RevokeEvent, SpeculativeEvent
from device_agent.reading import Reader
from device_agent.tasks.target import Target
from device_agent.timeline import Timeline
from speculation.links.base import LinkStatistics
from speculation.protocol.messages import Usage, Verdict, VerdictKind


@dataclass(frozen=True, slots=True)
class Counts:
    """What a stream, or several, counted up to now. ``drafted`` came from draft steps, ``proposed`` were sent;
    ``agreed`` and ``contradicted`` stood where tokens became final."""

    drafted: int = 0
    proposed: int = 0
    passes: int = 0
    agreed: int = 0
    contradicted: int = 0
    corrections: int = 0
    final: int = 0
    speculative: int = 0
    revoked: int = 0
    revoked_after_read: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*[getattr(self, name) + getattr(other, name) for name in self.__slots__])


class Waits(Protocol):
    """Is told how long a reader waited, in seconds, and what a verifier says of its pairs."""

    def first_visible(self, wait_s: float) -> None: ...

    def first_final(self, wait_s: float) -> None: ...

    def next_final(self, wait_s: float, count: int) -> None:
        """``count`` final tokens at once, ``wait_s`` behind those before."""

    def offered(self, newest_pair: int) -> None:
        """The counter of the newest pair that a verifier serves, 0 where it does not tell."""

    def shared(self, queued_s: float, steps_waited_s: float, is_promise_kept: bool | None) -> None:
        """Of an answer that ended: what it waited for its place and for others' draft steps, and whether the rate that it was
        promised was kept; None where none was."""


class _Untold:
    def first_visible(self, wait_s: float) -> None: ...

    def first_final(self, wait_s: float) -> None: ...

    def next_final(self, wait_s: float, count: int) -> None: ...

    def offered(self, newest_pair: int) -> None: ...

    def shared(self, queued_s: float, steps_waited_s: float, is_promise_kept: bool | None) -> None: ...


UNTOLD: Waits = _Untold()


class Meter:
    """Counts what happens in one stream. Times are seconds of the loop's clock. ``timeline`` is told of it, where there is one.

    Figures are emulated as soon as anything was at any time of the answer. ``target`` is there where a rate was asked for.
    """

    def __init__(self, began_s: float, is_emulated: bool, waits: Waits = UNTOLD, timeline: Timeline | None = None) -> None:
        self.began_s = self._began_s = began_s
        self.timeline = timeline
        self._waits = waits
        self._is_emulated = is_emulated
        self._num_changes = 0
        self._first_visible_s: float | None = None
        self._first_final_s: float | None = None
        self._last_token_s = self._last_final_s = began_s
        self._num_speculative = 0
        self._num_revoked = 0
        self._num_revokes = 0
        self._reader = Reader()
        self._num_final = 0
        self._passes = self._accepted = self._corrections = 0
        self._num_agreed = self._num_contradicted = 0
        self.draft_steps = 0
        self.proposed = 0
        self.links: list[LinkStatistics] = []
        self.joules: float | None = None
        self.battery_percent: float | None = None
        self.target: Target | None = None
        self._shared: dict[str, tuple[float | None, str]] = {}
        # Of all pauses that are over, and of those before the last token.
        self._paused_s = self._paused_before_s = 0.0

    def emulation_changed(self, is_emulated: bool) -> None:
        """What is played became something else, in the middle of this answer."""
        self._num_changes += 1
        self._is_emulated = self._is_emulated or is_emulated

    def broke_off(self, now_s: float, paused_s: float) -> None:
        """A pause begins, or ends after ``paused_s``: it is no wait between tokens."""
        self._last_final_s = now_s
        self._paused_s += paused_s
        if self.target is not None:
            self.target.held(paused_s)

    def shared(self, queued_s: float, steps_waited_s: float, paused_s: float) -> None:
        """How the answer shared its phone with others, all in all: told once, when it ends."""
        target = self.target
        self._waits.shared(queued_s, steps_waited_s, None if target is None else target.is_met)
        self._shared = {"queued_ms": (queued_s * 1000, "ms"), "steps_waited_ms": (steps_waited_s * 1000, "ms")}
        if target is not None:
            self._shared |= {
                "target_tokens_per_s": (target.tokens_per_s, "tokens/s"),
                "achieved_tokens_per_s": (target.achieved_per_s, "tokens/s"),
                "target_late_ms": (target.late_s * 1000, "ms"),
            }
        if paused_s:
            self._shared["paused_ms"] = (paused_s * 1000, "ms")

    @property
    def behind_first(self) -> tuple[int, float]:
        """Tokens behind the first, and the seconds in which they came."""
        began_s = self._last_token_s if self._first_visible_s is None else self._first_visible_s
        return max(0, self._num_final - 1), self._last_token_s - began_s

    def drafted(self, began_s: float, now_s: float, count: int) -> None:
        """A draft step gave the main branch so many tokens."""
        self.draft_steps += count
        if self.timeline is not None and (count or now_s > began_s):
            self.timeline.drafted(began_s, now_s, count)

    def opened(self, rtt_s: float, newest_pair: int, now_s: float) -> None:
        """A verifier took the session, so long after it was asked, and told of its newest pair."""
        self.offered(newest_pair)
        if self.timeline is not None:
            self.timeline.opened(rtt_s, now_s)

    def showed(self, events: Sequence[Event], now_s: float) -> None:
        """Events that go to the client now."""
        self._reader.follow(events, now_s)
        if self.target is not None:
            self.target.showed(events, now_s)
        for event in events:
            if isinstance(event, SHOWN) and self._first_visible_s is None:
                self._first_visible_s = now_s
                self._waits.first_visible(now_s - self._began_s)
            if isinstance(event, SpeculativeEvent):
                self._num_speculative += len(event.token_ids)
                self._came(now_s)
            elif isinstance(event, RevokeEvent):
                self._num_revokes += 1
                self._num_revoked += event.count

    def verdict(self, verdict: Verdict, num_tokens: int, now_s: float) -> None:
        """A verdict that made ``num_tokens`` tokens final."""
        if self.timeline is not None:
            self.timeline.verdict(verdict, now_s)
        self._passes += 1
        self._accepted += verdict.count
        self._corrections += verdict.kind is VerdictKind.REVOKE_AND_CORRECT
        if num_tokens:
            self._tell_wait(num_tokens, now_s)
            self._last_final_s = now_s
            self._came(now_s)
            self._num_final += num_tokens

    def _came(self, now_s: float) -> None:
        """A token did."""
        self._last_token_s, self._paused_before_s = now_s, self._paused_s

    def _tell_wait(self, num_tokens: int, now_s: float) -> None:
        if self._first_final_s is None:
            self._first_final_s = now_s
            self._waits.first_final(now_s - self._began_s)
        else:
            self._waits.next_final(now_s - self._last_final_s, num_tokens)

    def offered(self, newest_pair: int) -> None:
        """A verifier told of its newest pair."""
        self._waits.offered(newest_pair)

    def compared(self, num_agreed: int, is_contradicted: bool) -> None:
        """Drafts that stood where tokens became final. Behind the first that was wrong none counts: it had no chance."""
        self._num_agreed += num_agreed
        self._num_contradicted += is_contradicted

    @property
    def counts(self) -> Counts:
        """Everything that is counted, as of now."""
        return Counts(
            self.draft_steps,
            self.proposed,
            self._passes,
            self._num_agreed,
            self._num_contradicted,
            self._corrections,
            self._num_final,
            self._num_speculative,
            self._num_revoked,
            self._reader.num_revoked_after_read,
            sum(link.sent_bytes for link in self.links),
            sum(link.received_bytes for link in self.links),
        )

    def usage(self, told: Usage | None) -> Usage:
        """What the verifier told of its work; where it could not tell, what its verdicts show."""
        if told is not None:
            return told
        return Usage(passes=self._passes, proposed=self.proposed, accepted=self._accepted, corrections=self._corrections)

    def report(self, num_tokens: int, told: Usage | None) -> Json:
        """All figures of an answer of ``num_tokens`` tokens; one that has no meaning here is null."""
        usage = self.usage(told)
        values: dict[str, tuple[float | None, str]] = {
            "first_visible_ms": (self._since_began_ms(self._first_visible_s), "ms"),
            "first_final_ms": (self._since_began_ms(self._first_final_s), "ms"),
            "tokens_per_s": (_ratio(num_tokens, self._last_token_s - self._began_s - self._paused_before_s), "tokens/s"),
            "passes_per_token": (_ratio(usage.passes, self._num_final), "passes/token"),
            "acceptance": (_ratio(self._num_agreed, self._num_agreed + self._num_contradicted), "share"),
            "revoked_share": (_ratio(self._num_revoked, self._num_speculative), "share"),
            "revoke_depth": (_ratio(self._num_revoked, self._num_revokes), "tokens"),
            "normalised_erasure": (_ratio(self._num_revoked, num_tokens), "tokens/token"),
            "revoked_after_read": (_ratio(self._reader.num_revoked_after_read, self._num_revoked), "share"),
            "messages_up": (sum(link.sent_messages for link in self.links), "messages"),
            "bytes_up": (sum(link.sent_bytes for link in self.links), "bytes"),
            "bytes_down": (sum(link.received_bytes for link in self.links), "bytes"),
            "draft_steps": (self.draft_steps, "steps"),
        }
        if self.joules is not None:  # only where a phone is emulated that says what its work costs
            values |= {
                "draft_joules": (self.joules, "J"),
                "joules_per_drafted_token": (_ratio(self.joules, self.draft_steps), "J/token"),
                "joules_per_token": (_ratio(self.joules, num_tokens), "J/token"),
            }
        if self.battery_percent is not None:
            values |= {"battery_percent": (self.battery_percent, "%")}
        values |= self._shared
        if self._num_changes:  # else the answer is that of the phone, network and cloud that it began with
            values["emulation_changes"] = (self._num_changes, "changes")
        return {name: self._figure(value, unit) for name, (value, unit) in values.items()}

    def _figure(self, value: float | None, unit: str) -> dict[str, Any]:
        rounded = round(value, 4) if isinstance(value, float) else value
        return {"value": rounded, "unit": unit, "basis": "emulated" if self._is_emulated else "measured"}

    def _since_began_ms(self, moment_s: float | None) -> float | None:
        return None if moment_s is None else (moment_s - self._began_s) * 1000


def usage_json(prompt_tokens: int, completion_tokens: int, usage: Usage) -> Json:
    """Token counts under OpenAI's names (tokens that were delivered), and the verifier's work in the field's words."""
    work = ("passes", "proposed", "accepted", "late", "corrections", "bonus", "discarded", "near_ties")
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    } | {name: getattr(usage, name) for name in work}


def _ratio(count: float, total: float) -> float | None:
    return count / total if total > 0 else None
