"""Writes the golden transcripts of ``docs/vectors``: ``python -m tests.support.transcripts``; the README tells the format.

Each session is played by the production sessions, one step at a time, and every message is noted as its bytes.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speculation.errors import OutriderError, SessionSupersededError, status_of
from speculation.links.status import status_from
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.cover import UNCOVERED
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import CloudMessage, DeviceMessage, Draft, Node, Open, Opened, PairIdentity
from speculation.protocol.verifier import VerifierSession
from speculation.wire import codec

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "vectors"
IDENTITY = PairIdentity("a1" * 32, "b2" * 32, "c3" * 32)
FINGERPRINT = "0123456789abcdef"
PROMPT = (11, 300, 70000, 13, 14)
MAX_ROWS = 64


class Recorder:
    """One device, a verifier for each stream, and what they did in the order in which they did it."""

    def __init__(self, about: str, credit: int = 64, reads_packed: bool = False, **session: Any) -> None:
        given = {"max_tokens": 16, "end_token_ids": (0,), "parameters": SamplingParameters()} | session
        self.device = DeviceSession("session-1", IDENTITY, PROMPT, **given)
        self.about, self.credit, self.reads_packed = about, credit, reads_packed
        self.steps: list[dict[str, Any]] = []
        self._given = given
        self._verifiers: dict[int, VerifierSession] = {}
        self._messages: list[tuple[int, bytes]] = []
        self._stream = 0

    def to_json(self) -> dict[str, Any]:
        session = {"session_id": "session-1", "identity": IDENTITY, "prompt": PROMPT, **self._given}
        return {"about": self.about, "session": plain(session), "credit": self.credit, "steps": self.steps}

    def open(self) -> int:
        """The device opens its next stream."""
        self._stream += 1
        return self._device("open", self.device.open())

    def draft(self, *nodes: tuple[int, int, int | None], passes: bool = False) -> int:
        """The device drafts ``(token_id, rank, parent)``, and sends what the credit allows."""
        for token_id, rank, parent in nodes:
            self.device.drafted(token_id, rank, parent)
        draft = self.device.flush(passes)
        assert draft is not None
        drafted = [{"token_id": token_id, "rank": rank, "parent": parent} for token_id, rank, parent in nodes]
        return self._device("draft", draft, nodes=drafted, passes=passes)

    def cancel(self) -> int:
        return self._device("cancel", self.device.cancel())

    def misbehave(self, message: DeviceMessage) -> int:
        """The device sends what no device may send."""
        return self._device("misbehave", message)

    def arrive(self, number: int) -> list[int]:
        """A message of the device reaches the verifier; gives the numbers of its answers."""
        stream, data = self._messages[number]
        message = codec.decode_request(data)
        sends: list[CloudMessage] = []
        step: dict[str, Any] = {"at": "verifier", "stream": stream, "receives": number}
        try:
            if isinstance(message, Open):
                verifier = self._verifiers[stream] = VerifierSession(message, self.credit)
                opened = Opened(message.session_id, self.credit, FINGERPRINT, reads_packed=self.reads_packed)
                sends.append(dataclasses.replace(opened, logprobs=message.logprobs))
            else:
                verifier = self._verifiers[stream]
                verifier.receive(message)
        except OutriderError as error:
            self.steps.append(step | {"status": status(error)})
            return []
        return self._verifier(step, [*sends, *([verifier.finished] if verifier.finished else [])])

    def run_pass(self, *choices: int, logprobs: Sequence[TokenLogprobs] = ()) -> list[int]:
        """The verifier runs a pass; ``choices`` are the full model's own, one a row, and so are ``logprobs`` where any are."""
        verifier = self._verifiers[self._stream]
        plan = verifier.plan(MAX_ROWS)
        verdict, finished = verifier.commit(plan, choices, logprobs=logprobs)
        told = {"logprobs": plain(logprobs)} if logprobs else {}
        step = {"at": "verifier", "stream": self._stream, "does": "pass", "nodes": list(plan.nodes), "choices": list(choices)}
        return self._verifier(step | told, [verdict, *([finished] if finished else [])])

    def supersede(self, stream: int) -> None:
        """The verifier ends a stream, because a higher attempt has come."""
        error = SessionSupersededError(f"attempt {self._stream} of this session took over")
        self.steps.append({"at": "verifier", "stream": stream, "does": "supersede", "status": status(error)})

    def deliver(self, *numbers: int) -> None:
        """Messages of the verifier reach the device."""
        for number in numbers:
            stream, data = self._messages[number]
            update = self.device.receive(codec.decode_response(data))
            known = {"log": list(self.device.final), "path": list(self.device.path)}
            told = {"logprobs": plain(update.logprobs)} if update.logprobs else {}
            self.steps.append({"at": "device", "stream": stream, "receives": number} | known | told)

    def _device(self, does: str, message: DeviceMessage, **extra: Any) -> int:
        number, sent = self._sent(message, codec.encode_request(message))
        self.steps.append({"at": "device", "stream": self._stream, "does": does, **extra, "sends": [sent]})
        return number

    def _verifier(self, step: dict[str, Any], messages: Sequence[CloudMessage]) -> list[int]:
        sent = [self._sent(message, codec.encode_response(message), step["stream"]) for message in messages]
        self.steps.append(step | {"sends": [description for _, description in sent]})
        return [number for number, _ in sent]

    def _sent(self, message: DeviceMessage | CloudMessage, data: bytes, stream: int = 0) -> tuple[int, dict[str, Any]]:
        self._messages.append((stream or self._stream, data))
        number = len(self._messages) - 1
        return number, {"message": number, "type": type(message).__name__, "hex": data.hex(), "fields": plain(message)}


