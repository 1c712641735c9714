"""Messages to bytes and back: this package alone touches generated code.

Links hand bytes to gRPC's generic handlers under ``METHOD_PATH``. Whatever bytes a peer sends, decoding returns a message
or raises ``MalformedMessageError``. Encoding raises ``ValueError`` for a number beyond what the wire holds (32 bits).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from google.protobuf.message import DecodeError

from speculation.errors import InvalidRequestError, MalformedMessageError
from speculation.parameters import SamplingParameters
from speculation.protocol.messages import (
    MAX_DRAFT_NODES,
    Cancel,
    CloudMessage,
    DeviceMessage,
    Draft,
    Finished,
    Node,
    Open,
    Opened,
    PairIdentity,
    Usage,
    Verdict,
)
from speculation.wire import names, packed, timings
from speculation.wire.covers import cover_of, wire_cover
from speculation.wire.logprobs import count_of, logprobs_of, wire_logprobs
from speculation.wire.v1 import verification_pb2 as pb

SERVICE = "speculation.wire.v1.VerificationService"
METHOD = "Verify"
METHOD_PATH = f"/{SERVICE}/{METHOD}"

VerifyRequest = pb.VerifyRequest
VerifyResponse = pb.VerifyResponse
WireMessage = pb.VerifyRequest | pb.VerifyResponse

_DEVICE_MESSAGES = Open, Draft, Cancel
_USAGE_FIELDS = tuple(Usage.__dataclass_fields__)


def encode_request(message: DeviceMessage) -> bytes:
    """A device's message as the bytes of a ``VerifyRequest``."""
    return _request(message).SerializeToString()


def encode_response(message: CloudMessage) -> bytes:
    """A verifier's message as the bytes of a ``VerifyResponse``."""
    return _response(message).SerializeToString()


def decode_request(data: bytes) -> DeviceMessage:
    """The message in a ``VerifyRequest``. Raises ``MalformedMessageError``."""
    try:
        return _from_request(pb.VerifyRequest.FromString(data))
    except DecodeError as error:
        raise MalformedMessageError("the bytes are no VerifyRequest") from error


def decode_response(data: bytes) -> CloudMessage:
    """The message in a ``VerifyResponse``. Raises ``MalformedMessageError``."""
    try:
        return _from_response(pb.VerifyResponse.FromString(data))
    except DecodeError as error:
        raise MalformedMessageError("the bytes are no VerifyResponse") from error


def encode(message: DeviceMessage | CloudMessage) -> WireMessage:
    """A message as a protobuf message: a request of a device, a response of a verifier."""
    if isinstance(message, _DEVICE_MESSAGES):
        return _request(message)
    return _response(message)


def decode(wire: WireMessage) -> DeviceMessage | CloudMessage:
    """The message in a protobuf message. Raises ``MalformedMessageError``."""
    return _from_request(wire) if isinstance(wire, pb.VerifyRequest) else _from_response(wire)


def encoded_size(message: DeviceMessage | CloudMessage) -> int:
    """Bytes of the message on its stream, without gRPC's own framing."""
    return encode(message).ByteSize()


def _request(message: DeviceMessage) -> pb.VerifyRequest:
    request = pb.VerifyRequest()
    match message:
        case Draft():
            _fill_draft(request.draft, message)
        case Open():
            _fill_open(request.open, message)
        case Cancel():
            request.cancel.SetInParent()
    return request


def _response(message: CloudMessage) -> pb.VerifyResponse:
    response = pb.VerifyResponse()
    match message:
        case Verdict():
            _fill_verdict(response.verdict, message)
        case Opened():
            response.opened.MergeFrom(_wire_opened(message))
        case Finished():
            usage = pb.Usage(**{name: getattr(message.usage, name) for name in _USAGE_FIELDS})
            response.finished.MergeFrom(pb.Finished(reason=names.REASONS[message.reason], usage=usage))
    return response


def _fill_draft(wire: pb.Draft, draft: Draft) -> None:
    wire.passes = draft.passes
    if draft.is_packed:
        wire.packed.extend(packed.pack(draft))
        return
    wire.known = draft.known
    if draft.nodes:
        wire.first_number = draft.nodes[0].number
    for branch in packed.branches(draft.nodes):
        first = branch[0]
        added = wire.branches.add(parent=first.parent, rank=first.rank)
        if first.parent == 0:
            added.root_position = first.root_position
        added.token_ids.extend([node.token_id for node in branch])


def _fill_open(wire: pb.Open, message: Open) -> None:
    wire.session_id = message.session_id
    wire.attempt = message.attempt
    wire.choice_rule = message.choice_rule
    wire.prefix.extend(message.prefix)
    wire.generation_start = message.generation_start
    wire.max_tokens = message.max_tokens
    wire.end_token_ids.extend(message.end_token_ids)
    wire.priority = message.priority
    wire.fingerprint = message.fingerprint
    wire.timings = message.timings
    cover, deadline_ms = wire_cover(message.cover), message.deadline_ms
    wire.MergeFrom(pb.Open(cover=cover, deadline_ms=deadline_ms, logprobs=message.logprobs))
    _fill_identity(wire.identity, message.identity)
    _fill_parameters(wire.parameters, message.parameters)


def _fill_identity(wire: pb.PairIdentity, identity: PairIdentity) -> None:
    wire.tokenizer_digest = identity.tokenizer_digest
    wire.pair_digest = identity.pair_digest
    wire.full_digest = identity.full_digest
    wire.version = identity.version


