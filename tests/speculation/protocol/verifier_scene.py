"""A verifier's session as its tests begin it, and a pass over it."""

from __future__ import annotations

from speculation.parameters import SamplingParameters
from speculation.protocol.messages import (
    Draft,
    Node,
    Open,
    PairIdentity,
    Verdict,
    VerdictKind,
)
from speculation.protocol.verifier import VerifierSession

ACCEPT, CORRECT, DECODED = VerdictKind.ACCEPT, VerdictKind.REVOKE_AND_CORRECT, VerdictKind.DECODED
END = 99


def session(prefix: tuple[int, ...] = (1, 2), max_tokens: int = 100, credit: int = 40, start: int = 2) -> VerifierSession:
    identity = PairIdentity("t", "p", "f")
    message = Open("s", 1, identity, prefix, start, SamplingParameters(), max_tokens, end_token_ids=(END,))
    return VerifierSession(message, credit)


def branch(first: int, *token_ids: int, parent: int = 0, root: int = 2, rank: int = 0) -> list[Node]:
    nodes = [Node(first, parent, token_ids[0], 0 if parent else root, rank)]
    nodes += [Node(first + i, first + i - 1, token_id) for i, token_id in enumerate(token_ids[1:], 1)]
    return nodes


def send(verifier: VerifierSession, nodes: list[Node], known: int = 2, passes: bool = False) -> None:
    verifier.receive(Draft(tuple(nodes), known, passes))


def commit(verifier: VerifierSession, *choices: int, max_nodes: int = 16) -> Verdict:
    """A pass whose rows choose ``choices``; rows behind the last one named choose 77."""
    plan = verifier.plan(max_nodes)
    rows = [*choices, *[77] * len(plan.nodes)][: len(plan.nodes) + 1]
    return verifier.commit(plan, rows)[0]
