"""The two kinds of answer that OpenAI's clients know, whole and in chunks: completions and chat. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from device_agent.events import DoneEvent, Json, SessionEvent
from device_agent.logprobs import FinalLikelihood
from device_agent.openai.logprobs import chat_json, completion_json
from device_agent.openai.usage import usage_of

FINISH_REASONS = {"stop": "stop"}
"""What ends an answer for any other reason (its limit, its deadline) has cut it off."""
CUT_OFF = "length"


@dataclass(frozen=True, slots=True)
class Head:
    """What every chunk of an answer repeats. ``created``: seconds since 1970; ``seed``: the one that the text came from."""

    id: str
    created: int
    model: str
    system_fingerprint: str
    seed: int

    @classmethod
    def of(cls, session: SessionEvent, prefix: str, created: int) -> Head:
        """``prefix`` goes before the session's id."""
        fingerprint = f"fp_{session.pair_digest[:16]}"
        return cls(f"{prefix}-{session.session_id}", created, session.full, fingerprint, session.seed)

    def to_json(self, kind: str) -> Json:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.system_fingerprint,
        }


Told = Sequence[FinalLikelihood] | None
"""Log probabilities of the tokens of a choice; None where none are told."""


class Shape(Protocol):
    """How an answer of one kind is written. A choice is what a chunk, or the whole answer, has one of."""

    prefix: str
    whole: str
    chunk: str

    def opening(self) -> Json | None:
        """The choice before any text; None where there is none."""

    def piece(self, text: str, told: Told) -> Json:
        """A choice that adds text."""

    def end(self, reason: str, told: Told) -> Json:
        """The last choice."""

    def all(self, text: str, reason: str, told: Told) -> Json:
        """The choice of a whole answer."""


class Completion:
    """``text_completion``."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def opening(self) -> Json | None:
        return None

    def piece(self, text: str, told: Told) -> Json:
        logprobs = None if told is None else completion_json(told)
        return {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": None}

    def end(self, reason: str, told: Told) -> Json:
        return self.all("", reason, told)

    def all(self, text: str, reason: str, told: Told) -> Json:
        return self.piece(text, told) | {"finish_reason": reason}


class Chat:
    """``chat.completion``; its chunks hold deltas, of which the first has the role."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self) -> Json | None:
        return self._choice({"role": "assistant", "content": ""}, None)

    def piece(self, text: str, told: Told) -> Json:
        return self._choice({"content": text}, told)

    def end(self, reason: str, told: Told) -> Json:
        return self._choice({}, told) | {"finish_reason": reason}

    def all(self, text: str, reason: str, told: Told) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": 0, "message": message, "logprobs": self._logprobs(told), "finish_reason": reason}

    def _choice(self, delta: Json, told: Told) -> Json:
        return {"index": 0, "delta": delta, "logprobs": self._logprobs(told), "finish_reason": None}

    def _logprobs(self, told: Told) -> Json | None:
        return None if told is None else chat_json(told)


COMPLETION, CHAT = Completion(), Chat()


def reason_of(done: DoneEvent) -> str:
    """Why an answer ended, in OpenAI's words."""
    return FINISH_REASONS.get(done.finish_reason, CUT_OFF)


def whole_answer(shape: Shape, head: Head, done: DoneEvent, told: Told) -> Json:
    """An answer that is not streamed. The key ``outrider`` holds what OpenAI has no place for."""
    choices = [shape.all(done.text, reason_of(done), told)]
    return head.to_json(shape.whole) | {"choices": choices, "usage": usage_of(done), "outrider": extras(head)}


def extras(head: Head) -> Json:
    """What OpenAI has no place for: a seed that was drawn gives the same text again."""
    return {"seed": head.seed}
