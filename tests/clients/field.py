"""Clients in the field: the bundled pair, a verifier in a process of its own that can be killed, and an agent before it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import device_agent.server
from device_agent.config import AgentConfig
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.shaping.profiles import DEFAULT_CLOUD, DEFAULT_NETWORK, DEFAULT_PHONE
from tests.clients.served import threaded
from tests.cloud_verifier.doubles import plain_decoding
from tests.support.likelihoods import likelihoods

UNSHAPED, SHAPED = "unshaped", "shaped"
"""As it comes, and in the cell of the demo: its phone, its network, its cloud."""
SPARED_S = 60.0
PROMPT, SEED = "The module provides", 3
NUM_TOKENS, NUM_LONG = 24, 480


@dataclass(frozen=True)
class Field:
    """Where the agent is, and the verifier's process."""

    url: str
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """As a machine that loses its power: nobody is told."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def field_of(shape: str):
    """A verifier and an agent. Unshaped passes are paced, so that a long answer is still being written when it is looked at."""
    flags = ["--cloud", DEFAULT_CLOUD] if shape == SHAPED else ["--pass-interval-ms", "25"]
    played = {"phone": DEFAULT_PHONE, "network": DEFAULT_NETWORK} if shape == SHAPED else {}
    with killable("--run-drafts", "all", *flags) as (process, target):
        config = AgentConfig(port=0, verifier=target, served_names=("full",), max_streams=16, **played)
        with threaded(lambda: device_agent.server.serve(config), lambda running: running.url) as url:
            yield Field(f"{url}/v1", process)


@contextlib.contextmanager
def killable(*flags):
    """A verifier's process, and where it listens."""
    command = [sys.executable, "-m", "outrider", "verifier", "--port", "0", *flags]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        lines = iter(process.stderr.readline, b"")
        target = next(line.split()[-1].decode() for line in lines if line.startswith(b"verifier on "))
        yield process, target
    finally:
        process.kill()
        process.communicate()


class Truth:
    """The full model alone, one token after the other. ``text`` is what it writes behind the prompt."""

    def __init__(self) -> None:
        pair = load_pair()
        self._tokenizer, self._engine = pair.full.tokenizer, OnnxEngine(pair.full, num_slots=1)
        self._prompt = self._tokenizer.encode(PROMPT).ids
        written = plain_decoding(self._engine, self._prompt, SamplingParameters(seed=SEED), NUM_LONG, pair.full.end_token_ids)
        self.text = self._tokenizer.decode(written[len(self._prompt) :])

    def likelihoods(self, sampled: str, count: int) -> list[TokenLogprobs]:
        """Of a text that it wrote at temperature 0.8, which must be this one."""
        parameters = SamplingParameters(temperature=0.8, seed=SEED)
        written = plain_decoding(self._engine, self._prompt, parameters, NUM_TOKENS)
        assert self._tokenizer.decode(written[len(self._prompt) :]) == sampled
        return likelihoods(self._engine, written, len(self._prompt), count)


@dataclass
class Reading:
    """What one client read on a thread of its own, and how it ended: in order, or with ``error``."""

    name: str
    pieces: list[str] = field(default_factory=list)
    has_begun: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def said(self, piece: str) -> None:
        self.pieces.append(piece)
        if piece:
            self.has_begun.set()

    @property
    def text(self) -> str:
        return "".join(self.pieces)


@contextlib.contextmanager
def reading(readers, url, **asked):
    """All clients at once, each on its thread; at the end all have ended."""
    readings = [Reading(name) for name in readers]

    def read(reading):
        try:
            readers[reading.name](url, reading.said, **asked)
        except Exception as error:
            reading.error = error
        finally:
            reading.has_begun.set()

    threads = [threading.Thread(target=read, args=(reading,), daemon=True) for reading in readings]
    for thread in threads:
        thread.start()
    yield readings
    for thread, one in zip(threads, readings, strict=True):
        thread.join(SPARED_S)
        assert not thread.is_alive(), f"{one.name} hangs"
