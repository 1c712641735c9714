"""Errors as gRPC statuses, there and back."""

import grpc
import pytest
from google.rpc import error_details_pb2

from speculation import errors
from speculation.errors import (
    STATUS,
    CapacityError,
    EngineError,
    HandshakeError,
    InvalidRequestError,
    LinkError,
    PairError,
    UnknownNameError,
)
from speculation.links.status import DETAILS_KEY, error_from, status_from


def there_and_back(error):
    status = status_from(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return error_from(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, status.message))


def leaves():
    plain = [leaf("what happened") for leaf in STATUS if leaf is not UnknownNameError]
    return [
        *plain,
        UnknownNameError("phone", "brick", ["pixel"]),
        InvalidRequestError("too long", "prompt"),
        CapacityError("full", 2.5),
        PairError("not served", 1, (3, 2)),
    ]


@pytest.mark.parametrize("error", leaves(), ids=lambda error: type(error).__name__)
def test_every_leaf_arrives_as_itself(error):
    got = there_and_back(error)
    assert type(got) is type(error)
    assert str(got) == str(error)
    assert vars(got) == vars(error)


@pytest.mark.parametrize("leaf", STATUS)
def test_every_leaf_has_the_code_of_the_one_table(leaf):
    error = leaf.__new__(leaf)
    assert grpc.StatusCode[STATUS[leaf].grpc].value[0] == status_from(error).code


@pytest.mark.parametrize("told", ["", "3 two -1 \u0663", "3 " + "9" * 5000])
def test_counters_that_mean_nothing_are_left_out(told):
    """What a peer sends in their place neither fails nor counts."""
    status = status_from(PairError("not served", 1, (3, 2)))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    info.metadata["served"], info.metadata["asked"] = told, told.removeprefix("3")
    status.details[0].Pack(info)
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    got = error_from(grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), trailers, ""))
    assert isinstance(got, PairError)
    assert (got.asked, got.served) == (0, (3,) if told else ())


def test_an_end_that_does_not_know_a_leaf_reads_its_code():
    """An older device takes the refusal of a pair for what it is: the two ends do not fit."""
    status = status_from(PairError("not served", 1, (3, 2)))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    info.reason = "SomethingNewError"
    status.details[0].Pack(info)
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    got = error_from(grpc.aio.AioRpcError(grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), trailers, ""))
    assert type(got) is HandshakeError


def test_a_foreign_exception_does_not_tell_its_text():
    got = there_and_back(ValueError("a secret path"))
    assert type(got) is EngineError
    assert "secret" not in str(got)


@pytest.mark.parametrize(
    ("code", "leaf"),
    [
        (grpc.StatusCode.UNAVAILABLE, LinkError),
        (grpc.StatusCode.CANCELLED, LinkError),
        (grpc.StatusCode.UNKNOWN, LinkError),
        (grpc.StatusCode.UNIMPLEMENTED, HandshakeError),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, CapacityError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineError),
    ],
)
@pytest.mark.parametrize("trailers", [grpc.aio.Metadata(), grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff"))])
def test_a_bare_or_damaged_status_is_read_by_its_code(code, leaf, trailers):
    got = error_from(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, "why"))
    assert type(got) is leaf
    assert "why" in str(got)


@pytest.mark.parametrize("number", [0, 1], ids=["ErrorInfo", "RetryInfo"])
def test_a_damaged_detail_of_a_status_leaves_its_code(number):
    status = status_from(CapacityError("full", 2.5))
    status.details[number].value = b"\xff\xff"
    trailers = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    got = error_from(grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), trailers, "why"))
    assert type(got) is CapacityError
    assert "why" in str(got)


@pytest.mark.parametrize("letter", ["y", "é", "😀", "%", "\n"])
def test_a_text_that_quotes_the_peer_leaves_room_in_the_trailers_for_the_status(letter):
    """A client of gRPC drops trailers over 8 KiB, and the error with them. Both texts are escaped on the way."""
    error = errors.UnknownNameError("key", letter * 100_000, ["prompt"], parameter=letter * 100_000)
    status = status_from(error)
    assert status.message.startswith("unknown key '")
    escaped_bytes = 3 * len(status.message.encode())
    assert escaped_bytes + 4 / 3 * len(status.SerializeToString()) < 7 * 1024 + 512
