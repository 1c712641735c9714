"""Log probabilities on the wire: lists of numbers, of equally many likeliest tokens for each token of a verdict; left out where
there are none."""

from __future__ import annotations

from collections.abc import Sequence

from speculation.errors import MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.wire.v1 import verification_pb2 as pb


def wire_logprobs(logprobs: Sequence[TokenLogprobs]) -> pb.Logprobs:
    """Raises ``ValueError`` unless all tokens have equally many beside them."""
    if len({len(one.top) for one in logprobs}) > 1:
        raise ValueError("the tokens of a verdict have equally many of the likeliest beside them")
    top = [entry for one in logprobs for entry in one.top]
    return pb.Logprobs(
        values=[one.logprob for one in logprobs],
        top_ids=[token_id for token_id, _ in top],
        top_values=[value for _, value in top],
    )


def logprobs_of(wire: pb.Verdict) -> tuple[TokenLogprobs, ...]:
    """Raises ``MalformedMessageError`` for lists that do not fit each other, and for what is no log probability."""
    if not wire.HasField("logprobs"):
        return ()  # the usual case
    told = wire.logprobs
    num_tokens, num_top = len(told.values), len(told.top_ids)
    fits = num_top == len(told.top_values) and (num_top % num_tokens == 0 if num_tokens else not num_top)
    if not fits:
        raise MalformedMessageError("log probabilities: equally many of the likeliest tokens go with each token")
    top = list(zip(told.top_ids, told.top_values, strict=True))
    each = num_top // num_tokens if num_tokens else 0
    return tuple([TokenLogprobs(value, tuple(top[n * each : (n + 1) * each])) for n, value in enumerate(told.values)])


def count_of(wire: pb.Open | pb.Opened) -> int | None:
    """How many of the likeliest tokens are asked for, or granted; None where nothing is."""
    return wire.logprobs if wire.HasField("logprobs") else None
