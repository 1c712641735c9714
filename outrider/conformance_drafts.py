"""Conformance cases of drafts: right, wrong, stale, repeated, dead, from the future, and too many."""

from __future__ import annotations

from outrider.conformance_bench import Bench, Cases, offend
from outrider.conformance_stream import OvertakenError, chain, expect
from speculation.protocol.messages import INITIAL_CREDIT, MAX_PACKED_RANK, Cancel, Draft, FinishReason, Node, VerdictKind
from speculation.wire import codec

CASES = Cases()


@CASES.add("right drafts are accepted: the same text in fewer passes")
async def accepts_right_drafts(bench: Bench) -> None:
    async with bench.stream() as stream:
        await stream.send_chain(bench.text[: min(INITIAL_CREDIT, len(bench.text) - 1)], bench.start)
        bench.expect_text(await stream.rest(), len(bench.text))
        passes = len(stream.verdicts)
    if passes >= len(bench.text):
        raise OvertakenError(f"expected fewer than {len(bench.text)} passes with right drafts; got {passes}")


@CASES.add("wrong drafts are revoked and corrected: the same text")
async def corrects_wrong_drafts(bench: Bench) -> None:
    right, wrong = bench.text[:16], [bench.wrong(token_id) for token_id in bench.text[16:32]]
    async with bench.stream() as stream:
        await stream.send_chain([*right, *wrong], bench.start)
        bench.expect_text(await stream.rest(), len(bench.text))
        kinds = {verdict.kind for verdict in stream.verdicts}
    if VerdictKind.REVOKE_AND_CORRECT not in kinds:
        raise OvertakenError("expected a verdict of kind REVOKE_AND_CORRECT; got none")


@CASES.add("further branches beside a wrong first one are no harm: the same text")
async def follows_another_branch(bench: Bench) -> None:
    nodes = _forked(bench, 8, 22)
    async with bench.stream() as stream:
        await stream.send(Draft(tuple(nodes), bench.start))
        bench.expect_text(await stream.rest(), len(bench.text))


@CASES.add("where Opened says so, packed drafts are read as what they stand for: the same text in fewer passes")
async def reads_packed_drafts(bench: Bench) -> None:
    async with bench.stream() as stream:
        if not (await stream.opening()).reads_packed:
            return
        nodes = _forked(bench, 4, INITIAL_CREDIT)
        await stream.send(Draft(tuple(nodes), bench.start, is_packed=True))
        bench.expect_text(await stream.rest(), len(bench.text))
        passes = len(stream.verdicts)
    if passes >= len(bench.text):
        raise OvertakenError(f"expected fewer than {len(bench.text)} passes with right drafts; got {passes}")


@CASES.add("where Opened says so, a packed draft that hangs nowhere is INVALID_ARGUMENT")
async def refuses_a_packed_draft_that_hangs_nowhere(bench: Bench) -> None:
    async with bench.stream(max_tokens=bench.longest) as stream:
        if not (await stream.opening()).reads_packed:
            return
        draft = codec.VerifyRequest()
        draft.draft.packed.extend([bench.start, 1, 3, 4 * 7])
        await stream.send(draft.SerializeToString())
        await stream.expect_refusal("INVALID_ARGUMENT")


@CASES.add("repeated drafts are skipped: the same text, each node counted once")
async def ignores_repeated_drafts(bench: Bench) -> None:
    async with bench.stream() as stream:
        draft = await stream.send_chain(bench.text[:10], bench.start)
        for _ in range(3):
            await stream.send(draft)
        bench.expect_text(await stream.rest(), len(bench.text))
        assert stream.finished is not None
        proposed = stream.finished.usage.proposed
    expect(proposed <= len(draft.nodes), f"at most {len(draft.nodes)} nodes proposed", proposed)


@CASES.add("stale drafts are harmless, right or wrong, below known or above it")
async def ignores_stale_drafts(bench: Bench) -> None:
    start, first = bench.start, bench.text[0]
    async with bench.stream() as stream:
        await stream.grown_to(start + 4)
        late = (Node(1, 0, bench.wrong(first), start), Node(2, 0, first, start), Node(3, 2, bench.wrong(bench.text[1])))
        await stream.send(Draft(late, start))
        await stream.send(Draft((), start + 4))
        await stream.send(Draft((Node(4, 0, first, start), Node(5, 2, bench.text[1])), start))
        bench.expect_text(await stream.rest(), len(bench.text))


