"""Tokens with their log probabilities, as clients are told of them, and what a token looks like by itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device_agent.answer import Decode
from speculation.logprobs import TokenLogprobs
from speculation.text import REPLACEMENT, TokenBytes


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely the full model held a token. ``token`` is its text, with bytes that are no whole characters written as
    ``\\xe2``; ``data`` are its bytes, None where it has none, or they are not known; ``/v1/stream`` leaves them out.
    """

    token_id: int
    token: str
    logprob: float
    data: bytes | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        return {"token_id": self.token_id, "token": self.token, "logprob": self.logprob}


@dataclass(frozen=True, slots=True)
class FinalLikelihood(Likelihood):
    """A token of the answer, and the likeliest ones in its place. ``offset``: the code point of the answer at which its text
    begins; ``/v1/stream`` leaves it out.
    """

    top: tuple[Likelihood, ...] = ()
    offset: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        own = {"token_id": self.token_id, "token": self.token, "logprob": self.logprob}
        return own | {"top": [one.to_json() for one in self.top]}


class Spelling:
    """What tokens look like by themselves. ``names`` are those of special tokens, which are no text."""

    def __init__(self, decode: Decode, names: Mapping[int, str]) -> None:
        self._decode = decode
        self._names = names

    def final(self, token_id: int, told: TokenLogprobs, offset: int) -> FinalLikelihood:
        """What the verifier told of a token of the answer."""
        top = tuple([Likelihood(*self._spelled(other, value)) for other, value in told.top])
        return FinalLikelihood(*self._spelled(token_id, told.logprob), top, offset)

    def _spelled(self, token_id: int, logprob: float) -> tuple[int, str, float, bytes | None]:
        if (name := self._names.get(token_id)) is not None:
            return token_id, name, logprob, None
        data = self._bytes(token_id)
        if data is None:
            return token_id, self._decode([token_id]), logprob, None
        return token_id, _text(data), logprob, data

    def _bytes(self, token_id: int) -> bytes | None:
        """None where they are not known: a decoder shows only that a character is incomplete."""
        if isinstance(self._decode, TokenBytes):
            return self._decode.of.get(token_id)
        text = self._decode([token_id])
        return None if REPLACEMENT in text else text.encode()


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "".join([f"\\x{byte:02x}" for byte in data])
