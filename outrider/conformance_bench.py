"""What the conformance cases share: streams to the verifier under test, and the full model's text once it is learned."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from outrider.conformance_stream import CheckFailedError, RawLink, Stream, expect
from speculation.certificates import ClientTls
from speculation.engines.package import Pair
from speculation.links.grpc import channel_to
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import MAX_DRAFT_NODES, Draft, Node, Open, PairIdentity
from speculation.tenants import AUTHORIZATION, bearer
from speculation.wire import codec

TEXT_TOKENS = 40
PROMPT_TOKENS = 16
LONGEST_TOKENS = 4096
PARAMETERS = SamplingParameters(temperature=0.8, top_p=0.95, seed=20_240_501)


@dataclass(frozen=True, slots=True)
class Subject:
    """The pair that the verifier should run, as far as a device must know it."""

    identity: PairIdentity
    vocabulary_size: int
    context_length: int
    prompt: tuple[int, ...]

    @classmethod
    def of_pair(cls, pair: Pair) -> Subject:
        """The first held-out prompt of the pair, cut short, is what every case goes on from."""
        text = pair.prompts[0]["text"] if pair.prompts else pair.name
        ids = pair.full.tokenizer.encode(text).ids
        return cls(pair.identity, pair.full.architecture.vocabulary_size, pair.full.context_length, tuple(ids[:PROMPT_TOKENS]))


class Bench:
    """Opens streams over one channel. ``text`` is what the full model writes behind the prompt, without any draft."""

    def __init__(self, channel: Any, subject: Subject, key: str | None = None) -> None:
        self._channel = channel
        self._metadata = None if key is None else ((AUTHORIZATION, bearer(key)),)
        self._text: tuple[int, ...] = ()
        self.subject = subject

    @property
    def start(self) -> int:
        """The position of the first generated token."""
        return len(self.subject.prompt)

    @property
    def num_text_tokens(self) -> int:
        return min(TEXT_TOKENS, self.subject.context_length - self.start)

    @property
    def longest(self) -> int:
        """As many tokens as a session can have: it still runs while a message of ours is under way."""
        return min(LONGEST_TOKENS, self.subject.context_length - self.start)

    @property
    def text(self) -> tuple[int, ...]:
        if not self._text:
            raise CheckFailedError("expected the text of a session without drafts to compare with; there was none")
        return self._text

    def learn(self, text: tuple[int, ...]) -> None:
        self._text = text

    def expect_text(self, generated: Sequence[int], length: int | None = None) -> None:
        """The tokens must be the beginning of the text, ``length`` tokens of it where that is given."""
        expect(length is None or len(generated) == length, f"{length} generated tokens", len(generated))
        count = min(len(generated), len(self.text))
        wanted, got = list(self.text[:count]), list(generated[:count])
        differing = next((n for n in range(count) if wanted[n] != got[n]), count)
        expect(
            wanted == got,
            f"the text of plain decoding, {wanted[differing:][:4]} from token {differing} on",
            got[differing:][:4],
        )

    def wrong(self, token_id: int) -> int:
        """Another token."""
        return (token_id + 1) % self.subject.vocabulary_size

    def first_token(self, root_position: int, first: int, count: int, known: int) -> list[Draft]:
        """Messages with ``count`` nodes that all hold the right token at ``root_position``.

        A number counts against the credit until ``known`` passes its position, so these count whatever the log's length is.
        """
        token_id = self.text[root_position - self.start]
        nodes = [Node(number, 0, token_id, root_position) for number in range(first, first + count)]
        return [Draft(tuple(nodes[at : at + MAX_DRAFT_NODES]), known) for at in range(0, count, MAX_DRAFT_NODES)]

    def open_message(self, **changes: Any) -> Open:
        """An ``Open`` of a new session; ``changes`` are fields of it."""
        message = Open(
            session_id=f"conformance-{uuid.uuid4()}",
            attempt=1,
            identity=self.subject.identity,
            prefix=self.subject.prompt,
            generation_start=self.start,
            parameters=PARAMETERS,
            max_tokens=self.num_text_tokens,
        )
        return replace(message, **changes)

    @asynccontextmanager
    async def unopened(self, message: Open) -> AsyncIterator[Stream]:
        """A stream on which nothing was sent; ``message`` is what it is judged by."""
        stream = Stream(RawLink(self._channel.stream_stream(codec.METHOD_PATH)(metadata=self._metadata)), message)
        try:
            yield stream
        finally:
            await stream.aclose()

    @asynccontextmanager
    async def stream(self, **changes: Any) -> AsyncIterator[Stream]:
        """A stream with its ``Open`` on the way; what follows is sent before the answer comes."""
        message = self.open_message(**changes)
        async with self.unopened(message) as stream:
            await stream.send(message)
            yield stream


@asynccontextmanager
async def bench_at(target: str, subject: Subject, key: str | None = None, tls: ClientTls | None = None) -> AsyncIterator[Bench]:
    """A bench with a channel of its own."""
    async with channel_to(target, tls, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield Bench(channel, subject, key)


Check = Callable[[Bench], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Case:
    """One promise of ``docs/protocol.md``, and how it is put to the test."""

    name: str
    promise: str
    check: Check


class Cases(list[Case]):
    """Cases in the order in which they are written down."""

    def add(self, promise: str) -> Callable[[Check], Check]:
        """Lists the function that it decorates, under the function's name."""

        def listed(check: Check) -> Check:
            self.append(Case(check.__name__.replace("_", "-"), promise, check))
            return check

        return listed


async def offend(bench: Bench, offence: Draft | Open | bytes) -> None:
    """A session long enough to be running when the offence arrives must end with INVALID_ARGUMENT."""
    async with bench.stream(max_tokens=bench.longest) as stream:
        await stream.send(offence)
        await stream.expect_refusal("INVALID_ARGUMENT")
