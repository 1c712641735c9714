"""Conformance cases of log probabilities: each token has one, whatever was drafted; a small request makes no large answer."""

from __future__ import annotations

import math

from outrider.conformance_bench import Bench, Cases
from outrider.conformance_stream import Stream, expect
from speculation.errors import OutriderError
from speculation.logprobs import TokenLogprobs
from speculation.protocol.messages import INITIAL_CREDIT

NUM_LIKELIEST = 3
TOO_MANY = 2**32 - 1
ROUNDING = 1e-4

CASES = Cases()


@CASES.add("where Opened says so, each token has its log probability, and drafts change none of them")
async def tells_log_probabilities(bench: Bench) -> None:
    right, wrong = bench.text[:8], [bench.wrong(token_id) for token_id in bench.text[8:16]]
    told: list[list[TokenLogprobs]] = []
    for drafts in ((), bench.text[: min(INITIAL_CREDIT, len(bench.text) - 1)], [*right, *wrong]):
        async with bench.stream(logprobs=NUM_LIKELIEST) as stream:
            granted = (await stream.opening()).logprobs
            if granted is None:
                return
            expect(granted == NUM_LIKELIEST, f"logprobs {NUM_LIKELIEST}, as asked for", granted)
            if drafts:
                await stream.send_chain(drafts, bench.start)
            bench.expect_text(await stream.rest(), len(bench.text))
            told.append(_told(stream))
    for one in told[0]:
        _expect_in_order(one)
    expect(told[1] == told[0] and told[2] == told[0], "the log probabilities of plain decoding", "others beside drafts")


@CASES.add("more of the likeliest tokens than anyone needs are INVALID_ARGUMENT, or not promised")
async def refuses_absurdly_many_log_probabilities(bench: Bench) -> None:
    async with bench.stream(logprobs=TOO_MANY) as stream:
        try:
            opened = await stream.opening()
        except OutriderError:
            await stream.expect_refusal("INVALID_ARGUMENT")
        else:
            expect(opened.logprobs is None, "a refusal", opened.logprobs)


def _told(stream: Stream) -> list[TokenLogprobs]:
    for verdict in stream.verdicts:
        num_tokens = verdict.end - verdict.start
        expect(len(verdict.logprobs) == num_tokens, f"{num_tokens} log probabilities, one a token", verdict)
    return [one for verdict in stream.verdicts for one in verdict.logprobs]


def _expect_in_order(one: TokenLogprobs) -> None:
    order = [(-value, token_id) for token_id, value in one.top]
    expect(len(order) == NUM_LIKELIEST and order == sorted(order), "the likeliest first, equals by their ids", one.top)
    share = sum(math.exp(value) for _, value in one.top)
    expect(share <= 1 + ROUNDING and one.logprob <= one.top[0][1], "probabilities that can be", one)
