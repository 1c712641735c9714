from __future__ import annotations

import math
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from speculation.errors import MalformedMessageError
from speculation.logprobs import LEAST_LOGPROB, TokenLogprobs
from speculation.parameters import MAX_SEED, SamplingParameters
from speculation.protocol.messages import (
    MAX_DRAFT_NODES,
    MAX_PACKED_DISTANCE,
    MAX_PACKED_RANK,
    MAX_TOKEN_ID,
    Cancel,
    Draft,
    Finished,
    FinishReason,
    Node,
    Open,
    Opened,
    PairIdentity,
    Timing,
    Usage,
    Verdict,
    VerdictKind,
)
from speculation.wire import codec
from speculation.wire.v1 import verification_pb2 as pb

UINT32 = st.integers(0, 2**32 - 1)
TOKEN_ID = st.integers(0, MAX_TOKEN_ID)
TEXT = st.text(max_size=20)
VALUE = st.floats(LEAST_LOGPROB, 0, width=32)
UNIT = st.floats(0, 1, exclude_min=True, exclude_max=True)

parameters = st.builds(SamplingParameters, st.floats(0, 100), UINT32, UNIT | st.just(1.0), UNIT, st.integers(0, MAX_SEED))


@st.composite
def opens(draw) -> Open:
    prefix = draw(st.lists(TOKEN_ID, min_size=1, max_size=20))
    return Open(
        session_id=draw(st.text(min_size=1, max_size=20)),
        attempt=draw(st.integers(1, 2**32 - 1)),
        identity=PairIdentity(draw(TEXT), draw(TEXT), draw(TEXT), draw(UINT32)),
        prefix=tuple(prefix),
        generation_start=draw(st.integers(1, len(prefix))),
        parameters=draw(parameters),
        max_tokens=draw(st.integers(1, 2**32 - 1)),
        end_token_ids=tuple(draw(st.lists(TOKEN_ID, max_size=3))),
        choice_rule=draw(TEXT),
        priority=draw(st.integers(-(2**31), 2**31 - 1)),
        deadline_ms=draw(st.none() | UINT32),
        fingerprint=draw(TEXT),
        timings=draw(st.booleans()),
        logprobs=draw(st.none() | UINT32),
    )


@st.composite
def drafts(draw) -> Draft:
    """Nodes as sessions make them: chains, forks, and any rank at any place."""
    first = draw(st.integers(1, 2**31))
    nodes = []
    for number in range(first, first + draw(st.integers(0, 12))):
        parent = draw(st.sampled_from([0, number - 1, number - 1]) | st.integers(0, number - 1))
        rank = draw(st.just(0) | UINT32)
        nodes.append(Node(number, parent, draw(TOKEN_ID), 0 if parent else draw(UINT32), rank))
    return Draft(tuple(nodes), draw(UINT32), draw(st.booleans()))


@st.composite
def packed_drafts(draw) -> Draft:
    """Nodes that the shorter form can tell."""
    known, first = draw(UINT32), draw(st.integers(1, 2**31))
    nodes = []
    for number in range(first, first + draw(st.integers(1, 12))):
        nearest = max(1, number - MAX_PACKED_DISTANCE)
        parent = draw(st.sampled_from([0, number - 1, number - 1]) | st.integers(min(nearest, number - 1), number - 1))
        rank = draw(st.just(0) | st.integers(0, MAX_PACKED_RANK))
        nodes.append(Node(number, parent, draw(TOKEN_ID), 0 if parent else known, rank))
    return Draft(tuple(nodes), known, draw(st.booleans()), is_packed=True)


timings = st.builds(Timing, UINT32, UINT32, st.none() | UINT32)


