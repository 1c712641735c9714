from __future__ import annotations

import asyncio
import contextlib

import pytest

from device_agent.drafting.resting import Resting
from device_agent.head_start import LONGEST_S
from device_agent.request import Message, Mode, Reveal
from speculation.errors import (
    CapacityError,
    EngineError,
    HandshakeError,
    InvalidRequestError,
    LinkError,
    MalformedMessageError,
)
from speculation.links.memory import MemoryConnector
from speculation.parameters import GenerationDefaults, SamplingParameters
from speculation.protocol.messages import Cancel, Open, PairIdentity
from speculation.shaping import profiles, virtual_time
from speculation.shaping.link import ShapedConnector
from tests.device_agent.doubles import (
    PROMPT,
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    answer,
    decode,
    facts,
    plain_decoding,
    request,
    verifier,
    wait_until,
)

SAMPLED = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "seed": 5}


def run(work):
    """On a virtual clock, where a wait that nothing would end is an error."""
    return virtual_time.run(work)


def done_of(replay):
    assert replay.last["event"] == "done", replay.last
    return replay.last


def error_of(replay):
    assert replay.last["event"] == "error", replay.last
    return replay.last["error"]


def states_of(events):
    return [(event.mode, event.reason) for event in events if event.name == "state"]


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("reveal", list(Reveal))
def test_the_text_is_the_full_models_whatever_the_draft(accuracy, sampling, reveal):
    async def work():
        async with agent(DraftEngine(accuracy, step_s=0.009), SlowEngine(0.03)) as running:
            return await answer(running, reveal=reveal, **sampling)

    parameters = SamplingParameters(**{"seed": 3} | sampling)
    done = done_of(run(work()))
    assert list(done["token_ids"]) == plain_decoding(FullEngine(), parameters=parameters)
    assert done["verified_count"] == len(done["token_ids"])
    assert done["text"] == decode(done["token_ids"])


@pytest.mark.parametrize("network", ["lte", "5g-nsa-low"])
def test_the_text_is_the_same_behind_a_network_and_in_mode_cloud(network):
    async def work(mode):
        async with verifier(SlowEngine(0.04)) as made:
            radio = ShapedConnector(MemoryConnector(made), profiles.network(network), seed=1)
            async with agent_of(radio, DraftEngine(0.8, step_s=0.009)) as running:
                return await answer(running, mode=mode, max_tokens=100)

    together, alone = done_of(run(work("collaborate"))), done_of(run(work("cloud")))
    assert together["token_ids"] == alone["token_ids"]
    assert together["figures"]["passes_per_token"]["value"] < 0.8
    assert together["figures"]["tokens_per_s"]["value"] > 1.2 * alone["figures"]["tokens_per_s"]["value"]
    assert alone["figures"]["passes_per_token"]["value"] == 1


def test_mode_cloud_shows_final_tokens_alone():
    async def work():
        async with agent() as running:
            return await answer(running, mode=Mode.CLOUD)

    replay = run(work())
    assert set(replay.names) == {"session", "state", "correct", "done"}
    assert done_of(replay)["figures"]["draft_steps"]["value"] == 0


def test_mode_device_is_the_draft_alone_and_nothing_is_verified():
    async def work():
        async with agent_of(None, DraftEngine(0.5)) as running:
            return await answer(running, mode=Mode.DEVICE, **SAMPLED)

    done = done_of(run(work()))
    parameters = SamplingParameters(**SAMPLED)
    assert list(done["token_ids"]) == plain_decoding(DraftEngine(0.5), parameters=parameters)
    assert done["verified_count"] == 0


def test_drafts_are_shown_before_the_verifier_has_answered():
    async def work():
        async with agent(DraftEngine(1.0, step_s=0.01), SlowEngine(0.5)) as running:
            return await answer(running)

    figures = done_of(run(work()))["figures"]
    assert figures["first_visible_ms"]["value"] == pytest.approx(10)
    assert figures["first_final_ms"]["value"] == pytest.approx(500)


def test_open_goes_out_before_the_devices_own_prefill():
    async def work():
        async with verifier() as made:
            connector = WatchedConnector(MemoryConnector(made))
            async with agent_of(connector, DraftEngine(token_s=0.1)) as running:
                await answer(running)
        return connector.links[0].sent[0]

    sent_s, message = run(work())
    assert isinstance(message, Open)
    assert sent_s == 0


