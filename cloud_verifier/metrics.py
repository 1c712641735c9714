"""The verifier's figures for Prometheus: an observer that counts, and the instruments that tell what it counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from importlib import metadata

from cloud_verifier.counts import Counts, Times
from cloud_verifier.live import LiveSession
from cloud_verifier.pairs import Pairs
from cloud_verifier.passes import Entry
from cloud_verifier.verification import Verifier
from speculation.errors import STATUS, OutriderError, PairError, status_of
from speculation.protocol.messages import FinishReason, Verdict, VerdictKind
from speculation.telemetry.choices import Compat
from speculation.telemetry.instruments import ANSWER_S, FIRST_TOKEN_S, TOKEN_S, Instruments, Renamed

PREFIX = "outrider_verifier_"
COMPLETE = (FinishReason.STOP, FinishReason.LENGTH)
"""Ends of a session that was written to its end: only then does what it took as a whole mean something."""
ORDERS = ("older", "newer", "other")
VLLM_REASONS = {"stop": "stop", "length": "length"} | dict.fromkeys(
    ("cancelled", "shutdown", "deadline", "deadline_exceeded", "unavailable", "aborted"), "abort"
)


class VerifierMetrics:
    """Observes a verifier, or all pairs of one, from its construction on; ``registry`` tells what it saw. ``compat`` adds names
    of vLLM's. Figures without the label ``pair`` are those of all pairs together."""

    def __init__(self, verifier: Verifier | Pairs, model_name: str, compat: Compat | None = None) -> None:
        self._pairs = pairs = verifier if isinstance(verifier, Pairs) else Pairs.of(verifier)
        self._sessions: dict[LiveSession, Times] = {}
        self._num_waiting = 0
        statuses = {status.grpc.lower() for status in STATUS.values()}
        self._counts = Counts.zero(statuses, [reason.value for reason in FinishReason])
        self._instruments = make = Instruments(PREFIX)
        make.info("The verifier.", lambda: {"model_name": model_name, "version": metadata.version("outrider")})
        self._measure_passes()
        self._measure_sessions()
        self._count_drafts()
        self._measure_tenants()
        self._measure_pairs()
        if compat is not None:
            make.also(self._vllm(), {"model_name": model_name})
        self.registry = make.registry
        pairs.observe(self)

    # What the verifier tells.

    def refused(self, error: OutriderError) -> None:
        self._counts.refused[_status(error)] += 1
        if isinstance(error, PairError):
            self._counts.refused_pairs[order_of(error)] += 1

    def opened(self, live: LiveSession) -> None:
        self._sessions[live] = Times(asyncio.get_running_loop().time())
        self._num_waiting += 1
        self._counts.opened += 1
        self._counts.opened_by_pair[str(live.pair)] += 1
        self._counts.prompt_tokens += len(live.state.final)

    def passed(self, lives: Sequence[LiveSession], began_s: float, ended_s: float) -> None:
        self._pass_s.observe(ended_s - began_s)
        if not self._num_waiting:  # most passes: nobody is in one for the first time
            return
        for live in lives:
            if (times := self._sessions.get(live)) is not None:
                self._entered(live, times)

    def settled(self, live: LiveSession, entry: Entry, verdicts: Sequence[Verdict], now_s: float) -> None:
        counts, num_tokens = self._counts, 0
        for verdict in verdicts:
            num_tokens += verdict.count + (verdict.choice is not None)
            counts.corrections += verdict.kind is VerdictKind.REVOKE_AND_CORRECT
        counts.final_tokens[live.account.tenant.name] += num_tokens
        counts.near_ties += entry.near_ties
        if entry.drafted:
            counts.chain(len(entry.drafted), entry.num_agreed)
        times = self._sessions[live]
        self._entered(live, times)  # what was settled is told before its pass is where that comes first which ends the session
        self._chose(times, num_tokens, now_s)

    def ended(self, live: LiveSession, error: OutriderError | None) -> None:
        times, finished = self._sessions.pop(live), live.state.finished
        self._entered(live, times)
        self._num_waiting -= times.entered_s is None
        is_orderly = error is None and finished is not None
        self._counts.ended[finished.reason.value if is_orderly and finished else _status(error)] += 1
        if is_orderly and finished and finished.reason in COMPLETE and times.decode_s is not None:
            self._session_s.observe(asyncio.get_running_loop().time() - times.opened_s)
            self._decode_s.observe(times.decode_s)
            if times.token_s is not None:
                self._token_s.observe(times.token_s)

    def _entered(self, live: LiveSession, times: Times) -> None:
        """Once a session is seen to have been in a pass, it waited until then."""
        if times.entered_s is None and live.entered_s is not None:
            times.entered_s = live.entered_s
            self._num_waiting -= 1
            self._queue_s.observe(live.entered_s - times.opened_s)

    def _chose(self, times: Times, num_tokens: int, now_s: float) -> None:
        """Tokens that come at once share the time since those before them; each counts, so that the mean is that of tokens."""
        if times.first_s is None:
            times.first_s = now_s
            self._first_s.observe(now_s - times.opened_s)
            self._prefill_s.observe(now_s - (now_s if times.entered_s is None else times.entered_s))
        else:
            self._next_s.observe((now_s - times.last_s) / num_tokens, num_tokens)
        times.last_s = now_s
        times.num_tokens += num_tokens

    # What is told of it.

    def _measure_passes(self) -> None:
        make, told = self._instruments, self._pairs.statistics
        make.counter("passes", "Forwards of the full model.", lambda: told.passes)
        make.counter("rows", "Tokens fed to the full model, prompts included.", lambda: told.rows)
        self._pass_s = make.histogram("pass_seconds", "What a pass took, its wait for the engine included.", TOKEN_S)
        make.gauge("patience_seconds", "How long a session is waited for now.", lambda: self._pairs.newest.patience_s)
        make.counter("received_bytes", "Messages of devices.", lambda: told.received_bytes)
        make.counter("sent_bytes", "Messages to devices.", lambda: told.sent_bytes)
        models = [verifier.description for verifier in self._pairs.verifiers]
        places = sum(model.num_slots * model.context_length for model in models)
        make.gauge("slots", "Caches that there are.", lambda: sum(model.num_slots for model in models))
        make.gauge("slots_used", "Caches in use.", lambda: sum(live.cache is not None for live in self._sessions))
        make.gauge(
            "cache_bytes",
            "Memory of caches as the setting cache_bytes counts it, by size class; 0 without that setting.",
            self._taken_bytes,
            "context",
        )
        self._cache = make.gauge(
            "cache_usage_ratio",
            "Tokens in caches, as a share of what fits in all of them.",
            lambda: sum(live.cached for live in self._sessions) / places,
        )

    def _measure_sessions(self) -> None:
        make, counts = self._instruments, self._counts
        self._running = make.gauge(
            "sessions_running", "Sessions that were in a pass.", lambda: len(self._sessions) - self._num_waiting
        )
        self._waiting = make.gauge("sessions_waiting", "Sessions before their first pass.", lambda: self._num_waiting)
        make.counter("sessions_opened", "Sessions that began, each attempt for itself.", lambda: counts.opened)
        self._ended = make.counter("sessions_ended", "Sessions that ended.", lambda: counts.ended, "reason")
        make.counter("refusals", "Streams that got no session.", lambda: counts.refused, "status")
        self._first_s = make.histogram("first_token_seconds", "From a session's beginning to its first choice.", FIRST_TOKEN_S)
        self._next_s = make.histogram("inter_token_seconds", "Between tokens of a session, for each behind the first.", TOKEN_S)
        self._token_s = make.histogram("token_seconds", "Mean time between a session's tokens, for each session.", TOKEN_S)
        self._queue_s = make.histogram("queue_seconds", "From a session's beginning to its first pass.", FIRST_TOKEN_S)
        self._prefill_s = make.histogram("prefill_seconds", "From the first pass to the first choice.", FIRST_TOKEN_S)
        self._decode_s = make.histogram("decode_seconds", "From the first choice to the last.", ANSWER_S)
        self._session_s = make.histogram("session_seconds", "A session that was written to its end, as a whole.", ANSWER_S)

    def _count_drafts(self) -> None:
        make, counts, told = self._instruments, self._counts, self._pairs.statistics
        self._prompt = make.counter("prompt_tokens", "Tokens that sessions began with.", lambda: counts.prompt_tokens)
        self._final = make.counter("final_tokens", "Tokens that became final.", lambda: counts.final_tokens.total())
        self._chains = make.counter("chains", "Chains of drafts that a pass ran.", lambda: counts.chains)
        self._drafted = make.counter("drafted_tokens", "Drafts that a pass ran.", lambda: counts.drafted)
        self._accepted = make.counter("accepted_tokens", "Of those, drafts that equal the choices.", lambda: counts.accepted)
        self._accepted_at = make.counter(
            "accepted_tokens_by_place",
            "The same by place in the chain, from 0.",
            lambda: {str(place): count for place, count in enumerate(counts.accepted_at)},
            "position",
        )
        make.counter("corrections", "Verdicts that revoked a draft.", lambda: counts.corrections)
        make.counter("near_ties", "Choices that other arithmetic might have made otherwise.", lambda: counts.near_ties)
        make.counter("own_drafted_tokens", "Of the drafts, the verifier's own.", lambda: told.own_proposed)
        make.counter("own_accepted_tokens", "Of those, drafts that equal the choices.", lambda: told.own_accepted)

    def _measure_tenants(self) -> None:
        make, counts = self._instruments, self._counts
        make.gauge("tenant_sessions", "Sessions now; without keys the tenant is empty.", self._by_tenant, "tenant")
        make.counter("tenant_final_tokens", "Tokens that became final.", lambda: counts.final_tokens, "tenant")

    def _measure_pairs(self) -> None:
        make, counts = self._instruments, self._counts
        counts.opened_by_pair.update({str(one.identity.version): 0 for one in self._pairs.served})
        counts.refused_pairs.update(dict.fromkeys(ORDERS, 0))
        make.gauge("pair_sessions", "Sessions now; the label is the counter of a pair.", self._by_pair, "pair")
        make.counter("pair_sessions_opened", "Sessions that began, each attempt.", lambda: counts.opened_by_pair, "pair")
        make.counter("pair_refusals", "Streams of pairs that are not served.", lambda: counts.refused_pairs, "asked")

    def _taken_bytes(self) -> Counter[str]:
        """By size class; each pair has its own share."""
        taken: Counter[str] = Counter()
        for verifier in self._pairs.verifiers:
            taken.update(verifier.seats.room.taken_bytes)
        return taken

    def _by_pair(self) -> Counter[str]:
        running = Counter(dict.fromkeys(self._counts.opened_by_pair, 0))
        running.update(str(live.pair) for live in self._sessions)
        return running

    def _by_tenant(self) -> Counter[str]:
        """Tenants whose sessions are over stay, at 0."""
        running = Counter(dict.fromkeys(self._counts.final_tokens, 0))
        running.update(live.account.tenant.name for live in self._sessions)
        return running

    def _vllm(self) -> list[Renamed]:
        """vLLM's names, of its version 1, for what means the same here."""
        positions = {str(place): str(place) for place in range(len(self._counts.accepted_at))}
        return [
            Renamed(self._first_s, "vllm:time_to_first_token_seconds"),
            Renamed(self._next_s, "vllm:inter_token_latency_seconds"),
            Renamed(self._token_s, "vllm:request_time_per_output_token_seconds"),
            Renamed(self._session_s, "vllm:e2e_request_latency_seconds"),
            Renamed(self._queue_s, "vllm:request_queue_time_seconds"),
            Renamed(self._prefill_s, "vllm:request_prefill_time_seconds"),
            Renamed(self._decode_s, "vllm:request_decode_time_seconds"),
            Renamed(self._running, "vllm:num_requests_running"),
            Renamed(self._waiting, "vllm:num_requests_waiting"),
            Renamed(self._cache, "vllm:kv_cache_usage_perc"),
            Renamed(self._prompt, "vllm:prompt_tokens"),
            Renamed(self._final, "vllm:generation_tokens"),
            Renamed(self._ended, "vllm:request_success", "finished_reason", VLLM_REASONS),
            Renamed(self._chains, "vllm:spec_decode_num_drafts"),
            Renamed(self._drafted, "vllm:spec_decode_num_draft_tokens"),
            Renamed(self._accepted, "vllm:spec_decode_num_accepted_tokens"),
            Renamed(self._accepted_at, "vllm:spec_decode_num_accepted_tokens_per_pos", "position", positions),
        ]


def order_of(error: PairError) -> str:
    """Which pair was asked for, beside those that are served: a few words, as a device may send any counter."""
    if not error.asked or not error.served:
        return "other"
    return "older" if error.asked < min(error.served) else "newer" if error.asked > max(error.served) else "other"


def _status(error: OutriderError | None) -> str:
    return status_of(error or OutriderError()).grpc.lower()