@st.composite
def verdicts(draw) -> Verdict:
    count = draw(st.just(0) | st.integers(1, 4) | st.integers(1, 2**32 - 1))
    choice = draw(TOKEN_ID if count == 0 else st.none() | TOKEN_ID)
    last_node = draw(st.integers(1, 2**32 - 1)) if count else 0
    num_tokens, told = count + (choice is not None), ()
    if num_tokens <= 5 and draw(st.booleans()):
        each = draw(st.integers(0, 3))
        entry = st.builds(TokenLogprobs, VALUE, st.lists(st.tuples(UINT32, VALUE), min_size=each, max_size=each).map(tuple))
        told = tuple(draw(st.lists(entry, min_size=num_tokens, max_size=num_tokens)))
    kind, timing = draw(st.sampled_from(VerdictKind)), draw(st.none() | timings)
    return Verdict(draw(UINT32), count, last_node, choice, kind, draw(UINT32), draw(st.booleans()), timing, told)


openeds = st.builds(
    Opened,
    TEXT,
    st.integers(1, 2**32 - 1),
    TEXT,
    st.booleans(),
    UINT32,
    st.booleans(),
    UINT32,
    logprobs=st.none() | UINT32,
)
usages = st.builds(Usage, **dict.fromkeys(Usage.__dataclass_fields__, UINT32))
finisheds = st.builds(Finished, st.sampled_from(FinishReason), usages)
device_messages = opens() | drafts() | packed_drafts() | st.just(Cancel())
cloud_messages = openeds | verdicts() | finisheds


def chain(length: int) -> Draft:
    return Draft(tuple(Node(300 + i, 299 + i, 5000 + i) for i in range(length)), 700)


@settings(deadline=None)
@given(device_messages)
def test_a_request_comes_back_as_it_was(message):
    assert codec.decode_request(codec.encode_request(message)) == message
    assert codec.decode(codec.encode(message)) == message


@settings(deadline=None)
@given(cloud_messages)
def test_a_response_comes_back_as_it_was(message):
    assert codec.decode_response(codec.encode_response(message)) == message
    assert codec.decode(codec.encode(message)) == message


@settings(deadline=None)
@given(device_messages | cloud_messages)
def test_the_size_is_that_of_the_bytes(message):
    encode = codec.encode_request if isinstance(message, Open | Draft | Cancel) else codec.encode_response
    assert codec.encoded_size(message) == len(encode(message))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_malformed(data):
    for decode in (codec.decode_request, codec.decode_response):
        with suppress(MalformedMessageError):
            decode(data)


@settings(max_examples=200, deadline=None)
@given(device_messages | cloud_messages, st.data())
def test_damaged_bytes_are_a_message_or_malformed(message, data):
    damaged = bytearray(codec.encode(message).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4)) if damaged else 0):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    for decode in (codec.decode_request, codec.decode_response):
        with suppress(MalformedMessageError):
            decode(bytes(damaged))


wire_branches = st.builds(pb.Branch, parent=UINT32, root_position=UINT32, rank=UINT32, token_ids=st.lists(UINT32, max_size=4))
wire_drafts = st.builds(pb.Draft, known=UINT32, first_number=UINT32, branches=st.lists(wire_branches, max_size=3))
wire_packed_drafts = st.builds(pb.Draft, packed=st.lists(st.integers(0, 9) | UINT32, max_size=9), passes=st.booleans())
wire_parameters = st.builds(
    pb.SamplingParameters, temperature=st.floats(), top_k=UINT32, top_p=st.floats(), min_p=st.floats(), seed=st.just(MAX_SEED)
)
wire_opens = st.builds(
    pb.Open,
    session_id=TEXT,
    attempt=st.integers(0, 2),
    prefix=st.lists(UINT32, max_size=4),
    generation_start=st.integers(0, 5),
    max_tokens=st.integers(0, 2),
    parameters=wire_parameters,
    end_token_ids=st.lists(UINT32, max_size=2),
    deadline_ms=st.none() | st.just(2**64 - 1),
)
wire_verdicts = st.builds(
    pb.Verdict,
    start=UINT32,
    count=UINT32,
    last_node=UINT32,
    choice=st.none() | UINT32,
    kind=st.integers(-1, 5),
    advice=UINT32,
    withhold=st.booleans(),
    timing=st.none() | st.builds(pb.Timing, pass_us=UINT32, rows=UINT32, held_us=st.none() | UINT32),
    logprobs=st.none()
    | st.builds(
        pb.Logprobs,
        values=st.lists(st.floats(width=32) | st.just(-1), max_size=3),
        top_ids=st.lists(UINT32, max_size=4),
        top_values=st.lists(st.floats(width=32) | st.just(-2), max_size=4),
    ),
)
wire_finisheds = st.builds(pb.Finished, reason=st.integers(-1, 7))
wire_openeds = st.builds(pb.Opened, session_id=TEXT, credit=UINT32)
requests = st.builds(pb.VerifyRequest, draft=wire_drafts | wire_packed_drafts) | st.builds(pb.VerifyRequest, open=wire_opens)
responses = (
    st.builds(pb.VerifyResponse, verdict=wire_verdicts)
    | st.builds(pb.VerifyResponse, opened=wire_openeds)
    | st.builds(pb.VerifyResponse, finished=wire_finisheds)
)