class SlowToSend:
    """A connection that is there, on which the first message takes so long to leave."""

    def __init__(self, connector, first_s):
        self._connector, self._first_s = connector, first_s

    async def connect(self):
        link = await self._connector.connect()
        send, waits_s = link.send, [self._first_s]

        async def slow(message):
            await asyncio.sleep(waits_s.pop() if waits_s else 0)
            await send(message)

        link.send = slow
        return link

    async def aclose(self):
        await self._connector.aclose()


@pytest.mark.parametrize(("first_s", "waits_s"), [(0.0, 0.0), (0.001, 0.001), (0.3, LONGEST_S)])
def test_drafting_lets_open_leave_first_but_not_for_long(first_s, waits_s):
    async def work():
        async with verifier(SlowEngine(0.5)) as made:
            connector = SlowToSend(MemoryConnector(made), first_s)
            async with agent_of(connector, DraftEngine(1.0, step_s=0.01)) as running:
                return await answer(running)

    assert done_of(run(work()))["figures"]["first_visible_ms"]["value"] == pytest.approx(10 + 1000 * waits_s)


def test_where_a_connection_must_be_made_first_drafting_waits_for_nothing():
    async def work():
        async with verifier(SlowEngine(0.5)) as made:
            connector = WatchedConnector(MemoryConnector(made), delay_s=0.1)
            async with agent_of(connector, DraftEngine(1.0, step_s=0.01)) as running:
                return await answer(running)

    assert done_of(run(work()))["figures"]["first_visible_ms"]["value"] == pytest.approx(10)


def test_the_drafter_does_not_wait_for_verdicts_but_keeps_its_depth():
    async def work():
        draft = DraftEngine(1.0, step_s=0.001)
        async with agent(draft, SlowEngine(1.0), draft_depth=12, drafting="ahead") as running:
            stream = await running.start(request())
            await asyncio.sleep(0.9)
            events = await stream.take()
            await stream.aclose()
        return [event for event in events if event.name == "speculative"]

    assert len(run(work())) == 12


def test_an_end_token_ends_the_answer_and_is_part_of_its_tokens():
    expected = plain_decoding(FullEngine())
    end = expected[9]
    first = expected.index(end)

    async def work(mode):
        async with agent(DraftEngine(1.0), pair=facts(end_token_ids=(end,))) as running:
            return await answer(running, mode=mode)

    for mode in Mode:
        done = done_of(run(work(mode)))
        assert list(done["token_ids"]) == expected[: first + 1]
        assert done["finish_reason"] == "stop"


@pytest.mark.parametrize("mode", list(Mode))
def test_a_stop_string_ends_the_answer_before_it(mode):
    text = decode(plain_decoding(FullEngine()))
    stop = text[17:20]

    async def work():
        async with verifier() as made:
            connector = WatchedConnector(MemoryConnector(made))
            async with agent_of(connector, DraftEngine(1.0)) as running:
                replay = await answer(running, stop=(stop,), mode=mode)
            assert made.num_sessions == 0
        return replay, connector

    replay, connector = run(work())
    done = done_of(replay)
    assert done["text"] == text[: text.index(stop)]
    assert done["finish_reason"] == "stop"
    if mode is not Mode.DEVICE:
        assert isinstance(connector.links[0].sent[-1][1], Cancel)


def test_without_a_verifier_collaboration_goes_on_alone_and_says_so():
    async def work():
        connector = WatchedConnector(delay_s=5.0, failure=LinkError("nobody answers"))
        async with agent_of(connector, DraftEngine(0.5, step_s=0.01)) as running:
            return await answer(running)

    replay = run(work())
    done = done_of(replay)
    assert list(done["token_ids"]) == plain_decoding(DraftEngine(0.5))
    assert done["verified_count"] == 0
    assert "state" in replay.names


def test_without_a_verifier_mode_cloud_ends_with_an_error():
    async def work(**changes):
        async with agent_of(WatchedConnector(failure=LinkError("nobody answers"))) as running:
            return await answer(running, **changes)

    for changes in ({"mode": "cloud"}, {"reveal": "final"}):
        assert error_of(run(work(**changes))) == {
            "message": "nobody answers",
            "type": "api_error",
            "param": None,
            "code": "link",
        }


