from __future__ import annotations

import pytest

from speculation.errors import MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import (
    MAX_DRAFT_NODES,
    MAX_TOKEN_ID,
    MAX_VERSION,
    Draft,
    Node,
    Open,
    Opened,
    PairIdentity,
    Verdict,
    VerdictKind,
)

IDENTITY = PairIdentity("t", "p", "f")
ACCEPT = VerdictKind.ACCEPT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number": 0, "parent": 0, "token_id": 1}, "numbered from 1"),
        ({"number": 2, "parent": 2, "token_id": 1}, "not an earlier node"),
        ({"number": 2, "parent": -1, "token_id": 1}, "not an earlier node"),
        ({"number": 2, "parent": 1, "token_id": -1}, "out of range"),
        ({"number": 2, "parent": 1, "token_id": MAX_TOKEN_ID + 1}, "out of range"),
        ({"number": 2, "parent": 1, "token_id": 1, "root_position": -1}, "not negative"),
        ({"number": 2, "parent": 1, "token_id": 1, "rank": -1}, "not negative"),
    ],
)
def test_a_node_that_means_nothing_cannot_be_made(arguments, message):
    with pytest.raises(MalformedMessageError, match=message):
        Node(**arguments)


@pytest.mark.parametrize(
    "nodes", [(Node(1, 0, 1), Node(3, 0, 1)), (Node(2, 0, 1), Node(1, 0, 1)), (Node(1, 0, 1), Node(1, 0, 1))]
)
def test_the_nodes_of_a_draft_are_numbered_without_gaps(nodes):
    with pytest.raises(MalformedMessageError, match="without gaps"):
        Draft(nodes, 1)


def test_a_draft_is_bounded():
    assert len(Draft(tuple(Node(n, 0, 1) for n in range(1, MAX_DRAFT_NODES + 1)), 1).nodes) == MAX_DRAFT_NODES
    with pytest.raises(MalformedMessageError, match="too many"):
        Draft(tuple(Node(n, 0, 1) for n in range(1, MAX_DRAFT_NODES + 2)), 1)
    with pytest.raises(MalformedMessageError, match="known"):
        Draft((), -1)


@pytest.mark.parametrize("version", [-1, MAX_VERSION + 1])
def test_the_version_of_a_pair_is_a_number_that_the_wire_holds(version):
    assert PairIdentity("t", "p", "f", MAX_VERSION).version == MAX_VERSION
    with pytest.raises(MalformedMessageError, match="version"):
        PairIdentity("t", "p", "f", version)


def an_open(**change):
    arguments = {
        "session_id": "s",
        "attempt": 1,
        "identity": IDENTITY,
        "prefix": (1, 2),
        "generation_start": 2,
        "parameters": SamplingParameters(),
        "max_tokens": 1,
    }
    return Open(**{**arguments, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"session_id": ""}, "session_id"),
        ({"attempt": 0}, "attempt"),
        ({"prefix": ()}, "prefix is empty"),
        ({"prefix": (1, -1)}, "out of range"),
        ({"prefix": (1, MAX_TOKEN_ID + 1)}, "out of range"),
        ({"generation_start": 0}, "generation_start"),
        ({"generation_start": 3}, "generation_start"),
        ({"max_tokens": 0}, "max_tokens"),
    ],
)
def test_an_open_that_means_nothing_cannot_be_made(change, message):
    with pytest.raises(MalformedMessageError, match=message):
        an_open(**change)


def test_a_prefix_may_hold_every_token_id_that_there_is():
    assert an_open(prefix=(0, MAX_TOKEN_ID)).limit == 3


@pytest.mark.parametrize(
    "arguments",
    [(-1, 0, 0, 5), (0, -1, 0, 5), (0, 1, 0, 5), (0, 0, 1, 5), (0, 0, 0, None), (0, 0, 0, -1), (0, 0, 0, MAX_TOKEN_ID + 1)],
)
def test_a_verdict_that_means_nothing_cannot_be_made(arguments):
    with pytest.raises(MalformedMessageError):
        Verdict(*arguments, kind=ACCEPT)


@pytest.mark.parametrize("num_told", [1, 3])
def test_a_verdict_has_a_log_probability_for_each_of_its_tokens_or_for_none(num_told):
    told = TokenLogprobs(-1.0, ())
    assert len(Verdict(4, 1, 7, 5, ACCEPT, logprobs=(told, told)).logprobs) == 2
    with pytest.raises(MalformedMessageError, match="for each of its tokens"):
        Verdict(4, 1, 7, 5, ACCEPT, logprobs=(told,) * num_told)


def test_a_verdict_knows_where_it_ends():
    assert Verdict(4, 2, 7, 5, ACCEPT).end == 7
    assert Verdict(4, 2, 7, None, ACCEPT).end == 6


def test_opened_grants_at_least_one_node():
    with pytest.raises(MalformedMessageError, match="credit"):
        Opened("s", 0, "x")


@pytest.mark.parametrize(
    ("nodes", "known"),
    [
        ((), 4),
        ((Node(1, 0, 5, 3),), 4),
        ((Node(1, 0, 5, 4, 4),), 4),
        ((Node(1, 0, 5, 4), Node(2, 1, 6, 0, 4)), 4),
        ((Node(2**30 + 1, 1, 5),), 4),
    ],
)
def test_what_the_shorter_form_cannot_tell_is_not_packed(nodes, known):
    with pytest.raises(MalformedMessageError, match="cannot be packed"):
        Draft(nodes, known, is_packed=True)


@pytest.mark.parametrize("node", [Node(1, 0, 5, 4, 3), Node(2**30, 1, 5)])
def test_the_shorter_form_tells_the_highest_rank_and_the_longest_way_back_that_it_has_bits_for(node):
    assert Draft.of((node,), 4, passes=False, packs=True).is_packed
