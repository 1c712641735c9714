"""One stream to a verifier under test, judged message by message as ``docs/protocol.md`` tells a device to judge it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import grpc

from speculation.errors import OutriderError
from speculation.links.grpc import GrpcLink
from speculation.protocol.fillers import is_filler
from speculation.protocol.messages import (
    INITIAL_CREDIT,
    CloudMessage,
    DeviceMessage,
    Draft,
    Finished,
    FinishReason,
    Node,
    Open,
    Opened,
    Verdict,
)


class CheckFailedError(Exception):
    """The verifier did not do what the protocol promises; the message says what was expected."""


class OvertakenError(CheckFailedError):
    """The session had gone on before a message of ours could reach it: worth another try."""


def expect(holds: bool, expected: str, got: object) -> None:
    """Raises ``CheckFailedError`` unless the condition holds."""
    if not holds:
        raise CheckFailedError(f"expected {expected}; got {got}")


class RawLink(GrpcLink):
    """A link that also carries bytes which no device should send, and tells the status as it stood on the wire."""

    async def send_bytes(self, data: bytes) -> None:
        """Hand bytes over; dropped where the stream is over, as in ``send``."""
        await self._is_written(data)

    async def half_close(self) -> None:
        """Nothing more will come; without effect where the stream is over."""
        with suppress(grpc.aio.InternalError, grpc.aio.AioRpcError):
            await self._call.done_writing()

    async def status(self) -> str:
        """The name of the code that the call ended with."""
        code: str = (await self._call.code()).name
        return code


@dataclass(frozen=True, slots=True)
class Refusal:
    """The status that a stream ended with."""

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code} ({self.message})"


class Stream:
    """One attempt of one session. ``log`` grows by verdicts alone; each message is checked before it is believed."""

    def __init__(self, link: RawLink, message: Open) -> None:
        self._link = link
        self._open = message
        self._end_token_ids = frozenset(message.end_token_ids)
        self._nodes: dict[int, tuple[Node, int]] = {}
        self.log = list(message.prefix)
        self.verdicts: list[Verdict] = []
        self.opened: Opened | None = None
        self.finished: Finished | None = None

    @property
    def generated(self) -> tuple[int, ...]:
        return tuple(self.log[self._open.generation_start :])

    @property
    def received_bytes(self) -> int:
        return self._link.statistics.received_bytes

    @property
    def next_number(self) -> int:
        return len(self._nodes) + 1

    async def send(self, message: DeviceMessage | bytes) -> None:
        """Hand a message over. Where the stream is over already, reading it tells how it ended."""
        if isinstance(message, Draft):
            self._remember(message)
        with suppress(OutriderError):
            if isinstance(message, bytes):
                await self._link.send_bytes(message)
            else:
                await self._link.send(message)

    async def send_chain(self, token_ids: Sequence[int], root_position: int) -> Draft:
        """New nodes, each behind the one before, the first at ``root_position`` of the log."""
        first = self.next_number
        draft = Draft(chain(first, token_ids, root_position), min(root_position, len(self.log)))
        await self.send(draft)
        return draft

    async def half_close(self) -> None:
        await self._link.half_close()

    async def next(self) -> CloudMessage | None:
        """The next message, None at an end in order. Raises ``CheckFailedError`` for one that breaks the protocol."""
        message = await self._link.receive()
        while message is not None and is_filler(message):  # said for no other reason than the verifier's own tick
            message = await self._link.receive()
        expect(self.finished is None or message is None, "nothing behind Finished", message)
        match message:
            case Opened():
                self._take_opened(message)
            case Verdict():
                expect(self.opened is not None, "Opened before any verdict", message)
                self._take_verdict(message)
            case Finished():
                expect(self.opened is not None, "Opened before Finished", message)
                self._take_finished(message)
            case None:
                expect(self.finished is not None, "Finished before the end of the stream", "an end without it")
        return message

    async def opening(self) -> Opened:
        """What the verifier says first."""
        message = await self.next()
        if not isinstance(message, Opened):
            raise CheckFailedError(f"expected Opened first; got {message}")
        return message

    async def grown_to(self, length: int) -> None:
        """Read until the log has ``length`` tokens. Raises ``OvertakenError`` where the session ends before."""
        while len(self.log) < length:
            if await self.next() is None:
                raise OvertakenError(f"the session ended with {len(self.log)} tokens, {length} were expected")

    async def rest(self, *reasons: FinishReason) -> tuple[int, ...]:
        """Read to the end, which must have one of the reasons if any are named; gives the generated tokens."""
        while await self.next() is not None:
            pass
        assert self.finished is not None
        reason = self.finished.reason
        if reason is FinishReason.LENGTH and reasons and reason not in reasons:
            raise OvertakenError(f"expected Finished with {_names(reasons)}; got length: the session ran to its limit")
        expect(not reasons or reason in reasons, f"Finished with {_names(reasons)}", reason.value)
        return self.generated

    async def refusal(self) -> Refusal:
        """Read to an end with a status. Raises ``OvertakenError`` where the session ran to its limit instead."""
        try:
            await self.rest()
        except OutriderError as error:
            return Refusal(await self._link.status(), str(error))
        assert self.finished is not None
        kind = OvertakenError if self.finished.reason is FinishReason.LENGTH else CheckFailedError
        raise kind(f"expected a status of the stream; got Finished with {self.finished.reason.value}")

    async def expect_refusal(self, code: str) -> Refusal:
        """Read to an end with a status, which must be ``code``."""
        refusal = await self.refusal()
        expect(refusal.code == code, f"status {code}", refusal)
        return refusal

    async def aclose(self) -> None:
        with suppress(OutriderError, asyncio.InvalidStateError):
            await self._link.aclose()

    def _remember(self, draft: Draft) -> None:
        for node in draft.nodes:
            parent = self._nodes.get(node.parent)
            self._nodes.setdefault(node.number, (node, parent[1] + 1 if parent else node.root_position))

    def _take_opened(self, opened: Opened) -> None:
        expect(self.opened is None, "one Opened on a stream", "a second one")
        expect(opened.session_id == self._open.session_id, f"session {self._open.session_id}", opened.session_id)
        expect(opened.credit >= INITIAL_CREDIT, f"a credit of at least {INITIAL_CREDIT}", opened.credit)
        expect(bool(opened.fingerprint), "a fingerprint in Opened", "none")
        self.opened = opened

    def _take_verdict(self, verdict: Verdict) -> None:
        length = len(self.log)
        expect(verdict.start <= length, f"a verdict from position {length} on or before", f"a gap: {verdict}")
        tokens = self._run_tokens(verdict) + ([] if verdict.choice is None else [verdict.choice])
        known = self.log[verdict.start : verdict.end]
        expect(tokens[: len(known)] == known, f"the final tokens {known} from {verdict.start} on again", tokens)
        for token_id in tokens[len(known) :]:
            expect(len(self.log) < self._open.limit, f"no token at the limit of {self._open.limit}", verdict)
            expect(not self._has_ended(), "no token behind an end token", verdict)
            self.log.append(token_id)
        self.verdicts.append(verdict)

    def _run_tokens(self, verdict: Verdict) -> list[int]:
        """The tokens of the run, from the nodes that were sent."""
        tokens: list[int] = []
        number = verdict.last_node
        for position in range(verdict.start + verdict.count - 1, verdict.start - 1, -1):
            node, at = self._nodes.get(number, (None, -1))
            if node is None or at != position:
                raise CheckFailedError(f"expected a node that was sent for position {position}; got node {number} in {verdict}")
            tokens.append(node.token_id)
            number = node.parent
        return tokens[::-1]

    def _take_finished(self, finished: Finished) -> None:
        usage, reason = finished.usage, finished.reason
        expect(usage.passes == len(self.verdicts), f"usage.passes {len(self.verdicts)}, one a verdict", usage.passes)
        counted = usage.accepted + usage.late + usage.discarded
        expect(usage.proposed == counted, "usage.proposed = accepted + late + discarded", usage)
        completed = len(self.generated)
        expect(usage.completion_tokens == completed, f"usage.completion_tokens {completed}", usage.completion_tokens)
        is_full = len(self.log) == self._open.limit and not self._has_ended()
        expect(
            reason is not FinishReason.STOP or self._has_ended(), "Finished with stop behind an end token only", "it elsewhere"
        )
        expect(reason is not FinishReason.LENGTH or is_full, "Finished with length at the limit only", f"it at {len(self.log)}")
        self.finished = finished

    def _has_ended(self) -> bool:
        return len(self.log) > self._open.generation_start and self.log[-1] in self._end_token_ids


def chain(first: int, token_ids: Sequence[int], root_position: int) -> tuple[Node, ...]:
    """Nodes numbered from ``first`` on, each behind the one before."""
    return tuple(
        Node(first + n, first + n - 1 if n else 0, token_id, 0 if n else root_position) for n, token_id in enumerate(token_ids)
    )


def _names(reasons: Sequence[FinishReason]) -> str:
    return " or ".join(reason.value for reason in reasons)
