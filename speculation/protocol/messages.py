"""The messages of one session, as values; ``docs/protocol.md`` tells how they are used.

Device to cloud: ``Open``, then any number of ``Draft``, perhaps a ``Cancel``.
Cloud to device: ``Opened``, then any number of ``Verdict``, then one ``Finished``. Failures are errors of the stream itself.

A constructor refuses a message that could mean nothing (``MalformedMessageError``); whether a message fits the session is
the session's to judge.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from speculation.errors import MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.cover import UNCOVERED, Cover
from speculation.values import value

CHOICE_RULE = "gumbel-philox4x32-1"
MAX_TOKEN_ID = 2**31 - 1
MAX_VERSION = MAX_WIRE_NUMBER = 2**32 - 1
INITIAL_CREDIT = 32
"""Live nodes that a device may have before it knows the ceiling; every verifier bears at least so many."""
MAX_DRAFT_NODES = 4096
"""Nodes in one ``Draft``; more is malformed, so that a small message cannot cost much memory."""
MAX_PACKED_RANK = 3
"""A packed draft has two bits for a rank."""
MAX_PACKED_DISTANCE = 2**30 - 1
"""How much less a parent's number may be than its node's in a packed draft: the other thirty bits."""


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise MalformedMessageError(what)


@dataclass(frozen=True, slots=True)
class PairIdentity:
    """What both ends must agree on before a token is spent; digests are lower-case hexadecimal SHA-256.

    ``version`` is the pair's counter, for people and for figures: the digests decide. 0 where it has none.
    """

    tokenizer_digest: str
    pair_digest: str
    full_digest: str
    version: int = 0

    def __post_init__(self) -> None:
        _require(0 <= self.version <= MAX_VERSION, f"a pair's version is from 0 to {MAX_VERSION}, not {self.version}")


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a session, or go on with it on a new stream (a longer prefix and a higher attempt).

    ``prefix`` is final: the prompt and every final token known so far. ``generation_start`` is the position of the first
    generated token. ``max_tokens`` counts generated tokens from there. Positions are absolute, the prompt's first token is 0.
    ``fingerprint`` is empty on a first attempt, else that of the verifier which chose the prefix.
    ``cover`` is what the device does to what it sends, and asks of the verifier. ``timings``: verdicts are to tell their times.
    ``logprobs``: verdicts are to tell log probabilities, with so many of the likeliest tokens; None where they are not.
    """

    session_id: str
    attempt: int
    identity: PairIdentity
    prefix: tuple[int, ...]
    generation_start: int
    parameters: SamplingParameters
    max_tokens: int
    end_token_ids: tuple[int, ...] = ()
    choice_rule: str = CHOICE_RULE
    priority: int = 0
    deadline_ms: int | None = None
    fingerprint: str = ""
    cover: Cover = UNCOVERED
    timings: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _require(bool(self.session_id), "session_id is empty")
        _require(self.attempt >= 1, f"attempt counts from 1, not {self.attempt}")
        _require(bool(self.prefix), "the prefix is empty: a session starts with at least one token")
        _require(all(0 <= t <= MAX_TOKEN_ID for t in self.prefix), "the prefix holds a token id out of range")
        _require(1 <= self.generation_start <= len(self.prefix), "generation_start lies outside the prefix")
        _require(self.max_tokens >= 1, f"max_tokens must be at least 1, not {self.max_tokens}")

    @property
    def limit(self) -> int:
        """The position behind the last token that may be generated."""
        return self.generation_start + self.max_tokens


@value
class Node:
    """One drafted token. ``parent`` is an earlier node's number, or 0 for a node at ``root_position`` of the final log.

    ``rank`` is the token's place in the device's own order at that parent: 0 for its first choice, 1 for its second, and so on.
    ``root_position`` means nothing where ``parent`` is not 0.
    """

    number: int
    parent: int
    token_id: int
    root_position: int = 0
    rank: int = 0

    def __post_init__(self) -> None:
        is_sound = 0 <= self.parent < self.number and 0 <= self.token_id <= MAX_TOKEN_ID
        if is_sound and self.root_position >= 0 and self.rank >= 0:
            return  # the usual case: no message is built for it
        _require(self.number >= 1, f"nodes are numbered from 1, not {self.number}")
        _require(0 <= self.parent < self.number, f"node {self.number} names parent {self.parent}, which is not an earlier node")
        _require(0 <= self.token_id <= MAX_TOKEN_ID, f"token id {self.token_id} is out of range")
        _require(self.root_position >= 0 and self.rank >= 0, "root_position and rank are not negative")


@value
class Draft:
    """New nodes in order of their numbers; ``known`` is the length of the final log that the device has.

    ``passes``: nothing worth waiting for will come before the next verdict. ``is_packed``: in the shorter form on
    the wire, for a verifier that reads it.
    """

    nodes: tuple[Node, ...]
    known: int
    passes: bool = False
    is_packed: bool = False

    def __post_init__(self) -> None:
        _require(self.known >= 0, "known is negative")
        _require(len(self.nodes) <= MAX_DRAFT_NODES, "a draft holds too many nodes")
        number = self.nodes[0].number if self.nodes else 0
        for node in self.nodes:
            if node.number != number:
                raise MalformedMessageError("nodes of a draft are numbered without gaps")
            number += 1
        _require(not self.is_packed or _may_be_packed(self.nodes, self.known), "a draft that cannot be packed")

    @classmethod
    def of(cls, nodes: tuple[Node, ...], known: int, passes: bool, packs: bool) -> Draft:
        """In the shorter form where the verifier reads it (``packs``) and it can tell these nodes."""
        return cls(nodes, known, passes, packs and _may_be_packed(nodes, known))