def _fill_parameters(wire: pb.SamplingParameters, parameters: SamplingParameters) -> None:
    wire.temperature = parameters.temperature
    wire.top_k = parameters.top_k
    wire.top_p = parameters.top_p
    wire.min_p = parameters.min_p
    wire.seed = parameters.seed


def _fill_verdict(wire: pb.Verdict, verdict: Verdict) -> None:
    """Field by field: there is one for each token, and a message made of keywords takes three times as long."""
    wire.start = verdict.start
    if verdict.count:
        wire.count, wire.last_node = verdict.count, verdict.last_node
    wire.kind = names.KINDS[verdict.kind]
    if verdict.choice is not None:
        wire.choice = verdict.choice
    if verdict.advice:
        wire.advice = verdict.advice
    if verdict.withholds:
        wire.withhold = True
    if verdict.timing is not None:
        wire.timing.MergeFrom(timings.wire_timing(verdict.timing))
    if verdict.logprobs:
        wire.logprobs.MergeFrom(wire_logprobs(verdict.logprobs))


def _wire_opened(opened: Opened) -> pb.Opened:
    return pb.Opened(
        session_id=opened.session_id,
        credit=opened.credit,
        fingerprint=opened.fingerprint,
        is_exact=opened.is_exact,
        cached=opened.cached,
        reads_packed=opened.reads_packed,
        newest_pair=opened.newest_pair,
        cover=wire_cover(opened.cover),
        logprobs=opened.logprobs,
    )


def _from_request(request: pb.VerifyRequest) -> DeviceMessage:
    draft = request.draft
    if numbers := draft.packed[:]:  # nearly all of them, and known without the name of what a request holds
        return _packed_draft(draft, numbers)
    match request.WhichOneof("message"):
        case "draft":
            return _draft(draft)
        case "open":
            return _open(request.open)
        case "cancel":
            return Cancel()
        case _:
            raise MalformedMessageError("a VerifyRequest holds one of open, draft and cancel")


def _from_response(response: pb.VerifyResponse) -> CloudMessage:
    match response.WhichOneof("message"):
        case "verdict":
            return _verdict(response.verdict)
        case "opened":
            return _opened(response.opened)
        case "finished":
            return _finished(response.finished)
        case _:
            raise MalformedMessageError("a VerifyResponse holds one of opened, verdict and finished")


def _packed_draft(wire: pb.Draft, numbers: Sequence[int]) -> Draft:
    """``numbers`` as a list: a walk through one of protobuf's ends with an exception, whose text is composed every time."""
    if wire.known or wire.first_number or wire.branches:
        raise MalformedMessageError("a draft is packed, or it is not")
    return packed.unpack(numbers, wire.passes)


def _draft(wire: pb.Draft) -> Draft:
    nodes: list[Node] = []
    for branch in wire.branches:
        token_ids = branch.token_ids[:]
        if not token_ids or len(nodes) + len(token_ids) > MAX_DRAFT_NODES:
            raise MalformedMessageError(f"a branch holds at least one token, a draft at most {MAX_DRAFT_NODES} nodes")
        parent, rank, root_position = branch.parent, branch.rank, branch.root_position
        for number, token_id in enumerate(token_ids, wire.first_number + len(nodes)):
            nodes.append(Node(number, parent, token_id, root_position, rank))
            parent, rank, root_position = number, 0, 0
    return Draft(tuple(nodes), wire.known, wire.passes)


def _open(wire: pb.Open) -> Open:
    return Open(
        session_id=wire.session_id,
        attempt=wire.attempt,
        identity=_identity(wire.identity),
        prefix=tuple(wire.prefix[:]),
        generation_start=wire.generation_start,
        parameters=_parameters(wire.parameters),
        max_tokens=wire.max_tokens,
        end_token_ids=tuple(wire.end_token_ids),
        choice_rule=wire.choice_rule,
        priority=wire.priority,
        deadline_ms=wire.deadline_ms if wire.HasField("deadline_ms") else None,
        fingerprint=wire.fingerprint,
        cover=cover_of(wire),
        timings=wire.timings,
        logprobs=count_of(wire),
    )


def _identity(wire: pb.PairIdentity) -> PairIdentity:
    return PairIdentity(wire.tokenizer_digest, wire.pair_digest, wire.full_digest, wire.version)


def _parameters(wire: pb.SamplingParameters) -> SamplingParameters:
    top_p = wire.top_p if wire.HasField("top_p") else 1.0
    try:
        return SamplingParameters(wire.temperature, wire.top_k, top_p, wire.min_p, wire.seed)
    except InvalidRequestError as error:
        raise MalformedMessageError(f"parameters: {error}") from error


def _verdict(wire: pb.Verdict) -> Verdict:
    choice = wire.choice if wire.HasField("choice") else None
    run, kind = (wire.start, wire.count, wire.last_node), names.kind_of(wire.kind)
    # By place: there is one for each token, and names are matched one by one.
    return Verdict(*run, choice, kind, wire.advice, wire.withhold, timings.timing_of(wire), logprobs_of(wire))


def _opened(wire: pb.Opened) -> Opened:
    told = wire.session_id, wire.credit, wire.fingerprint, wire.is_exact, wire.cached, wire.reads_packed, wire.newest_pair
    return Opened(*told, cover_of(wire), count_of(wire))


def _finished(wire: pb.Finished) -> Finished:
    usage = Usage(**{name: cast(int, getattr(wire.usage, name)) for name in _USAGE_FIELDS})
    return Finished(names.reason_of(wire.reason), usage)
