"""What an agent plays is told and changed: over HTTP, and to the microsecond under the virtual clock."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import json
import re

import httpx
import jsonschema
import pytest

from device_agent import schema
from device_agent.emulation.played import PART_OF, Played, read_change
from device_agent.request import Mode
from device_agent.server import serve
from speculation.errors import InvalidRequestError
from speculation.shaping import profiles, virtual_time
from speculation.shaping.costs import Work
from speculation.shaping.engine import PhoneCost
from speculation.shaping.overrides import RANGES, network_with, phone_with
from speculation.shaping.phone_state import Heat
from tests.device_agent.doubles import PROMPT, FullEngine, agent_of, answer, plain_decoding, request, validate
from tests.device_agent.emulated import DRAFT, change, emulating

STATE, CHANGE = (jsonschema.Draft202012Validator(schema.emulation_schema()["$defs"][name]) for name in ("state", "change"))
NAME, FAR = "dimensity-9300", profiles.network("5g-nsa-low")
DEFAULT = {"phone": NAME, "network": "5g-nsa-low", "cloud": "mi300x"}


# A change, as it is read.


def test_another_profile_brings_figures_of_its_own_and_leaves_those_of_the_others():
    before = Played("dimensity-9300", "lte", overrides={"bandwidth_gb_s": 10.0, "rtt_ms": 200.0, "loss_percent": 1.0})
    after = before.changed({"network": "wifi", "rate_mbps": 5.0})
    assert (after.phone, after.network) == ("dimensity-9300", "wifi")
    assert after.overrides == {"bandwidth_gb_s": 10.0, "rate_mbps": 5.0}
    assert before.changed({"rtt_ms": None}).overrides == {"bandwidth_gb_s": 10.0, "loss_percent": 1.0}
    assert before.changed({}) == before


def test_a_figure_alone_is_something_emulated():
    assert not Played().is_emulated
    assert Played().changed(read_change({"rtt_ms": 60})).is_emulated


def test_null_is_none_off_or_the_profiles_own():
    given = read_change(dict.fromkeys(PART_OF))
    assert given == {
        "phone": "none",
        "network": "none",
        "cloud": "none",
        "heat": Heat.OFF,
        "patience": "auto",
        **dict.fromkeys(RANGES),
    }


REFUSED = [
    ([], None, "the body must be a JSON object"),
    ({"fone": "x"}, "fone", "unknown key 'fone'; known: bandwidth_gb_s, cloud"),
    ({"phone": 3}, "phone", "must be a profile's name"),
    ({"heat": "warm"}, "heat", "unknown heat 'warm'; known: hot, off, on"),
    ({"heat": []}, "heat", "unknown heat"),
    ({"rtt_ms": "60"}, "rtt_ms", "must be a number"),
    ({"rtt_ms": True}, "rtt_ms", "must be a number"),
    ({"rtt_ms": -1}, "rtt_ms", "must be from 0 to 10000"),
    ({"loss_percent": 51}, "loss_percent", "must be from 0 to 50"),
    ({"rate_mbps": 0}, "rate_mbps", "must be from 0.01"),
    ({"bandwidth_gb_s": 10**400}, "bandwidth_gb_s", "must be from 1 to 10000"),
]


@pytest.mark.parametrize(("body", "parameter", "what"), REFUSED)
def test_what_cannot_be_is_refused_with_what_could(body, parameter, what):
    with pytest.raises(InvalidRequestError) as caught:
        read_change(body)
    assert caught.value.parameter == parameter
    assert what in str(caught.value)
    assert not CHANGE.is_valid(body)


def test_the_schema_and_the_reader_know_the_same_keys_and_ranges():
    known = schema.emulation_schema()["$defs"]["change"]["properties"]
    assert set(known) == set(PART_OF)
    for key, allowed in RANGES.items():
        assert (known[key]["minimum"], known[key]["maximum"]) == (allowed.least, allowed.most)


# Over HTTP.


@contextlib.asynccontextmanager
async def served(**changes):
    """A client of an agent that serves on a free port, and the agent."""
    async with (
        asyncio.timeout(60),
        emulating(**changes) as agent,
        serve(agent.config, agent=entered(agent)) as running,
        httpx.AsyncClient(base_url=running.url, timeout=30) as client,
    ):
        yield client, agent


def entered(agent):
    """The agent for a service that would enter it: its owner has."""

    class Entered:
        def __getattr__(self, name):
            return getattr(agent, name)

        async def __aenter__(self):
            return agent

        async def __aexit__(self, *_):
            return None

    return Entered()


async def told(response) -> dict:
    assert response.status_code == 200, response.text
    state = response.json()
    STATE.validate(state)
    return state


async def test_what_is_played_and_what_could_be_is_told():
    async with served(**DEFAULT) as (client, _):
        state = await told(await client.get("/v1/emulation"))
    assert {name: state[name] for name in DEFAULT} == DEFAULT
    assert (state["patience"], state["heat"], state["overrides"]) == ("auto", "off", {})
    assert state["can_change"] == dict.fromkeys(("phone", "network", "cloud", "patience"), True)
    for kind, names in (("phones", profiles.phones()), ("networks", profiles.networks()), ("clouds", profiles.clouds())):
        assert [choice["name"] for choice in state["choices"][kind]] == [name for name in names if name != "none"]
    (lte,) = (choice for choice in state["choices"]["networks"] if choice["name"] == "lte")
    assert lte["rtt_ms"] == pytest.approx(profiles.network("lte").round_trip_s * 1000, rel=1e-3)


async def test_every_part_of_a_change_is_made_and_the_answer_tells_the_new_state():
    body = {"phone": "apple-a19-pro", "heat": "hot", "network": "lte", "rtt_ms": 200, "cloud": "b200", "patience": 500}
    CHANGE.validate(body)
    async with served(**DEFAULT) as (client, agent):
        state = await told(await client.patch("/v1/emulation", json=body))
        assert {key: state[key] for key in ("phone", "heat", "network", "cloud", "patience")} == {
            key: body[key] for key in ("phone", "heat", "network", "cloud", "patience")
        }
        assert state["overrides"] == {"rtt_ms": 200}
        assert await told(await client.get("/v1/emulation")) == state
        health = (await client.get("/health")).json()
        assert (health["phone"], health["network"]) == ("apple-a19-pro", "lte (rtt_ms 200)")
        (info,) = re.findall("^outrider_agent_info{(.*)}", (await client.get("/metrics")).text, re.MULTILINE)
        assert 'phone="apple-a19-pro"' in info
        assert 'network="lte (rtt_ms 200)"' in info
        nothing = dict.fromkeys(("phone", "network", "cloud", "patience", "heat"))
        state = await told(await client.patch("/v1/emulation", json=nothing))
        assert {key: state[key] for key in nothing} == nothing | {"patience": "auto", "heat": "off"}
        assert state["overrides"] == {}
        assert not agent.emulation.is_emulated


async def test_a_refusal_is_an_openai_error_and_nothing_is_half_applied():
    refused = [
        *REFUSED,
        ({"network": "lte", "phone": "brick"}, "phone", "unknown phone 'brick'; known: apple-a17-pro"),
        ({"network": "lte", "cloud": "l40s"}, "cloud", "70B:fp16 does not fit"),
        ({"network": "lte", "patience": "long"}, "patience", "'auto', 'never', or milliseconds from 0 to 2000"),
        ({"patience": 10**400}, "patience", "'auto', 'never', or milliseconds from 0 to 2000"),
        ({"network": "lte", "cloud": "b200", "phone": "none", "heat": "on"}, "phone", "the profile none has no figures of it"),
    ]
    async with served(**DEFAULT) as (client, _):
        before = await told(await client.get("/v1/emulation"))
        for body, parameter, what in refused:
            response = await client.patch("/v1/emulation", content=json.dumps(body))
            error = response.json()["error"]
            assert (response.status_code, error["param"], error["type"]) == (400, parameter, "invalid_request_error")
            assert what in error["message"]
            assert await told(await client.get("/v1/emulation")) == before


async def test_a_verifier_elsewhere_keeps_its_machine_and_its_patience_and_the_refusal_says_why():
    async with served(is_together=False, **DEFAULT) as (client, _):
        state = await told(await client.get("/v1/emulation"))
        assert state["patience"] is None
        assert (state["can_change"]["phone"], state["can_change"]["network"]) == (True, True)
        for key, value in (("cloud", "b200"), ("patience", 0), ("cloud_bandwidth_gb_s", 2000)):
            response = await client.patch("/v1/emulation", json={"network": "lte", key: value})
            assert response.status_code == 400
            assert state["can_change"]["cloud"] in response.json()["error"]["message"]
        assert "outrider serve" in state["can_change"]["cloud"]
        assert await told(await client.get("/v1/emulation")) == state


async def test_an_agent_that_was_not_made_for_it_or_may_not_says_so():
    async with agent_of(None, verifier=None) as bare, emulating(live_emulation=False) as forbidden:
        for agent, why in ((bare, "as they are"), (forbidden, "live_emulation is off")):
            state = await agent.emulation.describe()
            STATE.validate(state)
            assert why in state["can_change"]["phone"]
            with pytest.raises(InvalidRequestError, match=f"phone cannot be changed here: .*{why}"):
                await agent.emulation.change({"phone": "dimensity-9300"})
        assert (await bare.emulation.describe())["can_change"]["network"] == "this agent has no verifier"


async def test_two_changes_at_once_are_both_made():
    async with emulating(**DEFAULT) as agent:
        async with asyncio.TaskGroup() as tasks:
            for body in ({"rtt_ms": 100}, {"loss_percent": 1}, {"bandwidth_gb_s": 50}):
                tasks.create_task(agent.emulation.change(body))
        assert agent.emulation.played.overrides == {"rtt_ms": 100, "loss_percent": 1, "bandwidth_gb_s": 50}


# While an answer runs, to the microsecond.


async def watched(agent, at_s=None, tokens=24, body=None, **asked):
    """The events of an answer with their times, the emulation being changed ``at_s`` seconds into it."""
    loop, seen = asyncio.get_running_loop(), []
    await answer(agent, max_tokens=1, **asked)  # so that the connection is warm
    began_s = loop.time()
    if at_s is not None:
        loop.call_at(began_s + at_s, lambda: change(agent, **body))
    async with contextlib.aclosing(agent.stream(request(max_tokens=tokens, **asked))) as events:
        async for event in events:
            validate(event.to_json())
            seen.append((loop.time() - began_s, event.to_json()))
    return seen


def states(seen):
    return [(at_s, event["reason"]) for at_s, event in seen if event["event"] == "state"]


def told_by(seen):
    return seen[-1][1]


@pytest.mark.parametrize(
    ("before", "body"),
    [
        ({}, {"phone": "dimensity-9300", "network": "lte", "cloud": "mi300x"}),
        (DEFAULT, {"phone": "apple-a19-pro", "heat": "hot", "network": "apple-very-bad"}),
        (DEFAULT, {"rtt_ms": 900, "rate_mbps": 0.1, "loss_percent": 20}),
        (DEFAULT, {"cloud_bandwidth_gb_s": 500, "patience": "never"}),
        (DEFAULT, {"phone": None, "network": None, "cloud": None}),
    ],
    ids=["from nothing", "phone and network", "figures", "cloud and patience", "to nothing"],
)
def test_a_change_in_the_middle_changes_the_time_and_never_the_text(before, body):
    async def work():
        async with emulating(**before) as agent:
            seen = await watched(agent, 0.2 if before else 0.0, body=body)
            return seen, agent.num_streams, agent.emulation.played

    seen, left, played = virtual_time.run(work())
    done = told_by(seen)
    assert list(done["token_ids"]) == plain_decoding(FullEngine(), 24)
    assert (done["verified_count"], left) == (24, 0)
    assert played == Played(**before).changed(read_change(body))


def test_the_next_draft_step_takes_the_new_phones_time_exactly():
    before, after = (PhoneCost(phone_with(profiles.phone(NAME), given), DRAFT) for given in ({}, {"bandwidth_gb_s": 20.0}))

    async def work():
        async with emulating(phone=NAME) as agent:
            return await watched(agent, 0.05, body={"bandwidth_gb_s": 20}, mode="device")

    seen = virtual_time.run(work())
    written_s = [at_s for at_s, event in seen if event["event"] == "speculative"]
    expected_s, now_s = [], 0.0
    for past in range(24):
        new = 1 if past else len(PROMPT)
        cost = before if now_s < 0.05 else after  # a step that runs takes the time that it began with
        now_s += cost.step_s([Work(len(PROMPT) + past - 1 if past else 0, new)])
        expected_s.append(now_s)
    assert written_s == pytest.approx(expected_s, rel=1e-9)
    assert [at_s for at_s, reason in states(seen) if reason == "emulation"] == [0.05]


def test_the_next_message_takes_the_new_networks_time_exactly():
    """The cloud alone: ``Open`` goes up by the old network, every verdict that leaves later comes down by the new one."""
    down_s, pass_s = (lambda network: network.downlink_delay_s), 41e-3

    async def work(body):
        async with emulating(cloud="mi300x", network=FAR.name) as agent:
            return await watched(agent, None if body is None else 0.2, body=body, mode="cloud")

    unchanged, changed = virtual_time.run(work(None)), virtual_time.run(work({"rtt_ms": 1000 * (FAR.round_trip_s + 0.5)}))
    final_s, later_s = ([at_s for at_s, event in seen if event["event"] == "correct"] for seen in (unchanged, changed))
    slower = network_with(FAR, {"rtt_ms": 1000 * (FAR.round_trip_s + 0.5)})
    left_s = [at_s - down_s(FAR) for at_s in final_s]
    assert min(b - a for a, b in itertools.pairwise(left_s)) > 0.9 * pass_s
    expected_s = [left + down_s(FAR if left < 0.2 else slower) for left in left_s]
    assert later_s == pytest.approx(expected_s, abs=2e-4)  # a message's bytes at the profile's rate are in both


def test_the_client_is_told_once_a_change_and_the_figures_say_that_no_one_profile_made_them():
    async def work():
        async with emulating(**DEFAULT) as agent:
            changed = await watched(agent, 0.2, body={"network": "lte"})
            return changed, await watched(agent, 0.2, body={"network": "lte"})

    changed, unchanged = virtual_time.run(work())
    assert [at_s for at_s, reason in states(changed) if reason == "emulation"] == [pytest.approx(0.2)]
    assert changed[0][1]["network"] == "5g-nsa-low"  # the answer began with it
    assert told_by(changed)["figures"]["emulation_changes"] == {"value": 1, "unit": "changes", "basis": "emulated"}
    assert unchanged[0][1]["network"] == "lte"
    assert "emulation_changes" not in told_by(unchanged)["figures"]
    assert "emulation" not in {reason for _, reason in states(unchanged)}


def test_figures_are_emulated_as_soon_as_anything_was_and_joules_are_told_for_a_whole_answer_alone():
    async def work():
        async with emulating() as agent:
            seen = [await watched(agent), await watched(agent, 0.0, body={"phone": NAME, "cloud": "mi300x"})]
            seen += [await watched(agent), await watched(agent, 0.1, body={"phone": None})]
            return [told_by(each)["figures"] for each in seen]

    figures = virtual_time.run(work())
    assert [each["tokens_per_s"]["basis"] for each in figures] == ["measured", "emulated", "emulated", "emulated"]
    assert ["draft_joules" in each for each in figures] == [False, False, True, False]


def test_an_answer_of_the_cloud_alone_hears_of_a_change_too():
    async def work():
        async with emulating(**DEFAULT) as agent:
            return await watched(agent, 0.3, body={"cloud": "none"}, mode=Mode.CLOUD)

    assert [reason for _, reason in states(virtual_time.run(work()))] == ["link", "emulation"]


def test_an_unshaped_agent_drafts_several_steps_at_once_and_a_shaped_one_never_does():
    async def work():
        async with emulating() as agent:
            steps = agent._drafting._steps
            await answer(agent)
            unshaped = steps._is_emulated
            change(agent, phone="dimensity-9300")
            await answer(agent)
            return unshaped, steps._is_emulated, steps.burst

    assert virtual_time.run(work()) == (False, True, 1)


def test_a_change_leaves_no_watcher_behind_an_answer():
    async def work():
        async with emulating(**DEFAULT) as agent:
            await answer(agent)
            change(agent, rtt_ms=90)
            return agent.emulation._watchers

    assert virtual_time.run(work()) == []


def test_profiles_are_the_catalogues_own_even_in_a_folder_of_the_users(tmp_path):
    folder = tmp_path / "networks"
    folder.mkdir()
    (folder / "broken.toml").write_text("title = 3")

    async def work():
        async with emulating(profiles=tmp_path) as agent:
            state = await agent.emulation.describe()
            with pytest.raises(InvalidRequestError, match=r"broken\.toml"):
                await agent.emulation.change({"network": "broken"})
            return [choice["name"] for choice in state["choices"]["networks"]]

    assert "broken" not in asyncio.run(work())


def test_the_changes_of_one_are_values_that_stay():
    played = Played().changed(read_change({"rtt_ms": 60}))
    with pytest.raises(dataclasses.FrozenInstanceError):
        played.phone = "x"
    with pytest.raises(TypeError):
        played.overrides["rtt_ms"] = 3
