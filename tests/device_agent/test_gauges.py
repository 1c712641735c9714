"""A phone whose memory, heat and joules are emulated, as a reader of its answers sees it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

import pytest

from device_agent.config import AgentConfig
from device_agent.gauges import Gauges
from speculation.errors import ConfigurationError
from speculation.links.memory import MemoryConnector
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import PhoneCost, ShapedEngine, WhenFull
from speculation.shaping.models import ModelDescription, parse_model
from speculation.shaping.phone_state import Heat, PhoneState
from tests.device_agent.doubles import (
    DraftEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    answer,
    facts,
    request,
    validate,
    verifier,
)

PHONE = profiles.phone("apple-a19-pro")
LARGE = PhoneCost(PHONE, parse_model("7B:5.5bit"))


def shaped(heat: Heat = Heat.OFF, cost: PhoneCost = LARGE, when_full: WhenFull = WhenFull.REFUSE) -> ShapedEngine:
    return ShapedEngine(DraftEngine(), cost, heat, when_full)


def thermals(events, reason: str) -> list[str]:
    return [event["thermal"] for event in events if event["event"] == "state" and event["reason"] == reason]


async def events_of(running, **changes) -> list[dict]:
    """Every event of an answer, each as the schema allows it, but for the session's own id, which is drawn."""
    events = []
    async with contextlib.aclosing(running.stream(request(**changes))) as stream:
        async for event in stream:
            validate(event.to_json())
            events.append({**event.to_json(), "session_id": ""})
    return events


def alone(engine: ShapedEngine) -> list[dict]:
    """The events of an answer of the device alone, on the virtual clock."""

    async def work():
        async with agent_of(None, engine, phone=PHONE.name) as running:
            return await events_of(running, mode="device", max_tokens=240)

    return virtual_time.run(work())


def test_a_phone_that_gets_hot_says_so_in_its_systems_words_and_writes_more_slowly():
    cool, hot, hotter = (alone(shaped(heat)) for heat in Heat)
    assert thermals(cool, "throttling") == []
    assert thermals(hot, "throttling") == ["fair", "serious"]
    assert thermals(hotter, "throttling") == ["serious"]
    assert hot[-1]["token_ids"] == hotter[-1]["token_ids"] == cool[-1]["token_ids"]
    rates = [events[-1]["figures"]["tokens_per_s"]["value"] for events in (cool, hot, hotter)]
    assert rates == sorted(rates, reverse=True)
    assert rates[2] < 0.5 * rates[0]


def test_an_answer_of_a_hot_phone_is_the_same_every_time():
    assert alone(shaped(Heat.ON)) == alone(shaped(Heat.ON))


def test_every_state_tells_the_thermal_status_where_heat_is_emulated():
    async def states(heat: Heat):
        async with agent(shaped(heat)) as running:
            return thermals(await events_of(running), "link")

    assert virtual_time.run(states(Heat.OFF)) == [None]
    assert virtual_time.run(states(Heat.ON)) == ["nominal"]
    assert virtual_time.run(states(Heat.HOT)) == ["serious"]


def test_joules_of_an_answer_are_those_of_its_draft_steps():
    figures = alone(shaped())[-1]["figures"]
    joules = {name: figures[name] for name in ("draft_joules", "joules_per_drafted_token", "joules_per_token")}
    assert {figure["basis"] for figure in joules.values()} == {"emulated"}
    assert [figure["unit"] for figure in joules.values()] == ["J", "J/token", "J/token"]
    # 4.8 GB of weights a step: 0.19 J of memory, and 6.9 W over 94 ms.
    assert joules["joules_per_token"]["value"] == pytest.approx(0.19 + 6.9 * 4.8e9 / (75.8e9 * 0.677), rel=0.1)


def test_a_phone_that_is_not_emulated_tells_no_joules():
    async def work():
        async with agent_of(None) as running:
            return await answer(running, mode="device")

    assert "draft_joules" not in asyncio.run(work()).last["figures"]


def test_gauges_count_from_where_the_answer_began():
    phone = PhoneState(PHONE.energy)
    phone.step(1e9, 0.02)
    gauges = Gauges(phone)
    assert gauges.joules == 0
    phone.step(1e9, 0.02)
    assert gauges.joules == pytest.approx(phone.joules / 2)
    assert (Gauges(None).joules, Gauges(None).thermal, Gauges(None).has_changed()) == (None, None, False)


