"""Padding: exact to the byte, skipped by whoever reads, and unknown to older ends without harm."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

from speculation.errors import MalformedMessageError
from speculation.parameters import SamplingParameters
from speculation.protocol.cover import LEAST_PAD_BYTES, MOST_PAD_BYTES, Cover
from speculation.protocol.messages import Cancel, Draft, Node, Open, Opened, PairIdentity, Verdict, VerdictKind
from speculation.wire import codec
from speculation.wire.padding import Padder, padded, padded_size
from speculation.wire.v1 import verification_pb2 as pb

COVER = Cover(256, 20)
OPEN = Open("s", 1, PairIdentity("a", "b", "c"), (1, 2, 3), 3, SamplingParameters(), 8, cover=COVER)
OPENED = Opened("s", 64, "f" * 16, cover=COVER)
VERDICT = Verdict(3, 0, 0, 42, VerdictKind.DECODED)


def draft(length: int) -> Draft:
    return Draft(tuple(Node(n, n - 1, 300, root_position=3 if n == 1 else 0) for n in range(1, length + 1)), 3)


@pytest.mark.parametrize("multiple", [LEAST_PAD_BYTES, 131, 256, 300, 1024, MOST_PAD_BYTES])
def test_every_message_has_exactly_a_multiple_of_the_bytes_and_not_one_multiple_too_many(multiple: int) -> None:
    """Lengths whose varint grows by a byte leave gaps that one field cannot fill: 131 bytes, for instance."""
    for length in (*range(0, 2 * multiple + 1, multiple // 32), *range(max(0, multiple - 140), multiple + 4)):
        data = bytes(length)
        size = len(padded(data, multiple))
        assert size == padded_size(len(data), multiple)
        assert size % multiple == 0
        assert size - len(data) < multiple + 3


@pytest.mark.parametrize("length", [1, 4, 62, 63, 64, 128])
def test_what_was_padded_is_read_as_what_it_was(length: int) -> None:
    for multiple in range(LEAST_PAD_BYTES, 300, 3):
        assert codec.decode_request(padded(codec.encode_request(draft(length)), multiple)) == draft(length)


def test_a_stream_is_padded_as_its_first_message_says() -> None:
    up, down = Padder(), Padder()
    assert [len(up.encode(message)) for message in (OPEN, draft(3), Cancel(), draft(200))] == [256, 256, 256, 512]
    assert [len(down.encode(message)) for message in (OPENED, VERDICT)] == [256, 256]
    assert (up.size(draft(200)), down.size(VERDICT), down.size(None)) == (512, 256, 0)
    assert codec.decode_request(up.encode(OPEN)) == OPEN
    assert codec.decode_response(down.encode(OPENED)) == OPENED


def test_without_padding_not_one_byte_changes() -> None:
    plain = Padder()
    assert plain.encode(draft(3)) == codec.encode_request(draft(3))
    assert plain.encode(VERDICT) == codec.encode_response(VERDICT)


@pytest.mark.parametrize("message", [OPEN, draft(3), Cancel(), OPENED, VERDICT], ids=lambda message: type(message).__name__)
def test_an_end_from_before_padding_reads_the_same_message(message: object) -> None:
    """Its fields are those of today without number 20 and above; it skips what it does not know."""
    kind = "VerifyRequest" if isinstance(message, Open | Draft | Cancel) else "VerifyResponse"
    plain = codec.encode(message)
    if isinstance(message, Open):
        plain.open.ClearField("cover")
    if isinstance(message, Opened):
        plain.opened.ClearField("cover")
    padder = Padder()
    padder.encode(OPEN)
    read = older(kind).FromString(padder.encode(message))
    read.DiscardUnknownFields()
    assert read.SerializeToString() == plain.SerializeToString()


def older(kind: str) -> type[Message]:
    """The generated class of a message as it was before there was a cover."""
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    for one in file.message_type:
        kept = [field for field in one.field if field.number < 20]
        del one.field[:]
        one.field.extend(kept)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{kind}"))


def test_both_directions_pad_by_the_same_field() -> None:
    numbers = {kind.DESCRIPTOR.fields_by_name["padding"].number for kind in (pb.VerifyRequest, pb.VerifyResponse)}
    assert numbers == {20}


def test_padding_alone_is_no_message() -> None:
    with pytest.raises(MalformedMessageError):
        codec.decode_request(padded(b"", 256))


def test_a_padder_that_heeds_an_absurd_cover_pads_no_further_than_may_be_asked_for():
    padder = Padder()
    assert padder.size(Draft((), 0)) < MOST_PAD_BYTES
    padder.heed(Opened("s", 1, "f", cover=Cover(2**20)))
    assert padder.size(Draft((), 0)) == len(padder.encode(Draft((), 0))) == MOST_PAD_BYTES
