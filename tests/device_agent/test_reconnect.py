"""A lost verifier, and what follows when one is there again."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.conversation import OPENING_TIMEOUT_S
from speculation.errors import AuthenticationError, HandshakeError, LinkError
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.shaping import virtual_time
from tests.device_agent.doubles import (
    PROMPT,
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedLink,
    agent_of,
    answer,
    decode,
    encode,
    plain_decoding,
    request,
    verifier,
)
from tests.device_agent.test_logprobs import assert_told
from tests.support.likelihoods import likelihoods

SLOW_STEP_S = 0.2
"""A device alone is at its limit of forty tokens after eight seconds: time enough to come back."""


class Turns:
    """One verifier after the other, each for so many messages; the last for ever. An error in the place of one is raised."""

    def __init__(self, *turns) -> None:
        self._turns = list(turns)
        self.links = []

    async def connect(self):
        made, limit = self._turns.pop(0) if len(self._turns) > 1 else self._turns[0]
        if isinstance(made, Exception):
            raise made
        self.links.append(WatchedLink(await MemoryConnector(made).connect(), limit))
        return self.links[-1]

    async def aclose(self) -> None:
        pass


def run(turns_of, draft=None, num_verifiers=1, **changes):
    """The replay of an answer, and the states it went through, on a virtual clock."""

    async def work():
        async with contextlib.AsyncExitStack() as stack:
            made = [await stack.enter_async_context(verifier(SlowEngine(0.3))) for _ in range(num_verifiers)]
            running = await stack.enter_async_context(
                agent_of(Turns(*turns_of(*made)), draft or DraftEngine(0.7, step_s=SLOW_STEP_S))
            )
            replay = await answer(running, **changes)
            assert [one.num_sessions for one in made] == [0] * num_verifiers
            return replay

    return virtual_time.run(work())


def states_of(turns_of, **changes):
    async def work():
        async with contextlib.AsyncExitStack() as stack:
            made = await stack.enter_async_context(verifier(SlowEngine(0.3)))
            running = await stack.enter_async_context(agent_of(Turns(*turns_of(made)), DraftEngine(0.7, step_s=SLOW_STEP_S)))
            return [(e.mode, e.reason) async for e in running.stream(request(**changes)) if e.name == "state"]

    return virtual_time.run(work())


def assert_whole(replay):
    truth = plain_decoding(FullEngine())
    assert replay.last["event"] == "done", replay.last
    assert list(replay.last["token_ids"]) == truth
    assert replay.last["verified_count"] == len(truth)


def test_a_link_that_comes_back_is_told_and_the_text_is_verified_to_its_end():
    assert_whole(run(lambda made: [(made, 4), (made, None)]))
    assert states_of(lambda made: [(made, 4), (made, None)]) == [
        ("collaborate", "link"),
        ("device", "offline"),
        ("collaborate", "link"),
    ]


def test_what_became_final_before_the_loss_and_behind_it_is_told_with_its_log_probability_once():
    replay = run(lambda made: [(made, 4), (made, 3), (made, None)], logprobs=2)
    assert_whole(replay)
    truth = [*encode(PROMPT), *plain_decoding(FullEngine())]
    assert_told(replay, likelihoods(FullEngine(), truth, len(PROMPT), 2))


def test_another_verifier_goes_on_where_the_first_one_died():
    assert_whole(run(lambda first, second: [(first, 5), (second, None)], num_verifiers=2))


def test_a_verifier_that_was_never_there_may_still_come():
    nobody = LinkError("nobody answers")
    assert_whole(run(lambda made: [(nobody, None), (nobody, None), (made, None)]))


def test_a_loss_is_told_once_however_often_it_is_tried():
    nobody = LinkError("nobody answers")
    assert states_of(lambda made: [(made, 4), (nobody, None), (nobody, None), (made, None)]) == [
        ("collaborate", "link"),
        ("device", "offline"),
        ("collaborate", "link"),
    ]


class Mute(WatchedLink):
    """To a verifier that took the stream and is stuck."""

    async def receive(self):
        await asyncio.Event().wait()


class MuteAtFirst(Turns):
    async def connect(self):
        link = await super().connect()
        return link if len(self.links) > 1 else Mute(link)


@pytest.mark.parametrize(("mode", "told"), [("collaborate", "offline"), ("cloud", "link")])
def test_a_verifier_that_takes_the_stream_and_never_answers_is_lost_in_the_end(mode, told):
    async def work():
        async with verifier(SlowEngine(0.3)) as made, agent_of(MuteAtFirst((made, None)), DraftEngine(0.7)) as running:
            events = [event async for event in running.stream(request(mode=mode, max_tokens=200))]
            return asyncio.get_running_loop().time(), events

    now_s, events = virtual_time.run(work())
    (found,) = [
        event.reason if event.name == "state" else event.error["code"] for event in events if event.name in ("state", "error")
    ]
    assert (found, events[-1].name) == (told, "error" if mode == "cloud" else "done")
    assert now_s == pytest.approx(OPENING_TIMEOUT_S, abs=1)


@pytest.mark.parametrize("refusal", [HandshakeError("another fingerprint"), AuthenticationError("a key that was withdrawn")])
def test_a_verifier_that_refuses_to_go_on_leaves_the_device_alone_and_what_is_final_stands(refusal):
    replay = run(lambda made: [(made, 4), (refusal, None)])
    count = replay.last["verified_count"]
    assert replay.last["event"] == "done"
    assert 0 < count < 40
    assert list(replay.last["token_ids"][:count]) == plain_decoding(FullEngine())[:count]


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
@settings(max_examples=25, deadline=None)
@given(limits=st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_the_text_is_the_full_models_wherever_the_link_is_cut(accuracy, limits):
    replay = run(
        lambda *made: [(made[n % 2], limit) for n, limit in enumerate(limits)] + [(made[0], None)],
        draft=DraftEngine(accuracy, step_s=SLOW_STEP_S),
        num_verifiers=2,
    )
    done, truth = replay.last, plain_decoding(FullEngine())
    assert done["event"] == "done"
    assert len(done["token_ids"]) == len(truth)
    # Cut near its end, the device may write the last tokens alone before it tries again; then it says so.
    count = done["verified_count"]
    assert list(done["token_ids"][:count]) == truth[:count]


def test_what_was_drafted_alone_is_audited_and_a_right_tail_stays():
    replay = run(lambda made: [(made, 4), (made, None)], draft=DraftEngine(1.0, step_s=0.08))
    assert_whole(replay)
    assert "revoke" not in replay.names
    # A pass takes as long as four draft steps; without the audit each token that was drafted alone would take one.
    assert replay.last["figures"]["passes_per_token"]["value"] < 0.3
    assert replay.last["usage"]["corrections"] == 0


def test_passes_of_every_stream_are_counted():
    replay = run(lambda made: [(made, 6), (made, None)], draft=DraftEngine(0.0, step_s=SLOW_STEP_S))
    assert_whole(replay)
    assert replay.last["figures"]["passes_per_token"]["value"] == 1


@pytest.mark.parametrize("limit", [3, 5, 8])
def test_a_sampled_text_goes_on_as_it_began(limit):
    """The noise of a position is the same on every stream, however much of the text was final when the stream began."""
    sampled = SamplingParameters(temperature=0.8, top_p=0.9, seed=5)
    replay = run(lambda made: [(made, limit), (made, None)], temperature=0.8, top_p=0.9, seed=5)
    truth = plain_decoding(FullEngine(), parameters=sampled)
    assert truth != plain_decoding(FullEngine())
    assert list(replay.last["token_ids"]) == truth
    assert replay.last["verified_count"] == len(truth)


def test_a_stop_string_that_was_only_drafted_ends_the_answer_at_once():
    """The link breaks at 6.5 s, three drafts in; a verifier is back at 7.5 s, before the draft step under way ends at 8 s."""

    async def work():
        slow = DraftEngine(1.0, step_s=2.0)
        async with (
            verifier(SlowEngine(6.5)) as made,
            agent_of(Turns((made, 2), (made, None)), slow, drafting="ahead") as running,
        ):
            return (await answer(running, stop=(decode(truth[2:3]),))).last

    truth = plain_decoding(FullEngine())
    done = virtual_time.run(work())
    assert (done["finish_reason"], list(done["token_ids"])) == ("stop", truth[:2])
    assert done["verified_count"] == 1
