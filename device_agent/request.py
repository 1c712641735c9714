"""What a client may ask of ``POST /v1/stream``, checked key by key. No model is needed to judge anything here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from device_agent.checks import check_prompt, check_stops, check_unicode
from device_agent.checks import require as _require
from device_agent.privacy import Privacy, strictest
from device_agent.retrieval.asking import Retrieve, read_retrieve
from device_agent.values import flag, number, one_of, stops, text, whole
from speculation.errors import InvalidRequestError, UnknownNameError
from speculation.logprobs import MAX_LOGPROBS
from speculation.parameters import NO_DEFAULTS, GenerationDefaults, SamplingParameters

RATES = {"reader": 5.0, "voice": 4.0}
"""Tokens a second of who takes them in: 238 words a minute are read (``reading.py``), some 180 spoken, at 1.3 tokens a word."""

MAX_RATE = 10_000

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "logit_bias": ({},),
}
"""Parameters that would change the text and are not implemented, with the values at which they change nothing."""


class Mode(StrEnum):
    """Who writes: both, the verifier alone, the device alone, or whoever a policy says (``device_agent/routing``)."""

    COLLABORATE = "collaborate"
    CLOUD = "cloud"
    DEVICE = "device"
    AUTO = "auto"


class Reveal(StrEnum):
    """What is shown: every draft, drafts that are likely to stay, or final tokens alone."""

    ALL = "all"
    STABLE = "stable"
    FINAL = "final"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. Raises ``UnknownNameError`` for a label that is none."""

    role: str
    content: str
    privacy: Privacy = Privacy.OPEN

    def __post_init__(self) -> None:
        object.__setattr__(self, "privacy", _privacy("messages.privacy", self.privacy))


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One request. ``seed`` None lets the device draw one; ``max_tokens`` None takes the agent's default, and so do
    ``temperature``, ``top_p``, ``top_k`` and ``min_p``.

    ``messages``, where there are any, go before ``prompt`` with a model that has a chat template; ``prompt`` is their contents,
    for one that has none.
    ``min_stability`` counts with reveal ``stable`` only. ``offline_tokens`` limits what the device drafts on alone once the
    verifier is lost (None: up to ``max_tokens``; 0 ends there). ``timeline``: what happens when is recorded. With ``privacy``
    ``device_only``, of the request or of one of its messages, nothing of it leaves the device. ``logprobs``: final tokens come
    with their log probabilities, and with those of so many likeliest tokens in their places; None: they do not.
    ``tokens_per_s`` is a rate that the device is to promise, None: as it comes. ``retrieve``: how the agent's documents are
    used. Raises ``InvalidRequestError`` for a value that cannot be served.
    """

    prompt: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    mode: Mode = Mode.COLLABORATE
    reveal: Reveal = Reveal.ALL
    min_stability: float = 0.5
    offline_tokens: int | None = None
    priority: int = 0
    deadline_ms: int | None = None
    tokens_per_s: float | None = None
    messages: tuple[Message, ...] = ()
    timeline: bool = False
    privacy: Privacy = Privacy.OPEN
    logprobs: int | None = None
    retrieve: Retrieve | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", _mode("mode", self.mode))
        object.__setattr__(self, "reveal", _reveal("reveal", self.reveal))
        object.__setattr__(self, "privacy", _privacy("privacy", self.privacy))
        self._check_text()
        for message in self.messages:
            check_unicode(message.role, "messages")
        _require(self.max_tokens is None or self.max_tokens >= 1, "max_tokens", "at least 1", self.max_tokens)
        _require(0 <= self.min_stability <= 1, "min_stability", "from 0 to 1", self.min_stability)
        _require(self.offline_tokens is None or self.offline_tokens >= 0, "offline_tokens", "at least 0", self.offline_tokens)
        _require(abs(self.priority) < 2**31, "priority", "a 32-bit number", self.priority)
        _require(self.deadline_ms is None or 1 <= self.deadline_ms < 2**31, "deadline_ms", "at least 1", self.deadline_ms)
        given = self.tokens_per_s
        _require(given is None or 0 < given <= MAX_RATE, "tokens_per_s", f"above 0 and at most {MAX_RATE}", given)
        check_stops(self.stop)
        _require((self.top_k or 0) < 2**31, "top_k", "a 31-bit number", self.top_k)
        _require(0 <= (self.logprobs or 0) <= MAX_LOGPROBS, "logprobs", f"from 0 to {MAX_LOGPROBS}", self.logprobs)
        self.parameters(self.seed or 0)
        if self.mode is Mode.DEVICE and self.reveal is Reveal.FINAL:
            where = "use POST /v1/stream with reveal all or stable"  # other routes show final text alone
            raise InvalidRequestError(f"mode device has no final tokens to show: {where}", "reveal")
        if self.is_private:
            self._check_stays()
        if self.logprobs is not None and (self.is_private or self.mode is Mode.DEVICE):
            why = "logprobs are the full model's, which has no part in what stays on the device"
            raise InvalidRequestError(f"{why}: leave them out", "logprobs")

    @property
    def is_private(self) -> bool:
        """Whether the request, or any message of it, is labelled ``device_only``: then all of it is."""
        return strictest((self.privacy, *(message.privacy for message in self.messages))) is Privacy.DEVICE_ONLY

    def _check_stays(self) -> None:
        if self.reveal is Reveal.FINAL:
            why = "what is labelled device_only is written by the draft alone, and has no final tokens to show"
            where = "use POST /v1/stream with reveal all or stable"
            raise InvalidRequestError(f"{why}: {where}", "reveal")
        if self.mode in (Mode.COLLABORATE, Mode.CLOUD):
            why = f"mode {self.mode.value} sends the prompt to the verifier, and the label device_only keeps it here"
            raise InvalidRequestError(f"{why}: use mode auto or device", "mode")

    def _check_text(self) -> None:
        check_prompt(self.prompt)

    def parameters(self, seed: int, defaults: GenerationDefaults = NO_DEFAULTS) -> SamplingParameters:
        """The parameters of the choice, with the seed that was resolved, and the defaults of what the request leaves open."""
        return SamplingParameters(
            temperature=defaults.temperature if self.temperature is None else self.temperature,
            top_k=defaults.top_k if self.top_k is None else self.top_k,
            top_p=defaults.top_p if self.top_p is None else self.top_p,
            min_p=defaults.min_p if self.min_p is None else self.min_p,
            seed=seed,
        )

    @classmethod
    def from_json(cls, body: object) -> StreamRequest:
        """A request from a JSON object. A key that is not known is refused, and so is one that is known and not implemented."""
        if not isinstance(body, Mapping):
            raise InvalidRequestError("the body must be a JSON object")
        values = read_values(body)
        if ("prompt" in values) == ("messages" in values):
            raise InvalidRequestError("give either prompt or messages", "prompt")
        if "messages" in values:
            # An empty line between them: a model that completes text needs no roles.
            values["prompt"] = "\n\n".join(message.content for message in values["messages"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class TokenRequest(StreamRequest):
    """One whose prompt is given in tokens, which are taken as they are; ``prompt`` counts for nothing."""

    prompt_token_ids: tuple[int, ...] = ()

    def _check_text(self) -> None:
        _require(bool(self.prompt_token_ids), "prompt", "at least one token", "none")


def read_values(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a JSON object gives, each judged by itself. Raises ``InvalidRequestError``."""
    given = {key: value for key, value in body.items() if not _is_neutral(key, value)}
    _refuse_unknown(given)
    return {key: _READERS[key](key, value) for key, value in given.items() if value is not None}


