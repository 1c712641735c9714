"""One request with everything resolved that it left open: token ids, seed, limits."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from device_agent.display import Display
from device_agent.drafting.share import Share
from device_agent.pair import PairFacts
from device_agent.request import Mode, StreamRequest
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Open


@dataclass(frozen=True, slots=True)
class Assignment:
    """What is to be generated. ``quotes`` are tokens of documents that the drafts may quote, ``retrieval`` is what the client
    is told of the documents."""

    session_id: str
    request: StreamRequest
    prompt: tuple[int, ...]
    parameters: SamplingParameters
    max_tokens: int
    quotes: Sequence[int] = ()
    retrieval: Mapping[str, Any] | None = None

    @property
    def limit(self) -> int:
        """The position behind the last token that may be generated."""
        return len(self.prompt) + self.max_tokens

    @property
    def max_tail(self) -> int:
        """Tokens that may follow the final ones without a verifier's word."""
        is_lost = self.request.mode is not Mode.DEVICE
        offline_tokens = self.request.offline_tokens
        return offline_tokens if is_lost and offline_tokens is not None else self.max_tokens

    def display(self, pair: PairFacts, numbers: Iterator[int]) -> Display:
        """What the client will be shown; ``numbers`` gives out ``seq``."""
        request = self.request
        shown = request.reveal, request.min_stability, request.stop
        return Display(len(self.prompt), pair.decode, numbers, *shown, None if request.logprobs is None else pair.spelling)

    def opening(self, session: DeviceSession, share: Share) -> Open:
        """What asks the verifier for the session, with what is left now until its deadline, and for times where they are
        recorded."""
        left_ms = share.left_ms(asyncio.get_running_loop().time())
        return replace(session.open(), deadline_ms=left_ms, timings=self.request.timeline)

    def session(self, pair: PairFacts) -> DeviceSession:
        """The device's side of the session with a verifier."""
        return DeviceSession(
            self.session_id,
            pair.identity,
            self.prompt,
            self.parameters,
            self.max_tokens,
            pair.end_token_ids,
            self.request.priority,
            self.request.deadline_ms,
            self.request.logprobs,
        )
