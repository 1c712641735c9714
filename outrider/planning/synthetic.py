"""A pair without weights whose acceptance is a knob: two engines that meet the process of the first-order model.

Behind every path of tokens the draft has a first choice, a second, and its chance ``a`` ~ Beta(alpha c, (1 - alpha) c) that the
full model takes the first (c small: misses come in bursts); with (1 - a) cover2 it takes the second, else a third token. The
draft's logits tell ``a`` and (1 - a) cover2 at temperature 1, so its confidence is calibrated; the full model's tell its token.

Nothing is consumed: all is a function of the seed and of the path, whose length is the position. So a path that left the full
model's own sees fresh draws, and both engines give the same rows in any order. What the full model takes is drawn apart from
what the draft says, by ``truth_draw``, which no draft engine calls.

A greedy draft takes its largest logit, so that must be the first choice's, even where the second is likelier: there the second
is told as just below the first, and a first choice under two shares of the vocabulary as that much.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from device_agent.pair import PairFacts
from speculation.engines.base import CacheId, Chunk, EngineDescription
from speculation.engines.random import RandomEngine
from speculation.protocol.messages import PairIdentity

VOCABULARY = 251
"""A prime: multiples of any stride are then distinct tokens."""

FIRST_LETTER = 0x4E00
IDENTITY = PairIdentity("a" * 64, "b" * 64, "c" * 64)
FIRST, SECOND, NEITHER = 0, 1, 2
LEAD = 1e-3
"""Units of logits by which one choice leads the next at least: more than a near-tie."""

LEAST, PEAK = 1e-30, 8.0
_EIGHT_WORDS = struct.Struct("<8Q")


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The knob. ``cover2``: the share of the first choice's misses that the second covers."""

    alpha: float
    cover2: float = 0.55
    concentration: float = 1.2


@dataclass(frozen=True, slots=True)
class Guess:
    """What the draft says behind a path: its choices (and a token that is neither), and how likely the two are."""

    choices: tuple[int, int, int]
    first: float
    second: float


def guess(address: bytes, acceptance: Acceptance) -> Guess:
    """The draft's side of the process at the address of a path."""
    uniforms = _uniforms(address, b"draft")
    token, stride = int(next(uniforms) * VOCABULARY), 1 + int(next(uniforms) * (VOCABULARY - 1))
    alpha, beta = acceptance.alpha * acceptance.concentration, (1 - acceptance.alpha) * acceptance.concentration
    first = _beta(uniforms, alpha, beta)
    choices = (token, (token + stride) % VOCABULARY, (token + 2 * stride) % VOCABULARY)
    return Guess(choices, first, (1 - first) * acceptance.cover2)


def truth_draw(address: bytes) -> float:
    """The full model's side: a number in (0, 1) that decides which choice it takes there."""
    return next(_uniforms(address, b"truth"))


def rank(said: Guess, draw: float) -> int:
    """Which of the draft's choices the full model takes."""
    if draw < said.first:
        return FIRST
    return SECOND if draw < said.first + said.second else NEITHER


class _SyntheticEngine(RandomEngine):
    """Caches of paths; a step takes ``step_s`` emulated seconds, whatever is in it."""

    def __init__(self, acceptance: Acceptance, seed: int, context_length: int, step_s: float, num_slots: int = 8) -> None:
        super().__init__(VOCABULARY, context_length, seed, num_slots)
        self._acceptance = acceptance
        self._step_s = step_s
        self._charge_s = 0.0

    @property
    def description(self) -> EngineDescription:
        return dataclasses.replace(super().description, name="synthetic")

    def address(self, cache: CacheId) -> bytes:
        """What the draws behind the path in a cache are addressed by; it holds a token at least."""
        return self._prefix(cache)[-1]

    def extend(self, chunks: Sequence[Chunk]) -> NDArray[np.float32]:
        self._charge_s += self._step_s
        return super().extend(chunks)

    def take_charge_s(self) -> float:
        """Emulated seconds since the last call."""
        charge_s, self._charge_s = self._charge_s, 0.0
        return charge_s


