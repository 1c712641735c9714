"""Conformance cases of a whole session: the handshake, how it ends, and that another stream goes on with it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from outrider.conformance_bench import Bench, Cases, offend
from outrider.conformance_stream import CheckFailedError, expect
from speculation.errors import OutriderError
from speculation.protocol.cover import UNCOVERED, Cover
from speculation.protocol.messages import INITIAL_CREDIT, Cancel, Draft, FinishReason, Node, Open, VerdictKind

NO_DIGEST = "0" * 64
STRANGE_RULE = "no-such-rule-1"
STRANGE_FINGERPRINT = "0" * 16
SOME_TOKENS = 5
COVER, ABSURD_COVER = Cover(512, 10), Cover(2**31, 1)

CASES = Cases()


@CASES.add("without drafts a session is decoded, one token a verdict")
async def decodes_without_drafts(bench: Bench) -> None:
    async with bench.stream() as stream:
        text = await stream.rest(FinishReason.LENGTH)
        kinds = {verdict.kind for verdict in stream.verdicts}
        expect(kinds == {VerdictKind.DECODED}, "verdicts of kind DECODED alone", sorted(kind.value for kind in kinds))
    bench.learn(text)


@CASES.add("another digest is refused with FAILED_PRECONDITION, and both digests are named")
async def refuses_another_pair(bench: Bench) -> None:
    ours = bench.subject.identity
    for name in ("tokenizer_digest", "pair_digest", "full_digest"):
        altered: dict[str, Any] = {name: NO_DIGEST}
        async with bench.stream(identity=replace(ours, **altered)) as stream:
            refusal = await stream.expect_refusal("FAILED_PRECONDITION")
        for digest in (NO_DIGEST, getattr(ours, name)):
            expect(digest in refusal.message, f"a refusal that names {name} {digest}", refusal.message)


@CASES.add("another choice rule is refused with FAILED_PRECONDITION")
async def refuses_another_rule(bench: Bench) -> None:
    async with bench.stream(choice_rule=STRANGE_RULE) as stream:
        await stream.expect_refusal("FAILED_PRECONDITION")


@CASES.add("a fingerprint of other arithmetic is refused, or answered with the verifier's own")
async def owns_up_to_its_fingerprint(bench: Bench) -> None:
    async with bench.stream(attempt=2, fingerprint=STRANGE_FINGERPRINT) as stream:
        try:
            opened = await stream.opening()
        except OutriderError:
            await stream.expect_refusal("FAILED_PRECONDITION")
        else:
            expect(opened.fingerprint != STRANGE_FINGERPRINT, "the verifier's own fingerprint", opened.fingerprint)


@CASES.add("half a close is no cancel: the session is decoded to its end, with the same text")
async def survives_half_a_close(bench: Bench) -> None:
    async with bench.stream() as stream:
        await stream.half_close()
        bench.expect_text(await stream.rest(), len(bench.text))


@CASES.add("bytes that are no message are INVALID_ARGUMENT")
async def refuses_bytes_that_are_no_message(bench: Bench) -> None:
    await offend(bench, b"\xff\xff\xff")


@CASES.add("a second Open on a stream is INVALID_ARGUMENT")
async def refuses_a_second_open(bench: Bench) -> None:
    await offend(bench, bench.open_message())


@CASES.add("a stream that does not begin with Open is INVALID_ARGUMENT")
async def refuses_a_stream_without_open(bench: Bench) -> None:
    async with bench.unopened(bench.open_message()) as stream:
        await stream.send(Draft((Node(1, 0, 1, bench.start),), bench.start))
        await stream.expect_refusal("INVALID_ARGUMENT")


@CASES.add("an error ends its own stream and nothing else")
async def keeps_other_streams(bench: Bench) -> None:
    async with bench.stream() as other:
        await other.opening()
        await offend(bench, b"\xff\xff\xff")
        bench.expect_text(await other.rest(), len(bench.text))


@CASES.add("Cancel is answered with Finished (cancelled)")
async def answers_cancel(bench: Bench) -> None:
    async with bench.stream(max_tokens=bench.longest) as stream:
        await stream.opening()
        await stream.send(Cancel())
        bench.expect_text(await stream.rest(FinishReason.CANCELLED))


@CASES.add("a higher attempt ends the older one with ABORTED and goes on with the same text")
async def lets_a_higher_attempt_take_over(bench: Bench) -> None:
    first = bench.open_message(max_tokens=bench.longest)
    async with bench.unopened(first) as older:
        await older.send(first)
        await older.grown_to(bench.start + 2)
        second = _next_attempt(first, older.log, older.opened.fingerprint if older.opened else "")
        async with bench.unopened(second) as newer:
            await newer.send(second)
            await older.expect_refusal("ABORTED")
            await newer.grown_to(bench.start + len(bench.text))
            bench.expect_text(newer.generated)


@CASES.add("a session that lost its stream goes on from a longer prefix, with the same text")
async def resumes_with_a_longer_prefix(bench: Bench) -> None:
    first = bench.open_message()
    async with bench.unopened(first) as lost:
        await lost.send(first)
        await lost.grown_to(bench.start + 4)
    second = _next_attempt(first, lost.log, lost.opened.fingerprint if lost.opened else "")
    async with bench.unopened(second) as stream:
        await stream.send(second)
        await stream.send_chain(bench.text[len(lost.generated) :][:INITIAL_CREDIT], len(lost.log))
        bench.expect_text(await stream.rest(), len(bench.text))


@CASES.add("an end token ends the text, with drafts behind it or without: Finished (stop)")
async def stops_at_an_end_token(bench: Bench) -> None:
    end = _last_new_token(bench.text)
    for drafts in (bench.text[: end + 5], ()):
        async with bench.stream(end_token_ids=(bench.text[end],)) as stream:
            if drafts:
                await stream.send_chain(drafts, bench.start)
            bench.expect_text(await stream.rest(FinishReason.STOP), end + 1)


@CASES.add("the limit ends the text, with drafts beyond it or without: Finished (length)")
async def stops_at_the_limit(bench: Bench) -> None:
    for drafts in (bench.text[: 2 * SOME_TOKENS], ()):
        async with bench.stream(max_tokens=SOME_TOKENS) as stream:
            if drafts:
                await stream.send_chain(drafts, bench.start)
            bench.expect_text(await stream.rest(FinishReason.LENGTH), SOME_TOKENS)


@CASES.add("a prefix that is complete is answered by Opened and Finished")
async def finishes_a_complete_prefix(bench: Bench) -> None:
    end = _last_new_token(bench.text)
    at_limit = {"prefix": (*bench.subject.prompt, *bench.text[:SOME_TOKENS]), "max_tokens": SOME_TOKENS}
    at_end = {"prefix": (*bench.subject.prompt, *bench.text[: end + 1]), "end_token_ids": (bench.text[end],)}
    for changes, reason in ((at_limit, FinishReason.LENGTH), (at_end, FinishReason.STOP)):
        async with bench.stream(attempt=2, **changes) as stream:
            await stream.rest(reason)
            expect(not stream.verdicts, "no verdict for a complete prefix", stream.verdicts)


@CASES.add("a prefix beyond its own limit is INVALID_ARGUMENT")
async def refuses_a_prefix_beyond_the_limit(bench: Bench) -> None:
    prefix = (*bench.subject.prompt, *bench.text[: SOME_TOKENS + 1])
    async with bench.stream(prefix=prefix, max_tokens=SOME_TOKENS) as stream:
        await stream.expect_refusal("INVALID_ARGUMENT")


@CASES.add("a deadline that passed ends the session: DEADLINE_EXCEEDED, or Finished (deadline)")
async def keeps_the_deadline(bench: Bench) -> None:
    async with bench.stream(max_tokens=bench.longest, deadline_ms=1) as stream:
        try:
            await stream.rest(FinishReason.DEADLINE)
        except OutriderError:
            await stream.expect_refusal("DEADLINE_EXCEEDED")


def _next_attempt(message: Open, log: list[int], fingerprint: str) -> Open:
    return replace(message, attempt=message.attempt + 1, prefix=tuple(log), fingerprint=fingerprint)


def _last_new_token(text: tuple[int, ...]) -> int:
    """The last place among the first ten whose token stands nowhere before it: there an end token can be put."""
    if not text:
        raise CheckFailedError("expected some text")
    return max(n for n in range(min(10, len(text))) if text[n] not in text[:n])


@CASES.add("where Opened says so, all that a verifier sends has the size that was asked for, and the text is the same")
async def covers_what_it_sends(bench: Bench) -> None:
    async with bench.stream(cover=COVER, max_tokens=SOME_TOKENS) as stream:
        told = (await stream.opening()).cover
        if told == UNCOVERED:
            return
        expect(told == told.with_least(COVER), f"at least {COVER}", told)
        while await stream.next() is not None:
            expect(stream.received_bytes % told.pad_bytes == 0, f"messages of {told.pad_bytes} bytes", stream.received_bytes)
        bench.expect_text(stream.generated, SOME_TOKENS)


@CASES.add("a cover that would make a verifier send much is INVALID_ARGUMENT, or not taken up")
async def refuses_an_absurd_cover(bench: Bench) -> None:
    async with bench.stream(cover=ABSURD_COVER) as stream:
        try:
            opened = await stream.opening()
        except OutriderError:
            await stream.expect_refusal("INVALID_ARGUMENT")
        else:
            expect(opened.cover.fault is None, "a refusal", opened.cover)