def small_phone(room_tokens: int) -> PhoneCost:
    """A phone with room for so many tokens beside a model whose cache takes a megabyte each."""
    model = ModelDescription(1e9, 4, layers=1, kv_heads=512, head_size=512, name="wide")
    memory_bytes = model.weight_bytes + PHONE.runtime_bytes + (room_tokens + 0.5) * model.kv_bytes_per_token
    return PhoneCost(dataclasses.replace(PHONE, memory_bytes=memory_bytes, app_share=1.0), model)


def test_where_the_emulated_memory_is_full_one_answer_ends_typed_and_the_other_unharmed():
    async def work():
        async with agent_of(None, shaped(cost=small_phone(300))) as running:
            both = await asyncio.gather(*(answer(running, mode="device", max_tokens=200, seed=seed) for seed in (1, 2)))
            return both, await answer(running, mode="device", max_tokens=200, seed=2)

    (one, two), again = virtual_time.run(work())
    lasts = sorted((one.last, two.last), key=lambda last: last["event"])
    assert [last["event"] for last in lasts] == ["done", "error"]
    assert lasts[1]["error"]["code"] == "capacity"
    assert "keys and values of" in lasts[1]["error"]["message"]
    assert len(lasts[0]["token_ids"]) == 200
    assert again.last["event"] == "done"


def test_where_the_emulated_memory_is_full_a_verifier_writes_on_and_no_answer_ends(caplog):
    async def work():
        draft = DraftEngine()
        async with agent(ShapedEngine(draft, small_phone(400))) as running:
            both = await asyncio.gather(*(answer(running, max_tokens=200, seed=seed) for seed in (1, 2)))
            return [replay.last for replay in both], draft.open_caches

    lasts, open_caches = virtual_time.run(work())
    assert [(last["event"], last["verified_count"]) for last in lasts] == [("done", 200)] * 2
    assert "drafts no more, its verifier writes on: wide does not fit" in caplog.text
    assert not open_caches


def test_a_device_whose_memory_was_full_ends_typed_once_it_loses_its_verifier():
    async def work():
        async with verifier(SlowEngine(0.06)) as made:
            breaking = WatchedConnector(MemoryConnector(made), limit=40)
            async with agent_of(breaking, shaped(cost=small_phone(270))) as running:
                return (await answer(running, max_tokens=200)).last

    error = virtual_time.run(work())["error"]
    assert error["code"] == "capacity"
    assert "wide does not fit" in error["message"]


def test_with_a_shorter_context_nobody_runs_out_of_memory():
    async def work():
        engine = shaped(cost=small_phone(300), when_full=WhenFull.SHORTEN)
        context = engine.description.context_length
        async with agent_of(None, engine, facts(draft_context_length=context)) as running:
            return context, await asyncio.gather(*(answer(running, mode="device", max_tokens=20, seed=s) for s in (1, 2, 3, 4)))

    context, answers = virtual_time.run(work())
    assert context == 300 // 8
    assert [replay.last["event"] for replay in answers] == ["done"] * 4


def test_with_a_shorter_context_a_verifier_writes_on_where_drafts_end():
    async def work():
        engine = shaped(cost=small_phone(300), when_full=WhenFull.SHORTEN)
        pair = facts(draft_context_length=engine.description.context_length)
        async with agent(engine, pair=pair) as running:
            return await answer(running, max_tokens=100)

    last = virtual_time.run(work()).last
    assert (last["event"], last["verified_count"]) == ("done", 100)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"heat": "on"}, "the profile none has no figures of it"),
        ({"heat": "warm", "phone": "apple-a19-pro"}, "'off', 'on' or 'hot'"),
        ({"when_full": "wait"}, "'refuse' or 'shorten'"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_the_start(settings, said):
    with pytest.raises(ConfigurationError, match=said):
        AgentConfig(**settings)


def test_heat_is_off_unless_it_is_asked_for():
    assert AgentConfig(phone="apple-a19-pro").heat is Heat.OFF
    assert AgentConfig(phone="apple-a19-pro", heat="hot").heat is Heat.HOT
