"""The agent's figures for Prometheus: what its streams count and wait for, its link, and its emulated phone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from prometheus_client.registry import Collector

from device_agent.config import AgentConfig
from device_agent.drafting.drafting import Drafting
from device_agent.emulation.live import LiveEmulation
from device_agent.events import DoneEvent, ErrorEvent, Event, Reason, StateEvent
from device_agent.figures import Counts, Meter
from device_agent.offer import PairOffer
from device_agent.pair import PairFacts
from device_agent.tasks.places import Places
from speculation.protocol.messages import FinishReason
from speculation.shaping.profiles import UNSHAPED
from speculation.telemetry.instruments import ANSWER_S, FIRST_TOKEN_S, TOKEN_S, Instruments, Renamed

PREFIX = "outrider_agent_"
CANCELLED, ERROR = FinishReason.CANCELLED.value, "error"
REASONS = (
    *(reason.value for reason in FinishReason if reason is not FinishReason.SHUTDOWN),
    Reason.OFFLINE.value,
    Reason.PAUSED.value,
    ERROR,
)
MET, MISSED = "met", "missed"
VLLM_REASONS = {"stop": "stop", "length": "length", CANCELLED: "abort", "deadline": "abort"}

Watch = Callable[[Sequence[Event]], None]


class AgentMetrics:
    """Told of each stream when it begins and ends; between the two it reads the stream's own meter. Lives on the event loop.

    Also what meters tell of waits. ``drafting`` has the gauges of an emulated phone, ``places`` who waits for one.
    """

    def __init__(self, pair: PairFacts, config: AgentConfig, drafting: Drafting, played: LiveEmulation, places: Places) -> None:
        self._phone, self._battery = drafting.phone, drafting.battery
        self._drafting, self._places = drafting, places
        self._targets = Counter({MET: 0, MISSED: 0})
        self._running: set[Meter] = set()
        self._before = Counts()
        self._num_streams = self._num_prompt = 0
        self._ended: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._refused: Counter[str] = Counter()
        self._rtt_s: float | None = None
        self._is_linked: bool | None = None
        self.offer = PairOffer(pair.identity.version)
        self._instruments = make = Instruments(PREFIX)
        self.registry = make.registry
        models = {"draft": pair.draft, "full": pair.full}
        make.info("The agent.", lambda: models | _machines(played) | {"version": metadata.version("outrider")})
        self._measure_streams()
        self._count_tokens()
        self._measure_link()
        self._measure_sharing()
        if config.metrics_compat is not None:
            make.also(self._vllm(), {"model_name": pair.full})

    # What the agent tells.

    def began(self, meter: Meter, num_prompt: int) -> None:
        """A stream begins whose prompt has so many tokens."""
        self._running.add(meter)
        self._num_streams += 1
        self._num_prompt += num_prompt

    def ended(self, meter: Meter, last: DoneEvent | ErrorEvent | None) -> None:
        """A stream is over; ``last`` None: it was cancelled. Only the first end counts."""
        if meter not in self._running:
            return
        self._running.discard(meter)
        self._before += meter.counts
        self._ended[_reason(last)] += 1
        if isinstance(last, DoneEvent):
            self._stream_s.observe(asyncio.get_running_loop().time() - meter.began_s)

    def told(self, events: Sequence[Event]) -> None:
        """These events go to a client; those of the link say how it is."""
        for event in events:
            if isinstance(event, StateEvent) and event.reason in (Reason.LINK, Reason.OFFLINE, Reason.BUSY):
                self._is_linked = event.reason == Reason.LINK
                if event.rtt_ms is not None:
                    self._rtt_s = event.rtt_ms / 1000

    def refused(self, status: int) -> None:
        """A request was answered with this HTTP status."""
        self._refused[str(status)] += 1

    def first_visible(self, wait_s: float) -> None:
        self._first_visible_s.observe(wait_s)

    def first_final(self, wait_s: float) -> None:
        self._first_final_s.observe(wait_s)

    def next_final(self, wait_s: float, count: int) -> None:
        """Tokens that come at once share the time since those before; each counts, so that the mean is that of tokens."""
        self._next_s.observe(wait_s / count, count)

    def offered(self, newest_pair: int) -> None:
        self.offer.told(newest_pair)

    def shared(self, queued_s: float, steps_waited_s: float, is_promise_kept: bool | None) -> None:
        self._queued_s.observe(queued_s)
        self._steps_waited_s.observe(steps_waited_s)
        if is_promise_kept is not None:
            self._targets[MET if is_promise_kept else MISSED] += 1

    # What is told of it.

    def _measure_streams(self) -> None:
        make = self._instruments
        self._streams = make.gauge("streams_running", "Answers that are being written.", self._num_written)
        make.counter("streams_started", "Answers that began.", lambda: self._num_streams)
        self._streams_ended = make.counter("streams_ended", "Answers that ended.", lambda: self._ended, "reason")
        make.counter("refusals", "Requests that were answered with an error.", lambda: self._refused, "status")
        self._first_visible_s = make.histogram("first_visible_seconds", "From a request to its first token.", FIRST_TOKEN_S)
        self._first_final_s = make.histogram("first_final_seconds", "From a request to its first final token.", FIRST_TOKEN_S)
        self._next_s = make.histogram("inter_token_seconds", "Between final tokens, for each behind the first.", TOKEN_S)
        self._stream_s = make.histogram("stream_seconds", "An answer as a whole.", ANSWER_S)

    def _count_tokens(self) -> None:
        make = self._instruments
        self._prompt = make.counter("prompt_tokens", "Tokens of prompts.", lambda: self._num_prompt)
        self._final = self._count("final_tokens", "Tokens that a verifier made final.", lambda c: c.final)
        self._count("drafted_tokens", "Tokens of the draft model.", lambda c: c.drafted)
        self._count("proposed_tokens", "Drafts that went to a verifier.", lambda c: c.proposed)
        self._count("accepted_tokens", "Drafts that equal what became final in their place.", lambda c: c.agreed)
        self._count("contradicted_tokens", "Drafts that do not.", lambda c: c.contradicted)
        self._count("verdicts", "Verdicts that came.", lambda c: c.passes)
        self._count("corrections", "Verdicts that contradicted a draft.", lambda c: c.corrections)
        self._count("shown_tokens", "Tentative tokens that clients were shown.", lambda c: c.speculative)
        self._count("revoked_tokens", "Of those, tokens that were withdrawn.", lambda c: c.revoked)
        self._count("revoked_after_read_tokens", "Of those, tokens that had been read.", lambda c: c.revoked_after_read)
        self._count("sent_bytes", "Messages to verifiers.", lambda c: c.sent_bytes)
        self._count("received_bytes", "Messages of verifiers.", lambda c: c.received_bytes)

    def _measure_link(self) -> None:
        make = self._instruments
        make.gauge("rtt_seconds", "From Open to Opened, of the newest stream.", lambda: self._rtt_s)
        make.gauge(
            "link_up", "Whether the newest word of a stream was from a verifier (1), or that none is there (0).", self._link
        )
        make.gauge("pair", "Counter of this agent's pair.", lambda: self.offer.have or None)
        make.gauge("offered_pair", "Counter of the newest pair that a verifier told of.", lambda: self.offer.offered)
        if self._phone is not None:
            make.gauge("thermal_status", "1 at the emulated phone's thermal status.", self._thermal, "status")
        if self._battery is not None:
            make.gauge("battery_percent", "How full the emulated phone's battery is.", self._battery_percent)

    def _measure_sharing(self) -> None:
        make, places = self._instruments, self._places
        make.gauge("streams_queued", "Answers that wait for a place.", lambda: places.num_waiting)
        make.gauge("streams_paused", "Answers that are paused.", lambda: places.num_paused)
        make.counter("preemptions", "Draft steps that were taken back for a first word.", lambda: self._drafting.num_preempted)
        make.counter("targets", "Answers that ended which were to have a rate of tokens.", lambda: self._targets, "outcome")
        self._queued_s = make.histogram("queued_seconds", "What an answer waited for its place.", ANSWER_S)
        self._steps_waited_s = make.histogram(
            "steps_waited_seconds", "What an answer's draft steps waited for those of others.", ANSWER_S
        )

    def _num_written(self) -> int:
        return max(0, len(self._running) - self._places.num_waiting)

    def _count(self, name: str, what: str, pick: Callable[[Counts], int]) -> Collector:
        return self._instruments.counter(name, what, lambda: pick(self._counts))

    @property
    def _counts(self) -> Counts:
        return sum((meter.counts for meter in self._running), self._before)

    def _link(self) -> float | None:
        return None if self._is_linked is None else float(self._is_linked)

    def _thermal(self) -> Mapping[str, float]:
        status = None if self._phone is None else self._phone.status
        return {} if status is None else {status: 1.0}

    def _battery_percent(self) -> float | None:
        return None if self._battery is None else self._battery.percent(asyncio.get_running_loop().time())

    def _vllm(self) -> list[Renamed]:
        """vLLM's names, of its version 1, for what means the same here: tokens are final ones. Of drafts the verifier tells."""
        return [
            Renamed(self._first_final_s, "vllm:time_to_first_token_seconds"),
            Renamed(self._next_s, "vllm:inter_token_latency_seconds"),
            Renamed(self._stream_s, "vllm:e2e_request_latency_seconds"),
            Renamed(self._streams, "vllm:num_requests_running"),
            Renamed(self._prompt, "vllm:prompt_tokens"),
            Renamed(self._final, "vllm:generation_tokens"),
            Renamed(self._streams_ended, "vllm:request_success", "finished_reason", VLLM_REASONS),
        ]


def _machines(played: LiveEmulation) -> dict[str, str]:
    return {"phone": played.phone or UNSHAPED, "network": played.network or UNSHAPED}


def both(told: Watch, watch: Watch | None) -> Watch:
    """What tells both."""
    if watch is None:
        return told

    def tell(events: Sequence[Event]) -> None:
        told(events)
        watch(events)

    return tell


def _reason(last: DoneEvent | ErrorEvent | None) -> str:
    if last is None:
        return CANCELLED
    return last.finish_reason if isinstance(last, DoneEvent) else ERROR