def test_a_verifier_without_room_is_told_apart():
    async def work():
        events = []
        async with agent_of(WatchedConnector(failure=CapacityError("full", 1.0))) as running:
            async for event in running.stream(request()):
                events.append(event)
        return events

    assert states_of(run(work())) == [("device", "busy")]


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_a_lost_link_keeps_what_is_final_and_adds_a_marked_tail(limit):
    async def work():
        async with verifier(SlowEngine(0.03)) as made:
            connector = WatchedConnector(MemoryConnector(made), limit)
            async with agent_of(connector, DraftEngine(0.6, step_s=0.009)) as running:
                return await answer(running)

    truth = plain_decoding(FullEngine())
    done = done_of(run(work()))
    count = done["verified_count"]
    assert list(done["token_ids"][:count]) == truth[:count]
    assert len(done["token_ids"]) > count
    assert count >= limit - 1


@pytest.mark.parametrize("bound", [0, 3])
def test_offline_tokens_bounds_the_tail(bound):
    async def work():
        async with verifier(SlowEngine(0.05)) as made:
            connector = WatchedConnector(MemoryConnector(made), 4)
            async with agent_of(connector, DraftEngine(1.0, step_s=0.009)) as running:
                return await answer(running, offline_tokens=bound)

    done = done_of(run(work()))
    assert len(done["token_ids"]) == done["verified_count"] + bound
    assert done["finish_reason"] == "offline"


def test_a_verifier_that_shuts_down_is_a_lost_one():
    async def work(mode):
        async with verifier(SlowEngine(0.05)) as made, agent_of(MemoryConnector(made), DraftEngine(step_s=0.01)) as running:
            stream = await running.start(request(mode=mode))
            await asyncio.sleep(0.3)
            await made.drain(0.0)
            events = []
            while batch := await stream.take():
                events += batch
        return events

    assert states_of(run(work("collaborate"))) == [("collaborate", "link"), ("device", "offline")]
    assert run(work("cloud"))[-1].error["code"] == "link"


@pytest.mark.parametrize("error", [HandshakeError("another pair"), MalformedMessageError("nonsense")])
def test_a_refusal_ends_the_stream_with_an_error(error):
    async def work():
        async with agent_of(WatchedConnector(failure=error)) as running:
            return await answer(running)

    assert error_of(run(work()))["message"] == str(error)


def test_pairs_that_differ_are_refused_with_both_digests():
    theirs = PairIdentity("d" * 64, "b" * 64, "c" * 64)

    async def work():
        async with agent(pair=facts(identity=theirs)) as running:
            return await answer(running)

    error = error_of(run(work()))
    assert error["code"] == "handshake"
    assert "a" * 12 in error["message"]
    assert "d" * 12 in error["message"]


def test_a_draft_engine_that_fails_ends_the_stream_and_gives_its_cache_back():
    async def work():
        draft = DraftEngine()
        draft.failure = EngineError("the draft broke")
        async with verifier() as made, agent_of(MemoryConnector(made), draft) as running:
            replay = await answer(running)
            await wait_until(lambda: running.num_streams == 0)
            assert made.num_sessions == 0
        assert not draft.open_caches
        return replay

    assert error_of(run(work()))["message"] == "the draft broke"


def test_a_bug_is_told_as_internal_and_not_in_detail(caplog):
    async def work():
        draft = DraftEngine()
        draft.failure = RuntimeError("secret")
        async with agent(draft) as running:
            return await answer(running)

    error = error_of(run(work()))
    assert (error["code"], error["message"]) == ("internal", "internal error")
    assert "secret" in caplog.text


def test_a_client_that_leaves_cancels_the_session_and_frees_everything():
    async def work():
        draft = DraftEngine(step_s=0.01)
        async with verifier(SlowEngine(0.05)) as made:
            connector = WatchedConnector(MemoryConnector(made))
            async with agent_of(connector, draft) as running:
                async with contextlib.aclosing(running.stream(request())) as events:
                    async for event in events:
                        if event.name == "correct":
                            break
                assert running.num_streams == 0
                assert not draft.open_caches
                assert made.num_sessions == 0
            assert connector.is_closed
        return connector.links[0]

    link = run(work())
    assert isinstance(link.sent[-1][1], Cancel)
    assert link.is_closed


def test_a_deadline_ends_the_answer_with_what_is_final():
    async def work(**changes):
        async with agent(DraftEngine(1.0, step_s=0.01), SlowEngine(0.1)) as running:
            return await answer(running, deadline_ms=250, **changes)

    for mode in (Mode.COLLABORATE, Mode.CLOUD):
        done = done_of(run(work(mode=mode)))
        assert done["finish_reason"] == "deadline"
        assert done["verified_count"] == len(done["token_ids"]) > 0
    done = done_of(run(work(mode=Mode.DEVICE)))
    assert (done["finish_reason"], len(done["token_ids"])) == ("deadline", 24)


