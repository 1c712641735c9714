"""What a message of the verifier changed at the device, as a value. Pure."""

from __future__ import annotations

from speculation.errors import MalformedMessageError
from speculation.logprobs import TokenLogprobs
from speculation.protocol.messages import Finished, Opened, Verdict, VerdictKind
from speculation.values import value


@value
class Update:
    """What a message changed: ``tokens`` are newly final, from position ``start`` on.

    ``kept``: all of them agree with the drafted path, so what was drafted behind them still stands. Where it is False the
    session's ``path`` may still hold another branch. ``fingerprint_changed``: this verifier's arithmetic is not that of the
    one before; the owner must say so or refuse. ``logprobs`` has an entry for each of ``tokens``, where they were
    asked for.
    """

    start: int
    tokens: tuple[int, ...] = ()
    kept: bool = True
    kind: VerdictKind | None = None
    logprobs: tuple[TokenLogprobs, ...] = ()
    opened: Opened | None = None
    finished: Finished | None = None
    fingerprint_changed: bool = False


def logprobs_of(verdict: Verdict, num_new: int, count: int | None) -> tuple[TokenLogprobs, ...]:
    """Those of the last ``num_new`` tokens of a verdict, where ``count`` was asked for: what overlaps the log was told when it
    became final. Raises ``MalformedMessageError`` where they are not there.
    """
    if count is None or not num_new:
        return ()
    told = verdict.logprobs[-num_new:]
    if len(told) != num_new or any(len(one.top) > count for one in told):
        raise MalformedMessageError("a verdict lacks the log probabilities that Opened promised")
    return told