@settings(max_examples=300, deadline=None)
@given(requests | responses)
def test_any_field_values_are_a_message_or_malformed(wire):
    with suppress(MalformedMessageError):
        codec.decode(wire)


@pytest.mark.parametrize(
    "wire",
    [
        pb.VerifyRequest(),
        pb.VerifyRequest(open=pb.Open()),
        pb.VerifyRequest(draft=pb.Draft(first_number=1, branches=[pb.Branch()])),
        pb.VerifyRequest(draft=pb.Draft(branches=[pb.Branch(token_ids=[1])])),
        pb.VerifyRequest(draft=pb.Draft(first_number=1, branches=[pb.Branch(parent=1, token_ids=[1])])),
        pb.VerifyRequest(draft=pb.Draft(first_number=1, branches=[pb.Branch(token_ids=[2**31])])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 10, 0])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11, 4])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 0, 11, 0])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11, 0, 13])),
        pb.VerifyRequest(draft=pb.Draft(packed=[0, 1, 11, 4])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 5, 10, 12])),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11, 0], known=9)),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11, 0], first_number=1)),
        pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11, 0], branches=[pb.Branch(token_ids=[1])])),
        pb.VerifyResponse(),
        pb.VerifyResponse(opened=pb.Opened()),
        pb.VerifyResponse(verdict=pb.Verdict(choice=1)),
        pb.VerifyResponse(verdict=pb.Verdict(kind=pb.VERDICT_KIND_DECODED)),
        pb.VerifyResponse(verdict=pb.Verdict(choice=1, kind=99)),
        pb.VerifyResponse(finished=pb.Finished()),
        *[
            pb.VerifyResponse(verdict=pb.Verdict(choice=1, kind=pb.VERDICT_KIND_DECODED, logprobs=pb.Logprobs(**told)))
            for told in (
                {"values": [-1, -1]},
                {"values": [0.5]},
                {"values": [math.nan]},
                {"top_ids": [1], "top_values": [-1]},
                {"values": [-1], "top_ids": [1]},
                {"values": [-1], "top_ids": [1], "top_values": [math.inf]},
            )
        ],
    ],
)
def test_what_means_nothing_is_malformed(wire):
    with pytest.raises(MalformedMessageError):
        codec.decode(wire)


@pytest.mark.parametrize(
    "change", [{"temperature": math.nan}, {"temperature": -1}, {"top_p": 0}, {"top_p": math.inf}, {"min_p": 1}]
)
def test_parameters_out_of_range_are_malformed(change):
    message = Open("s", 1, PairIdentity("t", "p", "f"), (1,), 1, SamplingParameters(), 5)
    wire = codec.encode(message)
    for name, value in change.items():
        setattr(wire.open.parameters, name, value)
    with pytest.raises(MalformedMessageError, match=next(iter(change))):
        codec.decode(wire)