def test_an_inexact_verifier_is_told():
    async def work():
        events = []
        async with verifier(is_exact=False) as made, agent_of(MemoryConnector(made)) as running:
            async for event in running.stream(request()):
                events.append(event)
        return events

    assert states_of(run(work())) == [("collaborate", "link"), ("collaborate", "exactness")]


def test_a_draft_with_a_short_context_stops_drafting_and_the_verifier_goes_on():
    async def work():
        short = facts(draft_context_length=len(PROMPT) + 10)
        async with agent(DraftEngine(1.0), pair=short) as running:
            return await answer(running)

    assert list(done_of(run(work()))["token_ids"]) == plain_decoding(FullEngine())


@pytest.mark.parametrize(("mode", "is_counted"), [("cloud", False), ("collaborate", True)])
def test_only_answers_that_may_draft_tell_what_drafts_cost(monkeypatch, mode, is_counted):
    counted = []
    monkeypatch.setattr(Resting, "verdict", lambda _self, num_tokens, _interval_s, _pass_s: counted.append(num_tokens))

    async def work():
        async with agent(DraftEngine(0.8, step_s=0.001), SlowEngine(0.002)) as running:
            return await answer(running, mode=mode)

    done_of(run(work()))
    assert bool(counted) == is_counted


MESSAGES = (Message("system", "be brief"), Message("user", "hello"))


def test_a_conversation_is_written_as_the_models_template_says():
    seen = []

    def chat(messages):
        seen.append(messages)
        return [1, 2, 3]

    async def work():
        async with agent(pair=facts(chat=chat)) as running:
            return done_of(await answer(running, prompt="be brief\n\nhello", messages=MESSAGES))

    assert run(work())["prompt_token_ids"] == (1, 2, 3)
    assert seen == [[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hello"}]]


@pytest.mark.parametrize("pair", [facts(), facts(chat=lambda messages: [7])], ids=["no template", "no messages"])
def test_without_a_template_or_without_messages_the_prompt_is_what_is_read(pair):
    async def work():
        async with agent(pair=pair) as running:
            messages = MESSAGES if pair.chat is None else ()
            return done_of(await answer(running, messages=messages))

    assert decode(run(work())["prompt_token_ids"]) == PROMPT


def test_a_conversation_that_the_template_refuses_is_a_refused_request():
    def chat(messages):
        raise InvalidRequestError("roles must alternate", "messages")

    async def work():
        async with agent(pair=facts(chat=chat)) as running:
            with pytest.raises(InvalidRequestError, match="alternate"):
                await answer(running, messages=MESSAGES)
            return done_of(await answer(running))

    run(work())


SUGGESTED = GenerationDefaults(temperature=0.8, top_k=40, top_p=0.9, max_tokens=7, unused=("num_beams = 2",))


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({}, {"temperature": 0.8, "top_k": 40, "top_p": 0.9}),
        ({"temperature": 0.0}, {"temperature": 0.0}),
        ({"temperature": 1.5, "top_p": 1.0}, {"temperature": 1.5, "top_k": 40}),
        ({"top_k": 0, "min_p": 0.5}, {"temperature": 0.8, "top_p": 0.9, "min_p": 0.5}),
    ],
)
def test_what_a_request_does_not_say_is_as_the_model_suggests(named, wanted):
    async def work():
        async with agent(pair=facts(defaults=SUGGESTED)) as running:
            return done_of(await answer(running, max_tokens=24, seed=5, **named))

    assert list(run(work())["token_ids"]) == plain_decoding(FullEngine(), 24, parameters=SamplingParameters(**wanted, seed=5))


@pytest.mark.parametrize(
    ("settings", "limit", "wanted"), [({}, None, 7), ({}, 3, 3), ({"default_max_tokens": 9}, None, 9), ({}, 11, 11)]
)
def test_the_length_that_a_request_does_not_say_is_the_settings_then_the_models(settings, limit, wanted):
    async def work():
        async with agent(pair=facts(defaults=SUGGESTED), **settings) as running:
            return done_of(await answer(running, max_tokens=limit)), running.health()["defaults"]

    done, told = run(work())
    assert len(done["token_ids"]) == wanted
    assert told == {
        "temperature": 0.8,
        "top_k": 40,
        "top_p": 0.9,
        "min_p": 0.0,
        "max_tokens": settings.get("default_max_tokens", 7),
        "unused": ["num_beams = 2"],
    }