@CASES.add("children of dead drafts are dead: the same text")
async def ignores_children_of_the_dead(bench: Bench) -> None:
    async with bench.stream() as stream:
        await stream.send_chain([bench.wrong(bench.text[0])], bench.start)
        await stream.grown_to(bench.start + 1)
        await stream.send(Draft((Node(2, 1, bench.text[1]), Node(3, 2, bench.text[2])), bench.start + 1))
        bench.expect_text(await stream.rest(), len(bench.text))


@CASES.add("a root beyond the log is INVALID_ARGUMENT")
async def refuses_a_root_from_the_future(bench: Bench) -> None:
    await offend(bench, Draft((Node(1, 0, 1, bench.start + bench.longest),), bench.start))


@CASES.add("a parent that was never sent is INVALID_ARGUMENT")
async def refuses_an_unknown_parent(bench: Bench) -> None:
    request = codec.encode(Draft((Node(1, 0, 1, bench.start),), bench.start))
    assert isinstance(request, codec.VerifyRequest)
    request.draft.branches[0].parent = 7
    await offend(bench, request.SerializeToString())


@CASES.add("a gap in the numbers of nodes is INVALID_ARGUMENT")
async def refuses_a_gap_in_numbers(bench: Bench) -> None:
    await offend(bench, Draft((Node(3, 0, 1, bench.start),), bench.start))


@CASES.add("a known length beyond the log is INVALID_ARGUMENT")
async def refuses_a_known_length_from_the_future(bench: Bench) -> None:
    await offend(bench, Draft((), bench.start + bench.longest))


@CASES.add("as many live nodes as the credit are borne")
async def bears_its_credit(bench: Bench) -> None:
    async with bench.stream(max_tokens=bench.longest) as stream:
        credit = (await stream.opening()).credit
        for draft in bench.first_token(bench.start, 1, credit, bench.start):
            await stream.send(draft)
        await stream.send(Cancel())
        bench.expect_text(await stream.rest(FinishReason.CANCELLED))
        assert stream.finished is not None
        proposed = stream.finished.usage.proposed
    expect(proposed == credit, f"{credit} nodes proposed", proposed)


@CASES.add("credit comes back once known says that the nodes are settled")
async def gives_credit_back(bench: Bench) -> None:
    start = bench.start
    async with bench.stream(max_tokens=bench.longest) as stream:
        credit = (await stream.opening()).credit
        for draft in bench.first_token(start, 1, credit, start):
            await stream.send(draft)
        await stream.grown_to(start + 1)
        for draft in bench.first_token(start + 1, credit + 1, credit, start + 1):
            await stream.send(draft)
        await stream.send(Cancel())
        bench.expect_text(await stream.rest(FinishReason.CANCELLED))


@CASES.add("one live node over the credit is RESOURCE_EXHAUSTED")
async def refuses_more_than_its_credit(bench: Bench) -> None:
    async with bench.stream(max_tokens=bench.longest) as stream:
        credit = (await stream.opening()).credit
        for draft in bench.first_token(bench.start, 1, credit + 1, bench.start):
            await stream.send(draft)
        await stream.expect_refusal("RESOURCE_EXHAUSTED")


def _forked(bench: Bench, fork: int, end: int) -> list[Node]:
    """Nodes below number ``end``: right ones up to a fork, where the last of as many branches as can be packed is right."""
    nodes = list(chain(1, bench.text[:fork], bench.start))
    token_id = bench.text[fork]
    for rank in range(MAX_PACKED_RANK):
        token_id = bench.wrong(token_id)
        nodes.append(Node(len(nodes) + 1, fork, token_id, rank=rank))
    nodes.append(Node(len(nodes) + 1, fork, bench.text[fork], rank=MAX_PACKED_RANK))
    right = bench.text[fork + 1 :]
    nodes += [Node(number, number - 1, token) for number, token in zip(range(len(nodes) + 1, end), right, strict=False)]
    return nodes