def test_an_absent_top_p_is_off():
    wire = codec.encode(Open("s", 1, PairIdentity("t", "p", "f"), (1,), 1, SamplingParameters(), 5))
    wire.open.ClearField("parameters")
    assert codec.decode(wire).parameters == SamplingParameters()


def test_a_deadline_of_0_ms_is_one():
    message = Open("s", 1, PairIdentity("t", "p", "f"), (1,), 1, SamplingParameters(), 5, deadline_ms=0)
    assert codec.decode(codec.encode(message)).deadline_ms == 0


def test_a_small_message_cannot_make_many_nodes():
    half = pb.Branch(token_ids=[1] * (MAX_DRAFT_NODES // 2))
    wire = pb.VerifyRequest(draft=pb.Draft(first_number=1, branches=[half, half]))
    assert len(codec.decode(wire).nodes) == MAX_DRAFT_NODES
    wire.draft.branches.add(token_ids=[1])
    with pytest.raises(MalformedMessageError, match="at most"):
        codec.decode(wire)


def test_a_packed_draft_cannot_make_many_nodes_either():
    wire = pb.VerifyRequest(draft=pb.Draft(packed=[9, 1, 11, 0, *[10] * (MAX_DRAFT_NODES - 1)]))
    assert len(codec.decode(wire).nodes) == MAX_DRAFT_NODES
    wire.draft.packed.append(10)
    with pytest.raises(MalformedMessageError, match="at most"):
        codec.decode(wire)


@pytest.mark.parametrize("length", [1, 2, 4, 8, 16, 32])
def test_a_chain_costs_two_bytes_a_token_and_a_few(length):
    assert codec.encoded_size(chain(length)) <= 2 * length + 16


def test_forks_cost_one_branch_each():
    nodes = (Node(1, 0, 5, 9), Node(2, 1, 6), Node(3, 1, 7, 0, 1), Node(4, 3, 8), Node(5, 2, 9))
    wire = codec.encode(Draft(nodes, 9))
    assert [list(branch.token_ids) for branch in wire.draft.branches] == [[5, 6], [7, 8], [9]]


def test_a_packed_draft_costs_two_bytes_a_token_one_a_branch_and_eight():
    nodes = (
        Node(301, 300, 1005, 0),
        Node(302, 301, 1006),
        Node(303, 301, 1007, 0, 1),
        Node(304, 0, 1008, 700),
        Node(305, 302, 1),
    )
    packed, plain = Draft(nodes, 700, is_packed=True), Draft(nodes, 700)
    assert codec.encoded_size(packed) == 8 + 4 + 4 * 2 + 1
    assert codec.encoded_size(plain) > 2 * codec.encoded_size(packed)
    assert list(codec.encode(packed).draft.packed) == [700, 301, 2011, 4, 2012, 2015, 9, 2017, 0, 3, 12]


def test_the_bytes_of_version_1_do_not_change():
    draft = Draft((Node(7, 6, 300), Node(8, 7, 301), Node(9, 0, 302, 40, 1)), 40, True)
    assert codec.encode_request(draft).hex() == "121a082810071a0808062204ac02ad021a08102818012202ae022001"
    packed = Draft((Node(7, 6, 300), Node(8, 7, 301), Node(9, 0, 302, 40, 1)), 40, True, is_packed=True)
    assert codec.encode_request(packed).hex() == "120e20012a0a2807d90404da04dd0401"
    verdict = Verdict(40, 2, 8, 302, VerdictKind.REVOKE_AND_CORRECT, 16)
    assert codec.encode_response(verdict).hex() == "120d08281002180820ae0228023010"


def test_log_probabilities_cost_four_bytes_a_token_and_six_a_token_beside_it_and_nothing_where_nobody_asks():
    plain = Verdict(40, 2, 8, 302, VerdictKind.ACCEPT, 16)
    told = Verdict(40, 2, 8, 302, VerdictKind.ACCEPT, 16, logprobs=tuple([TokenLogprobs(-1.5)] * 3))
    top = ((302, -0.5), (301, -1.5), (300, -2.5))
    more = Verdict(40, 2, 8, 302, VerdictKind.ACCEPT, 16, logprobs=tuple([TokenLogprobs(-1.5, top)] * 3))
    assert codec.encoded_size(told) == codec.encoded_size(plain) + 4 + 3 * 4
    assert codec.encoded_size(more) == codec.encoded_size(told) + 4 + 3 * 3 * 6
    assert not codec.encode(plain).verdict.HasField("logprobs")


def test_tokens_of_one_verdict_have_equally_many_beside_them():
    with pytest.raises(ValueError, match="equally many"):
        codec.encode(Verdict(0, 1, 1, 5, VerdictKind.ACCEPT, logprobs=(TokenLogprobs(-1), TokenLogprobs(-1, ((3, -1.0),)))))


def test_the_method_is_that_of_the_contract():
    service = pb.DESCRIPTOR.services_by_name["VerificationService"]
    assert service.full_name == codec.SERVICE
    assert f"/{service.full_name}/{service.methods[0].name}" == codec.METHOD_PATH
    assert service.methods[0].input_type.full_name == codec.VerifyRequest.DESCRIPTOR.full_name
    assert service.methods[0].output_type.full_name == codec.VerifyResponse.DESCRIPTOR.full_name


MESSAGE_BYTES = 256 * 1024
_HALF = pb.Branch(token_ids=[1] * (MAX_DRAFT_NODES // 2))
_CODES = [9, 1, 3, 0, *[2] * (MAX_DRAFT_NODES - 1)]
GREEDY_BYTES = {
    "packed": pb.VerifyRequest(draft=pb.Draft(packed=_CODES)).SerializeToString(),
    "packed over the limit": pb.VerifyRequest(draft=pb.Draft(packed=[*_CODES, *[2] * 200_000])).SerializeToString(),
    "branches": pb.VerifyRequest(draft=pb.Draft(first_number=1, branches=[_HALF, _HALF])).SerializeToString(),
    "a node a branch": pb.VerifyRequest(
        draft=pb.Draft(first_number=1, branches=[pb.Branch(token_ids=[1])] * MAX_DRAFT_NODES)
    ).SerializeToString(),
    "empty branches": b"\x12\x80\x80\x10" + b"\x1a\x00" * (MESSAGE_BYTES // 2),
    "prefix": pb.VerifyRequest(
        open=pb.Open(session_id="s", attempt=1, prefix=[300] * (MESSAGE_BYTES // 2), generation_start=1, max_tokens=1)
    ).SerializeToString(),
    "groups in groups": b"\x0b" * MESSAGE_BYTES,
    "many opens": b"\x0a\x00" * (MESSAGE_BYTES // 2),
}
"""Messages that make as much of each byte as can be."""


@pytest.mark.parametrize("name", GREEDY_BYTES)
def test_what_a_message_costs_in_memory_is_bounded_by_its_bytes(name):
    """A node of a draft is the dearest: at most some 200 bytes, of which a byte on the wire can make one."""
    data = GREEDY_BYTES[name]
    tracemalloc.start()
    try:
        with suppress(MalformedMessageError):
            codec.decode_request(data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 250 * min(len(data), MAX_DRAFT_NODES) + 60 * len(data)


def test_a_verdict_that_tells_no_times_is_not_a_byte_longer_and_nor_is_an_open_that_asks_for_none():
    verdict = Verdict(5, 2, 7, 42, VerdictKind.ACCEPT)
    assert b"".join((b"\x12\x0a", b"\x08\x05\x10\x02\x18\x07\x20\x2a\x28\x01")) == codec.encode_response(verdict)
    timed = Verdict(5, 2, 7, 42, VerdictKind.ACCEPT, timing=Timing(40_000, 3, 1_000))
    assert 0 < len(codec.encode_response(timed)) - len(codec.encode_response(verdict)) <= 16
    assert codec.decode_response(codec.encode_response(verdict)).timing is None