def status(error: OutriderError) -> dict[str, str]:
    """The end of a stream: the code, the ``reason`` of its ``ErrorInfo``, and the bytes of its ``google.rpc.Status``."""
    details = status_from(error).SerializeToString().hex()
    return {"code": status_of(error).grpc, "reason": type(error).__name__, "details": details}


def plain(value: Any) -> Any:
    """Values as JSON, a cover, times and log probabilities only where there are any; seeds as text: JSON's numbers are unsafe
    beyond 2**53."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return plain({name: entry for name, entry in fields.items() if not _is_left_out(name, entry)})
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()} | ({"seed": str(value["seed"])} if "seed" in value else {})
    if isinstance(value, enum.Enum):
        return value.name
    return [plain(entry) for entry in value] if isinstance(value, tuple | list) else value


def _is_left_out(name: str, entry: Any) -> bool:
    return entry == UNCOVERED or (name in ("timings", "timing") and not entry) or (name == "logprobs" and entry in (None, ()))


def opened(recorder: Recorder) -> Recorder:
    recorder.deliver(*recorder.arrive(recorder.open()))
    return recorder


def accept() -> Recorder:
    """Right drafts, sent before Opened has come, then an end token."""
    record = Recorder(
        "Every draft equals the choice. The first draft is sent before Opened has come; an end token ends the text."
    )
    hello, first = record.open(), record.draft((21, 0, None), (22, 0, None), (70023, 0, None))
    record.deliver(*record.arrive(hello))
    record.arrive(first)
    record.deliver(*record.run_pass(21, 22, 70023, 24))
    record.arrive(record.draft((25, 0, None), (0, 0, None), passes=True))
    record.deliver(*record.run_pass(25, 0))
    return record


def revoke_and_correct() -> Recorder:
    """A wrong token, a child of the dead under way, and a second branch that held the correction."""
    sampled = SamplingParameters(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=2**64 - 3)
    record = opened(
        Recorder("Wrong drafts; nodes that die while more of them are under way; a second branch.", parameters=sampled)
    )
    record.arrive(record.draft((21, 0, None), (22, 0, None), (99, 0, None), (98, 0, None)))
    verdict = record.run_pass(21, 22, 23, 7, 7)
    crossing = record.draft((97, 0, None))
    record.deliver(*verdict)
    record.arrive(crossing)
    record.arrive(record.draft((96, 0, 0), (24, 1, 0), (25, 0, 7)))
    record.deliver(*record.run_pass(24, 7))
    record.deliver(*record.run_pass(25, 26))
    record.deliver(*record.arrive(record.cancel()))
    return record


def decoded() -> Recorder:
    """No drafts at all, up to the limit."""
    record = opened(Recorder("A device that never drafts: one token a pass, until the limit.", max_tokens=3))
    for choice in (21, 22, 23):
        record.deliver(*record.run_pass(choice))
    return record


def late() -> Recorder:
    """Drafts that arrive, twice, when their positions are final already."""
    record = opened(Recorder("Drafts arrive after the fact, and again: compared, not run. Their children count.", max_tokens=5))
    behind = record.draft((21, 0, None), (22, 0, None), (23, 0, None))
    verdicts = [*record.run_pass(21), *record.run_pass(22)]
    record.arrive(behind)
    record.arrive(behind)
    record.deliver(*verdicts)
    record.deliver(*record.run_pass(23, 24))
    record.deliver(*record.run_pass(25))
    return record


def resume() -> Recorder:
    """The link breaks with drafts and a verdict under way; the session goes on from a longer prefix."""
    record = opened(
        Recorder("A verdict is lost with its stream: a longer prefix, a higher attempt, the live tree again from 1.")
    )
    record.arrive(record.draft((21, 0, None), (22, 0, None)))
    record.deliver(*record.run_pass(21, 22, 23))
    record.arrive(record.draft((24, 0, None), (25, 0, None), (99, 1, 0)))
    record.run_pass(24, 25, 26)
    answer = record.arrive(record.open())
    record.supersede(1)
    record.arrive(record.draft((26, 0, None)))
    record.deliver(*answer)
    record.deliver(*record.run_pass(24, 25, 26, 0))
    return record


def elsewhere() -> Recorder:
    """A verifier is gone with a verdict under way; the device drafts on, and another verifier decides what that was worth."""
    record = opened(
        Recorder("A verifier is lost with a verdict; the device drafts on alone, and another goes on from what is final.")
    )
    record.arrive(record.draft((21, 0, None), (22, 0, None)))
    record.deliver(*record.run_pass(21, 22, 23))
    record.arrive(record.draft((24, 0, None), (25, 0, None)))
    record.run_pass(24, 25, 26)
    record.draft((26, 0, None), (99, 0, None), (98, 0, None))
    answer = record.arrive(record.open())
    record.deliver(*answer)
    record.arrive(record.draft((97, 0, None)))
    record.deliver(*record.run_pass(24, 25, 26, 27, 7, 7, 7))
    record.arrive(record.draft((0, 0, None), passes=True))
    record.deliver(*record.run_pass(0))
    return record


def cancelled() -> Recorder:
    """A cancel that crosses a verdict."""
    record = opened(Recorder("A cancel; a verdict that was under way still counts.", priority=-2, deadline_ms=60_000))
    record.arrive(record.draft((21, 0, None), (22, 0, None)))
    verdict = record.run_pass(21, 22, 23)
    cancel = record.cancel()
    record.deliver(*verdict)
    record.deliver(*record.arrive(cancel))
    return record


def packed() -> Recorder:
    """A verifier that reads packed drafts: branches, second choices, and a parent far back."""
    record = opened(
        Recorder("The verifier reads packed drafts: chains, second branches, a branch far back.", reads_packed=True)
    )
    record.arrive(record.draft((21, 0, None), (22, 0, None), (99, 0, None)))
    record.arrive(record.draft((98, 0, None), (23, 1, 2), (24, 0, 5)))
    record.deliver(*record.run_pass(21, 22, 23, 7, 7))
    record.arrive(record.draft((70025, 0, None), (31, 1, 0)))
    record.deliver(*record.run_pass(24, 70025, 26))
    record.arrive(record.draft((0, 0, None), passes=True))
    record.deliver(*record.run_pass(0))
    return record


def credit_exceeded() -> Recorder:
    """One node over the ceiling."""
    record = opened(Recorder("One live node over the ceiling, which no device may send: the stream ends.", credit=32))
    nodes = [Node(number, number - 1, 100 + number, 5 if number == 1 else 0) for number in range(1, 34)]
    record.arrive(record.misbehave(Draft(tuple(nodes), len(PROMPT))))
    return record


def logprobs() -> Recorder:
    """Log probabilities of runs, choices and an end token, some of them told twice over two streams."""
    record = opened(
        Recorder("The device asks for log probabilities, and for the two likeliest tokens beside each.", logprobs=2)
    )
    record.arrive(record.draft((21, 0, None), (99, 0, None)))
    told = [TokenLogprobs(-n / 4, ((n, -0.125), (20 + n, -n / 4))) for n in range(1, 9)]
    record.deliver(*record.run_pass(21, 22, 7, logprobs=[told[0], told[1], told[6]]))
    record.arrive(record.draft((23, 0, None)))
    record.run_pass(23, 24, logprobs=told[2:4])
    answer = record.arrive(record.open())
    record.supersede(1)
    record.deliver(*answer)
    record.deliver(*record.run_pass(23, logprobs=told[2:3]))
    record.deliver(*record.run_pass(24, logprobs=told[3:4]))
    record.arrive(record.draft((25, 0, None), (0, 0, None)))
    record.deliver(*record.run_pass(25, 0, logprobs=told[4:6]))
    return record


SESSIONS = {
    "accept": accept,
    "revoke_and_correct": revoke_and_correct,
    "decoded": decoded,
    "late": late,
    "resume": resume,
    "elsewhere": elsewhere,
    "cancel": cancelled,
    "packed": packed,
    "credit_exceeded": credit_exceeded,
    "logprobs": logprobs,
}


def text_of(name: str) -> str:
    """The file of a session: one step a line."""
    transcript = SESSIONS[name]().to_json()
    steps = ",\n".join("  " + json.dumps(step) for step in transcript.pop("steps"))
    head = "".join(f" {json.dumps(key)}: {json.dumps(value)},\n" for key, value in transcript.items())
    return f'{{\n{head} "steps": [\n{steps}\n ]\n}}\n'


if __name__ == "__main__":
    for session in SESSIONS:
        (FOLDER / f"{session}.json").write_text(text_of(session), "utf-8")