class Paths:
    """The same draws without engines, behind a prompt: for the first-order model. A path is named by its address."""

    def __init__(self, acceptance: Acceptance, seed: int, prompt: Sequence[int]) -> None:
        self._acceptance = acceptance
        engine = _SyntheticEngine(acceptance, seed, len(prompt), 0.0)
        cache = engine.open()
        engine.extend([Chunk(cache, prompt, 0)])
        self._start = engine.address(cache)
        self._guesses: dict[bytes, Guess] = {}

    def start(self) -> bytes:
        return self._start

    def chances(self, path: bytes) -> tuple[float, float]:
        said = self._guess(path)
        return said.first, said.second

    def taken(self, path: bytes) -> int:
        return rank(self._guess(path), truth_draw(path))

    def follow(self, path: bytes, rank: int) -> bytes:
        """As ``RandomEngine`` addresses a path that is one token longer."""
        token_id = self._guess(path).choices[rank]
        return hashlib.blake2b(path + token_id.to_bytes(8, "little"), digest_size=16).digest()

    def _guess(self, path: bytes) -> Guess:
        said = self._guesses.get(path)
        if said is None:
            said = self._guesses[path] = guess(path, self._acceptance)
        return said


class DraftEngine(_SyntheticEngine):
    """The draft: knows its guesses and nothing of what the full model takes."""

    def _row(self, digest: bytes) -> NDArray[np.float32]:
        said = guess(digest, self._acceptance)
        first = max(said.first, 2 / VOCABULARY)
        second = max(min(said.second, first * math.exp(-LEAD)), LEAST)
        rest = max((1 - first - second) / (VOCABULARY - 2), LEAST / VOCABULARY)
        row = np.empty(VOCABULARY, np.float32)
        row.fill(math.log(rest))
        row[said.choices[FIRST]], row[said.choices[SECOND]] = math.log(first), math.log(second)
        return row


class FullEngine(_SyntheticEngine):
    """The full model: sure of its token."""

    def _row(self, digest: bytes) -> NDArray[np.float32]:
        said = guess(digest, self._acceptance)
        row = np.zeros(VOCABULARY, np.float32)
        row[said.choices[rank(said, truth_draw(digest))]] = PEAK
        return row


def true_ranks(acceptance: Acceptance, seed: int, prompt: Sequence[int], count: int) -> list[int]:
    """Where the full model's own tokens behind a prompt stand among the draft's choices, as both engines' logits tell it."""
    length = len(prompt) + count
    draft, full = DraftEngine(acceptance, seed, length, 0.0), FullEngine(acceptance, seed, length, 0.0)
    draft_cache, full_cache = draft.open(), full.open()
    ranks: list[int] = []
    new = list(prompt)
    while len(ranks) < count:
        said = draft.extend([Chunk(draft_cache, new, 1)])[0]
        new = [int(full.extend([Chunk(full_cache, new, 1)])[0].argmax())]
        ranks.append(min(int(np.count_nonzero(said > said[new[0]])), NEITHER))
    return ranks


def encode(text: str) -> list[int]:
    return [(ord(letter) - FIRST_LETTER) % VOCABULARY for letter in text]


def decode(token_ids: list[int]) -> str:
    return "".join(chr(FIRST_LETTER + token_id) for token_id in token_ids)


def facts(context_length: int) -> PairFacts:
    """The pair as an agent knows it; no token ends the text."""
    return PairFacts("synthetic", "synthetic", IDENTITY, encode, decode, (), context_length, context_length)


def _uniforms(address: bytes, purpose: bytes) -> Iterator[float]:
    """Endless numbers in (0, 1), the same for the same address and purpose."""
    for block in itertools.count():
        drawn = hashlib.blake2b(address, person=purpose, salt=block.to_bytes(8, "little")).digest()
        for bits in _EIGHT_WORDS.unpack(drawn):
            yield ((bits >> 12) + 0.5) * 2.0**-52


def _beta(uniforms: Iterator[float], alpha: float, beta: float) -> float:
    """A Beta variate by Joehnk's rejection, quick where both parameters are small. No library's, whose draws may change."""
    while True:
        x, y = math.pow(next(uniforms), 1 / alpha), math.pow(next(uniforms), 1 / beta)
        if 0 < x + y <= 1:
            return x / (x + y)
