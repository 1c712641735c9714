"""Stand-ins: an engine that can be watched and broken, a device that drafts as it is told, plain decoding."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np

from cloud_verifier.config import VerifierConfig
from cloud_verifier.engine import FullModel
from speculation.choice import choose
from speculation.engines.base import CacheId, Chunk, Engine
from speculation.engines.random import RandomEngine
from speculation.engines.self_test import SelfTest
from speculation.links.base import Connector
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import CloudMessage, Finished, Open, PairIdentity

IDENTITY = PairIdentity("a" * 64, "b" * 64, "c" * 64)
SELF_TEST = SelfTest(True, "f" * 16, 0.0, ())
VOCABULARY = 64
CONTEXT = 512
SEED = 7

SAMPLED = SamplingParameters(temperature=0.8, top_p=0.95, seed=11)


class WatchedEngine(RandomEngine):
    """A table engine that notes each pass, can be held before a pass, and fails when told to. A pass takes ``pass_s`` and
    hardly more: without it no message of a device is as quick."""

    def __init__(self, num_slots: int = 8, seed: int = SEED) -> None:
        super().__init__(VOCABULARY, CONTEXT, seed, num_slots)
        self.passes: list[tuple[int, ...]] = []
        self.open_caches: set[CacheId] = set()
        self.failure: Exception | None = None
        self.pass_s = 0.0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def open(self) -> CacheId:
        cache = super().open()
        self.open_caches.add(cache)
        return cache

    def close(self, cache: CacheId) -> None:
        super().close(cache)
        self.open_caches.remove(cache)

    def extend(self, chunks: Sequence[Chunk]) -> np.ndarray:
        self.entered.set()
        assert self.gate.wait(30)
        time.sleep(self.pass_s)
        self.passes.append(tuple(len(chunk.token_ids) for chunk in chunks))
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return super().extend(chunks)


def watched(num_slots: int = 8) -> tuple[WatchedEngine, FullModel]:
    engine = WatchedEngine(num_slots)
    return engine, FullModel(engine, IDENTITY, SELF_TEST)


def settings(**changes) -> VerifierConfig:
    return VerifierConfig(**{"port": 0, "drain_grace_s": 0.0, "run_drafts": "all", "max_queued": 0} | changes)


def open_message(session_id: str = "s", **changes) -> Open:
    given = {"attempt": 1, "identity": IDENTITY, "prefix": (1, 2, 3), "generation_start": 3, "max_tokens": 8}
    return Open(session_id, **given | {"parameters": SamplingParameters()} | changes)


def plain_decoding(
    engine: Engine, prompt: Sequence[int], parameters: SamplingParameters, max_tokens: int, end_token_ids: Sequence[int] = ()
) -> list[int]:
    """The text of the model alone: one token after the other from an empty cache."""
    cache, tokens, new = engine.open(), list(prompt), list(prompt)
    while len(tokens) < len(prompt) + max_tokens:
        logits = engine.extend([Chunk(cache, new, 1)])
        new = [int(choose(logits, [len(tokens)], [parameters]).token_ids[0])]
        tokens += new
        if new[0] in end_token_ids:
            break
    engine.close(cache)
    return tokens


class ScriptedDevice:
    """A device that drafts ``truth`` with a share of wrong tokens: chains and second branches, in bursts of random length.

    ``told`` are the log probabilities that came, where its session asks for them.
    """

    def __init__(self, session: DeviceSession, truth: Sequence[int], accuracy: float, seed: int) -> None:
        self.session = session
        self.told: list[TokenLogprobs] = []
        self._truth = truth
        self._accuracy = accuracy
        self._random = random.Random(seed)

    async def run(self, connector: Connector) -> list[int]:
        """Open, draft while verdicts come, and return the final log."""
        link = await connector.connect()
        try:
            await link.send(self.session.open())
            while self.session.finish_reason is None:
                self._draft()
                while (draft := self.session.flush()) is not None:
                    await link.send(draft)
                message = await link.receive()
                assert message is not None, "the stream ended before Finished"
                self.told += self.session.receive(message).logprobs
            assert await link.receive() is None
        finally:
            await link.aclose()
        return list(self.session.final)

    def _draft(self) -> None:
        for _ in range(min(self._random.randrange(6), self.session.room)):
            if not self.session.room:
                return
            position = len(self.session.final) + len(self.session.path)
            right = self._truth[position]
            wrong = (right + self._random.randrange(1, VOCABULARY)) % VOCABULARY
            first, second = (right, wrong) if self._random.random() < self._accuracy else (wrong, right)
            parent = self.session.path_handles[-1] if self.session.path else 0
            self.session.drafted(first, 0, parent)
            if self.session.room and self._random.random() < 0.3:
                self.session.drafted(second, 1, parent)


async def collect(link) -> list[CloudMessage]:
    """Every message up to an orderly end."""
    messages = []
    while (message := await link.receive()) is not None:
        messages.append(message)
    return messages


async def wait_until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110 (what is waited for is state of the code under test, which has no event)
        await asyncio.sleep(0)


def finished_of(messages: Sequence[CloudMessage]) -> Finished:
    last = messages[-1]
    assert isinstance(last, Finished)
    return last
