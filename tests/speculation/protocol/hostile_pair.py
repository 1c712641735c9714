"""Both sessions joined by a hostile link, in pure steps: delay, duplicates, cuts, old streams that still deliver, deaths.

A step is a pair of small integers, so that Hypothesis can draw and shrink whole histories. Every message travels as bytes.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import INITIAL_CREDIT, Draft, Finished, Node, Open, Opened, PairIdentity
from speculation.protocol.update import Update
from speculation.protocol.verifier import Plan, VerifierSession
from speculation.wire import codec

IDENTITY = PairIdentity("tokenizer", "pair", "full")
END_TOKEN = 0


class TableModel:
    """A full model that is a hash: the token after a prefix depends on the whole prefix, any token ids. End tokens are rare."""

    def __init__(self, seed: int, vocabulary_size: int) -> None:
        self._seed = seed
        self._vocabulary_size = vocabulary_size

    def choose(self, prefix: Sequence[int]) -> int:
        digest = zlib.crc32(bytes(token_id % 256 for token_id in prefix), self._seed)
        return END_TOKEN if digest % 97 == 0 else 1 + (digest >> 8) % (self._vocabulary_size - 1)

    def likelihood(self, prefix: Sequence[int], count: int) -> TokenLogprobs:
        """What is told of the token behind a prefix: a hash of the prefix, and so another one at every place."""
        value = -float(zlib.crc32(bytes(token_id % 256 for token_id in prefix), ~self._seed % 2**32) % 2**20) / 2**10
        return TokenLogprobs(value, tuple((self.choose(prefix) + n, value / 2**n) for n in range(count)))

    def generate(self, prompt: Sequence[int], max_tokens: int) -> list[int]:
        """Plain decoding."""
        tokens = list(prompt)
        while len(tokens) < len(prompt) + max_tokens:
            tokens.append(self.choose(tokens))
            if tokens[-1] == END_TOKEN:
                break
        return tokens


class Hints:
    """The naive oracle of a verifier: every node it received, as the whole text that the device meant by it."""

    def __init__(self) -> None:
        self._texts: dict[int, tuple[int, ...]] = {0: ()}
        self._nodes: dict[tuple[int, ...], Node] = {}

    def add(self, draft: Draft, expected: Sequence[int]) -> None:
        for node in draft.nodes:
            if node.number not in self._texts:
                before = self._texts[node.parent] if node.parent else tuple(expected[: node.root_position])
                text = self._texts[node.number] = (*before, node.token_id)
                self._nodes.setdefault(text, node)

    def token_id(self, number: int) -> int:
        return self._texts[number][-1]

    def chain(self, final: Sequence[int]) -> list[int]:
        """Numbers of the likeliest nodes whose texts go on from the final log, one position after the other."""
        text, chain = tuple(final), []
        while children := [(node.rank, node.number, t) for t, node in self._nodes.items() if t[:-1] == text]:
            _, number, text = min(children)
            chain.append(number)
        return chain


@dataclass
class Stream:
    """One stream and its verifier; both queues hold bytes in order."""

    credit: int
    reads_packed: bool
    up: deque[bytes] = field(default_factory=deque)
    down: deque[bytes] = field(default_factory=deque)
    sent: list[bytes] = field(default_factory=list)
    verifier: VerifierSession | None = None
    is_open: bool = False
    received: Hints = field(default_factory=Hints)

    def send_up(self, data: bytes) -> None:
        self.up.append(data)
        self.sent.append(data)


class HostilePair:
    """A device, its current stream, and the older streams that nobody has told the verifiers to drop."""

    def __init__(
        self,
        model: TableModel,
        prompt: Sequence[int],
        max_tokens: int,
        credits_: Sequence[int],
        logprobs: int | None = None,
    ) -> None:
        self.model = model
        self.expected = model.generate(prompt, max_tokens)
        self.device = DeviceSession("s", IDENTITY, prompt, SamplingParameters(), max_tokens, [END_TOKEN], logprobs=logprobs)
        self.told: list[TokenLogprobs] = []
        self.meant: dict[int, list[int]] = {}
        self.streams: list[Stream] = []
        self.verifiers: list[VerifierSession] = []
        self._credits = list(credits_)
        self.reopen(0)

    @property
    def current(self) -> Stream:
        return self.streams[-1]

    # The steps -------------------------------------------------------------------------------------------------------------

    def step(self, name: str, argument: int) -> None:
        if self.device.finish_reason is None:
            getattr(self, name)(argument)

    def draft(self, argument: int) -> None:
        """Draft behind the main branch: right three times in four, and sometimes beyond the room there is."""
        if self.device.room or argument % 8 == 7:
            before = [*self.device.final, *self.device.path]
            token_id = self.model.choose(before) if argument % 4 else 1 + argument % 3
            self.meant[self.device.drafted(token_id)] = [*before, token_id]

    def branch(self, argument: int) -> None:
        """Draft a second choice somewhere along the main branch, right about as often as wrong."""
        if self.device.room:
            depth = argument % (len(self.device.path) + 1)
            parent = self.device.path_handles[depth - 1] if depth else 0
            before = [*self.device.final, *self.device.path[:depth]]
            token_id = self.model.choose(before) if argument % 2 else 1 + argument % 5
            self.meant[self.device.drafted(token_id, 1 + argument % 2, parent)] = [*before, token_id]

    def flush(self, argument: int) -> None:
        """Send what is unsent; perhaps twice, perhaps after something that was sent long ago."""
        draft = self.device.flush(passes=argument % 5 == 0)
        if draft is not None:
            self._check_credit(draft)
            self.current.send_up(codec.encode_request(draft))
        drafts = self.current.sent[1:]
        if drafts and argument % 3 == 0:
            self.current.up.append(drafts[argument % len(drafts)])

    def deliver_up(self, argument: int) -> None:
        stream = self.streams[argument % len(self.streams)]
        if stream.up:
            self._arrive(stream, stream.up.popleft())

    def deliver_down(self, argument: int) -> None:
        """The device hears its current stream alone; what older streams say is lost on the way."""
        stream = self.streams[-1 if argument % 4 else argument % len(self.streams)]
        if stream.down:
            data = stream.down.popleft()
            if stream is self.current:
                self._hear(data)

    def run_pass(self, argument: int) -> None:
        stream = self.streams[argument % len(self.streams)]
        if stream.verifier is None or stream.verifier.finished is not None:
            return
        plan = self._plan(stream, argument % 7)
        if argument % 2 and stream.up:
            self._arrive(stream, stream.up.popleft())  # a draft that comes while the pass runs
        if stream.verifier.finished is None:
            self.commit(stream, plan, twice=argument % 3 == 0)

    def cut(self, argument: int) -> None:
        """Lose what is under way on both sides from some message on, and go on by a new stream; the old verifier lives on."""
        for queue in (self.current.up, self.current.down):
            for _ in range(min(len(queue), argument % 4)):
                queue.pop()
        while self.current.down and argument % 2:
            self._hear(self.current.down.popleft())
            if self.device.finish_reason is not None:
                return
        self.reopen(argument)

    def die(self, argument: int) -> None:
        """The verifier dies with all it held."""
        self.streams.pop()
        self.reopen(argument)

    def reopen(self, argument: int) -> None:
        credit = self._credits[argument % len(self._credits)]
        self.streams.append(Stream(credit, reads_packed=len(self.streams) % 2 == 0))
        message = self.device.open()
        assert list(message.prefix) == list(self.device.final)
        self.current.send_up(codec.encode_request(message))

    # The end ---------------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Let everything arrive. Each turn makes at least one token final, so the number of turns is bounded."""
        for turn in range(len(self.expected) + 3):
            if self.device.finish_reason is not None:
                return
            self._drain_turn(turn)
        raise AssertionError("the session does not end")

    def _drain_turn(self, turn: int) -> None:
        stream = self.current
        self.step("draft", turn)
        self.step("flush", 1)
        while stream.up:
            self._arrive(stream, stream.up.popleft())
        if stream.verifier.finished is None:
            self.commit(stream, self._plan(stream, 4))
        while stream.down:
            self._hear(stream.down.popleft())

    # The two ends ----------------------------------------------------------------------------------------------------------

    def _arrive(self, stream: Stream, data: bytes) -> None:
        message = codec.decode_request(data)
        if isinstance(message, Open):
            stream.verifier = VerifierSession(message, stream.credit)
            self.verifiers.append(stream.verifier)
            told = {"reads_packed": stream.reads_packed, "logprobs": message.logprobs}
            opened = Opened("s", stream.credit, "fingerprint", **told)
            stream.down.append(codec.encode_response(opened))
            self._tell_finished(stream, stream.verifier.finished)
            return
        if stream.verifier is not None:
            stream.verifier.receive(message)
            if isinstance(message, Draft):
                stream.received.add(message, self.expected)
            assert stream.verifier.live_nodes <= max(stream.credit, INITIAL_CREDIT)

    def _plan(self, stream: Stream, max_nodes: int) -> Plan:
        """The session's plan, checked: it is what a verifier would run that remembered every text whole."""
        final = stream.verifier.final
        plan = stream.verifier.plan(max_nodes)
        chain = stream.received.chain(final)
        assert plan.nodes == tuple(chain[: len(plan.nodes)])
        if len(plan.nodes) < min(max_nodes, len(chain), stream.verifier.limit - len(final) - 1):
            assert stream.received.token_id(chain[len(plan.nodes)]) == END_TOKEN
        return plan

    def commit(self, stream: Stream, plan: Plan, twice: bool = False) -> None:
        prefix = [*stream.verifier.final, *plan.token_ids]
        rows = [prefix[:length] for length in range(plan.start, len(prefix) + 1)]
        count = self.device.logprobs
        told = [] if count is None else [self.model.likelihood(row, count) for row in rows]
        verdict, finished = stream.verifier.commit(plan, [self.model.choose(row) for row in rows], logprobs=told)
        assert list(stream.verifier.final) == self.expected[: len(stream.verifier.final)]
        stream.down.extend([codec.encode_response(verdict)] * (2 if twice else 1))
        self._tell_finished(stream, finished)

    def _tell_finished(self, stream: Stream, finished: Finished | None) -> None:
        if finished is not None:
            stream.down.append(codec.encode_response(finished))

    def _hear(self, data: bytes) -> None:
        before, path = list(self.device.final), self.device.path
        update = self.device.receive(codec.decode_response(data))
        self.current.is_open = self.current.is_open or update.opened is not None
        self._check_update(update, before, path)

    def _check_credit(self, draft: Draft) -> None:
        """What a verifier would count that knew as little as the device."""
        num_sent = self.device.live_nodes - self.device.unsent_nodes
        assert not draft.nodes or num_sent <= (self.current.credit if self.current.is_open else INITIAL_CREDIT)

    def _check_update(self, update: Update, before: list[int], path: tuple[int, ...]) -> None:
        tokens = update.tokens
        assert update.start == len(before)
        assert len(update.logprobs) == (0 if self.device.logprobs is None else len(tokens))
        self.told += update.logprobs
        assert list(self.device.final) == [*before, *tokens]
        assert list(self.device.final) == self.expected[: len(self.device.final)]
        assert update.kept == (path[: len(tokens)] == tokens)
        if update.kept:
            assert self.device.path == path[len(tokens) :]
        for handle, length in zip(self.device.path_handles, range(1, 1 + len(self.device.path)), strict=True):
            assert self.meant[handle] == [*self.device.final, *self.device.path[:length]]
