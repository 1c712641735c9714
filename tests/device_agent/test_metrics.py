"""The agent's figures: what its streams count while they run and afterwards, and what is told of its link and its phone."""

from __future__ import annotations

import pytest

from device_agent.figures import Counts
from speculation.errors import LinkError
from speculation.shaping import virtual_time
from speculation.shaping.engine import PhoneCost, shape
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat
from speculation.shaping.profiles import phone
from tests.device_agent.doubles import DraftEngine, SlowEngine, WatchedConnector, agent, agent_of, answer, request
from tests.device_agent.test_door import BODY, events_of, serving
from tests.support.figures import Figures
from tests.support.keys import ALICE, BOB

OURS = "outrider_agent_"
PASS_S = 0.03125


def figures(running):
    return Figures.of(running.metrics.registry)


def test_what_an_answer_counted_stands_in_the_figures():
    async def run():
        async with agent(DraftEngine(0.5, step_s=0.005), SlowEngine(PASS_S)) as running:
            return (await answer(running)).last, figures(running)

    last, told = virtual_time.run(run())
    usage = last["usage"]
    assert told[OURS + "final_tokens_total"] == 40
    assert told[OURS + "prompt_tokens_total"] == usage["prompt_tokens"]
    assert told[OURS + "verdicts_total"] == usage["passes"]
    assert told[OURS + "proposed_tokens_total"] == usage["proposed"]
    accepted, contradicted = told[OURS + "accepted_tokens_total"], told[OURS + "contradicted_tokens_total"]
    assert accepted / (accepted + contradicted) == pytest.approx(last["figures"]["acceptance"]["value"], abs=1e-4)
    assert contradicted > 0
    assert told[OURS + "corrections_total"] == usage["corrections"] > 0
    assert told[OURS + "sent_bytes_total"] == last["figures"]["bytes_up"]["value"]
    assert told[OURS + "received_bytes_total"] == last["figures"]["bytes_down"]["value"]
    assert told[OURS + "drafted_tokens_total"] == last["figures"]["draft_steps"]["value"]
    share = last["figures"]["revoked_share"]["value"]
    assert told[OURS + "revoked_tokens_total"] / told[OURS + "shown_tokens_total"] == pytest.approx(share, abs=1e-4)
    assert told.get(OURS + "streams_ended_total", reason="length") == told[OURS + "streams_started_total"] == 1
    assert told[OURS + "link_up"] == 1
    assert told[OURS + "rtt_seconds"] >= 0


def test_waits_are_those_of_the_loops_clock():
    async def run():
        async with agent(full=SlowEngine(PASS_S)) as running:
            await answer(running, mode="cloud", max_tokens=5)
            return figures(running)

    told = virtual_time.run(run())
    assert told[OURS + "first_final_seconds_sum"] == told[OURS + "first_visible_seconds_sum"] == PASS_S
    assert (told[OURS + "inter_token_seconds_count"], told[OURS + "inter_token_seconds_sum"]) == (4, 4 * PASS_S)
    assert told[OURS + "stream_seconds_sum"] == 5 * PASS_S


async def test_a_stream_is_counted_while_it_runs_and_not_again_when_it_is_cancelled():
    async with agent_of(None, DraftEngine(step_s=0.01)) as running:
        stream = await running.start(request(mode="device"))
        while not figures(running)[OURS + "shown_tokens_total"]:
            await stream.take()
        now = figures(running)
        assert now[OURS + "streams_running"] == 1
        await stream.aclose()
        told = figures(running)
    assert told[OURS + "streams_running"] == 0
    assert told[OURS + "drafted_tokens_total"] >= now[OURS + "drafted_tokens_total"] > 0
    assert told.get(OURS + "streams_ended_total", reason="cancelled") == 1
    assert told[OURS + "stream_seconds_count"] == 0


async def test_a_lost_verifier_shows_as_a_link_that_is_down():
    async with agent_of(WatchedConnector(failure=LinkError("gone"))) as running:
        assert not figures(running).has(OURS + "link_up")  # nothing is known yet
        assert not figures(running).has(OURS + "rtt_seconds")
        await answer(running, offline_tokens=3)
        assert figures(running)[OURS + "link_up"] == 0
        assert figures(running).get(OURS + "streams_ended_total", reason="offline") == 1


async def test_an_answer_that_fails_ends_with_an_error_in_the_figures():
    async with agent_of(WatchedConnector(failure=LinkError("gone"))) as running:
        await answer(running, mode="cloud")
        assert figures(running).get(OURS + "streams_ended_total", reason="error") == 1


async def test_the_thermal_status_of_an_emulated_phone_is_told():
    engine = shape(DraftEngine(), PhoneCost(phone("dimensity-9300"), parse_model("0.9B:int4")), Heat.HOT)
    async with agent_of(None, engine) as running:
        families = figures(running).families[OURS + "thermal_status"].samples
        assert [sample.value for sample in families] == [1]
        assert families[0].labels["status"] == engine.phone.status
    async with agent_of(None) as running:
        assert OURS + "thermal_status" not in figures(running).families


async def test_vllms_names_are_there_where_they_are_asked_for():
    async with agent(metrics_compat="vllm") as running:
        await answer(running)
        told = figures(running)
    assert told.get("vllm:generation_tokens_total", model_name="full") == 40
    assert told.get("vllm:request_success_total", model_name="full", finished_reason="length") == 1
    assert told.get("vllm:time_to_first_token_seconds_count", model_name="full") == 1


async def test_over_http_the_figures_want_a_key_and_refusals_are_counted(tmp_path):
    async with serving(tmp_path, None) as (client, _):
        alice, nobody = await client(ALICE), await client(None)
        await events_of(alice, mode="device")
        assert (await nobody.get("/metrics")).status_code == 401
        assert (await alice.post("/v1/stream", json=BODY | {"prompt": ""})).status_code == 400
        assert (await alice.get("/health", headers={"host": "evil.example"})).status_code == 403
        response = await alice.get("/metrics")
    told = Figures(response.text)
    assert [told.get(OURS + "refusals_total", status=status) for status in ("400", "401", "403")] == [1, 1, 1]
    assert told.get(OURS + "streams_ended_total", reason="length") == 1
    assert [secret for secret in (ALICE, BOB) if secret in response.text] == []


def test_counts_add_up_field_by_field():
    one = Counts(*range(1, 13))
    assert one + one == Counts(*range(2, 25, 2))
    assert sum((one, one), Counts()) == one + one