def _is_neutral(key: str, value: object) -> bool:
    """Whether the key may be dropped; raises where it would have changed the text."""
    if key not in NEUTRAL:
        return False
    if value is None or (value in NEUTRAL[key] and not isinstance(value, bool)):
        return True
    raise InvalidRequestError(f"{key} is not implemented; leave it out or set it to {NEUTRAL[key][0]}", key)


def _refuse_unknown(given: Mapping[str, Any]) -> None:
    unknown = next((key for key in given if key not in _READERS), None)
    if unknown is not None:
        raise UnknownNameError("key", unknown, _READERS, parameter=unknown)


def _rate(key: str, value: object) -> float:
    """Tokens a second, as a number or by who takes them in."""
    return RATES[one_of(key, value, RATES)] if isinstance(value, str) else number(key, value)


def _mode(key: str, value: object) -> Mode:
    return Mode(one_of(key, value, Mode))


def _reveal(key: str, value: object) -> Reveal:
    return Reveal(one_of(key, value, Reveal))


def _privacy(key: str, value: object) -> Privacy:
    return Privacy(one_of(key, value, Privacy))


def _messages(key: str, value: object) -> tuple[Message, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise InvalidRequestError(f"{key} must be a list of objects with role and content", key)
    return tuple([_message(key, message) for message in value])


def _message(key: str, message: object) -> Message:
    if not isinstance(message, Mapping) or set(message) - {"privacy"} != {"role", "content"}:
        raise InvalidRequestError(
            f"each of {key} must be an object with role and content, and privacy where it has a label", key
        )
    label = Privacy.OPEN if message.get("privacy") is None else message["privacy"]
    return Message(text(f"{key}.role", message["role"]), text(f"{key}.content", message["content"]), label)


_READERS: dict[str, Callable[[str, object], Any]] = {
    "prompt": text,
    "messages": _messages,
    "max_tokens": whole,
    "temperature": number,
    "top_p": number,
    "top_k": whole,
    "min_p": number,
    "seed": whole,
    "stop": stops,
    "mode": _mode,
    "reveal": _reveal,
    "min_stability": number,
    "offline_tokens": whole,
    "priority": whole,
    "deadline_ms": whole,
    "tokens_per_s": _rate,
    "timeline": flag,
    "privacy": _privacy,
    "logprobs": whole,
    "retrieve": read_retrieve,
}
KNOWN_KEYS = tuple(_READERS)
