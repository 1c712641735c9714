from __future__ import annotations

import asyncio

import pytest

from device_agent.drafting.drafter import Drafter
from device_agent.drafting.resting import Resting
from device_agent.head_start import LONGEST_S
from device_agent.request import Message, Mode, Reveal
from speculation.errors import (
    InvalidRequestError,
)
from speculation.links.memory import MemoryConnector
from speculation.parameters import GenerationDefaults, SamplingParameters
from speculation.protocol.messages import Cancel, Open
from speculation.shaping import profiles
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
)
from tests.device_agent.generation_scene import SAMPLED, done_of, run


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


@pytest.mark.parametrize(("num_rested", "most"), [(1000, 2), (10, 24 * 3)])
def test_a_device_at_rest_is_not_asked_for_drafts_at_every_verdict_and_goes_on_behind_the_last(monkeypatch, num_rested, most):
    monkeypatch.setattr(Resting, "is_due", lambda _self, num_verdicts, *_: num_verdicts < num_rested)
    asked, step = [], Drafter.step

    async def counted(drafter, tail_room=None):
        asked.append(tail_room)
        return await step(drafter, tail_room)

    monkeypatch.setattr(Drafter, "step", counted)

    async def work():
        async with agent(DraftEngine(0.8, step_s=0.001), SlowEngine(0.002)) as running:
            return await answer(running, max_tokens=24)

    done = done_of(run(work()))
    assert len(asked) <= most
    assert len(done["token_ids"]) == 24
    assert bool(done["usage"]["proposed"]) == (num_rested < 24)


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