def _may_be_packed(nodes: Sequence[Node], known: int) -> bool:
    """There are nodes, roots stand at the end of the log, ranks are small, and no branch hangs too far back."""
    for node in nodes:
        fits = node.number - node.parent <= MAX_PACKED_DISTANCE if node.parent else node.root_position == known
        if not fits or node.rank > MAX_PACKED_RANK:
            return False
    return bool(nodes)


@dataclass(frozen=True, slots=True)
class Cancel:
    """The device wants no more of this session."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The session runs. ``credit`` is the ceiling of live nodes; ``fingerprint`` names the verifier's exact arithmetic.

    ``is_exact``: the engine's start-up self-test proved bitwise invariance. ``cached`` tokens of the prefix need no prefill,
    as far as that is known; of a session that waits for a seat it is not.
    ``reads_packed``: drafts may come packed. ``newest_pair`` is the counter of the newest pair served there, 0 where it has
    none or that is not told. ``cover`` is what the verifier does to what it sends. ``logprobs`` is what ``Open`` asked for, or
    None where this verifier tells none.
    """

    session_id: str
    credit: int
    fingerprint: str
    is_exact: bool = True
    cached: int = 0
    reads_packed: bool = False
    newest_pair: int = 0
    cover: Cover = UNCOVERED
    logprobs: int | None = None

    def __post_init__(self) -> None:
        _require(self.credit >= 1, "credit is at least 1")


class VerdictKind(enum.Enum):
    """For people and statistics; a device needs only the verdict's fields."""

    ACCEPT = "accept"
    REVOKE_AND_CORRECT = "revoke_and_correct"
    DECODED = "decoded"

    __hash__ = object.__hash__  # there is one of each; an enumeration's own hash is a call of Python for every verdict


@dataclass(frozen=True, slots=True)
class Timing:
    """When a verdict was made, in whole microseconds: what its pass took, and how long the message that brought the last of its
    nodes had been there (None where there is no such node). ``rows`` of the pass were this session's."""

    pass_us: int
    rows: int
    held_us: int | None = None


@value
class Verdict:
    """What one pass made final: from ``start`` on, ``count`` tokens of the path to node ``last_node``, then ``choice``.

    ``choice`` is None where an end token or the limit cut the run. ``last_node`` is 0 where ``count`` is 0.
    ``kind`` is ACCEPT where the run ends with the drafts, REVOKE_AND_CORRECT where the choice contradicts a known draft,
    DECODED where there was none. ``advice`` is the number of live nodes worth sending, at most the credit; 0 gives none.
    ``withholds``: until a verdict without it no draft is worth sending. ``timing`` is there where ``Open`` asked for it.
    ``logprobs`` has an entry for every token, where ``Opened`` said so; else it is empty.
    """

    start: int
    count: int
    last_node: int
    choice: int | None
    kind: VerdictKind
    advice: int = 0
    withholds: bool = False
    timing: Timing | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()

    def __post_init__(self) -> None:
        run, choice = self.count, self.choice
        is_sound = self.start >= 0 and (run > 0 < self.last_node or run == 0 == self.last_node)
        if is_sound and not self.logprobs and (run if choice is None else 0 <= choice <= MAX_TOKEN_ID):
            return  # the usual case: no message is built for it
        _require(self.start >= 0 and self.count >= 0, "start and count are not negative")
        _require((self.count == 0) == (self.last_node == 0), "a run has a last node, and only a run has one")
        _require(self.count > 0 or self.choice is not None, "a verdict makes at least one token final")
        _require(self.choice is None or 0 <= self.choice <= MAX_TOKEN_ID, "the choice is out of range")
        is_told = not self.logprobs or len(self.logprobs) == self.end - self.start
        _require(is_told, "a verdict has a log probability for each of its tokens, or for none")

    @property
    def end(self) -> int:
        """Length of the final log after this verdict."""
        return self.start + self.count + (self.choice is not None)


class FinishReason(enum.Enum):
    """Why a session ended."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    DEADLINE = "deadline"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a session cost the verifier, in the field's words.

    ``passes`` counts full-model passes that chose at least one token of this session; ``proposed`` nodes received;
    ``accepted`` drafts committed from a row of a pass; ``late`` drafts that agreed after the fact; ``corrections`` choices
    that contradicted a draft; ``bonus`` choices behind a wholly accepted run; ``discarded`` nodes that were never compared
    or lost.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    passes: int = 0
    proposed: int = 0
    accepted: int = 0
    late: int = 0
    corrections: int = 0
    bonus: int = 0
    discarded: int = 0
    near_ties: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The session ended in order; nothing follows."""

    reason: FinishReason
    usage: Usage = field(default_factory=Usage)


DeviceMessage = Open | Draft | Cancel
CloudMessage = Opened | Verdict | Finished
