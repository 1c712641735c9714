"""Mode ``auto`` as its reader meets it: who writes, when that changes, and that the text is right whoever wrote it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent.agent import DeviceAgent
from device_agent.request import Mode, Reveal
from device_agent.routing.policy import Decision, Reason
from speculation.engines.runner import EngineRunner
from speculation.errors import InvalidRequestError, LinkError
from speculation.links.memory import MemoryConnector
from speculation.parameters import SamplingParameters
from speculation.shaping import profiles, virtual_time
from speculation.shaping.engine import PhoneCost, shape
from speculation.shaping.link import ShapedConnector
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat
from speculation.telemetry.spans import UNTRACED
from tests.device_agent.doubles import (
    DraftEngine,
    FullEngine,
    SlowEngine,
    WatchedConnector,
    agent,
    agent_of,
    answer,
    config,
    decode,
    facts,
    plain_decoding,
    request,
    verifier,
)

SAMPLED = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "seed": 5}
FULL_TEXT = plain_decoding(FullEngine())


class Script:
    """Decides by how often it was asked; its last word holds."""

    def __init__(self, *modes: Mode) -> None:
        self.modes = modes
        self.num_asked = 0

    def decide(self, view):
        mode = self.modes[min(self.num_asked, len(self.modes) - 1)]
        self.num_asked += 1
        return Decision(mode, Reason.HOT if mode is Mode.CLOUD else Reason.UNSURE)


def run(work):
    return virtual_time.run(work)


def routed(connector, policy, draft=None, **changes):
    return DeviceAgent(facts(), EngineRunner(draft or DraftEngine()), connector, config(**changes), routing=policy)


async def events_of(running, **changes):
    return [event async for event in running.stream(request(mode="auto", **changes))]


def states_of(events):
    return [(event.mode, event.reason) for event in events if event.name == "state"]


async def written(policy, draft=None, full=None, limit=None, **changes):
    """The last event of an answer by a policy, and its states; read by a client that refuses what breaks the contract."""
    async with verifier(full) as made:
        connector = WatchedConnector(MemoryConnector(made), limit)
        async with routed(connector, policy, draft) as running:
            replay = await answer(running, mode="auto", **changes)
        assert made.num_sessions == 0
    return replay.last


def test_a_draft_that_is_never_unsure_writes_alone_and_calls_nobody():
    async def work():
        async with verifier() as made:
            connector = WatchedConnector(MemoryConnector(made))
            async with agent_of(connector, DraftEngine(0.5), auto_stability=0.0) as running:
                return await events_of(running), connector

    events, connector = run(work())
    assert (events[0].mode, states_of(events)) == ("auto", [("device", "swift")])
    assert events[1].name == "state"
    assert (list(events[-1].token_ids), events[-1].verified_count) == (plain_decoding(DraftEngine(0.5)), 0)
    assert (events[-1].finish_reason, events[-1].usage["passes"], connector.links) == ("length", 0, [])


@pytest.mark.parametrize("sampling", [{}, SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("reveal", [Reveal.ALL, Reveal.STABLE])
def test_an_unsure_draft_is_audited_from_its_first_token(sampling, reveal):
    async def work():
        async with agent(DraftEngine(0.3, step_s=0.009), SlowEngine(0.03)) as running:
            return await events_of(running, reveal=reveal, **sampling)

    events = run(work())
    assert states_of(events) == [("device", "swift"), ("collaborate", "unsure"), ("collaborate", "link")]
    done = events[-1]
    assert list(done.token_ids) == plain_decoding(FullEngine(), parameters=SamplingParameters(**{"seed": 3} | sampling))
    assert done.verified_count == len(done.token_ids)
    assert done.usage["proposed"] > 0


modes = st.sampled_from([Mode.COLLABORATE, Mode.CLOUD])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 39), st.lists(modes, min_size=1, max_size=30), st.sampled_from([0.0, 0.7, 1.0]))
def test_the_text_is_the_full_models_whenever_it_is_handed_over_and_however_often_a_phone_stops(alone, later, accuracy):
    policy = Script(*[Mode.DEVICE] * alone, *later, Mode.COLLABORATE)
    done = run(written(policy, DraftEngine(accuracy, step_s=0.009), SlowEngine(0.02)))
    assert list(done["token_ids"]) == FULL_TEXT
    assert done["verified_count"] == len(FULL_TEXT)


@pytest.mark.parametrize("later", [Mode.COLLABORATE, Mode.CLOUD])
def test_a_link_that_breaks_and_comes_back_gives_the_same_text(later):
    """The draft is so slow that the verifier is back before the device has ended the answer alone."""
    done = run(written(Script(*[Mode.DEVICE] * 3, later), DraftEngine(0.7, step_s=0.2), SlowEngine(0.02), limit=15))
    assert list(done["token_ids"]) == FULL_TEXT
    assert done["verified_count"] == len(FULL_TEXT)


@pytest.mark.parametrize("alone", [0, 16, 17, 18, 19, 39])
def test_a_stop_string_cuts_the_same_text_wherever_it_is_handed_over(alone):
    text = decode(FULL_TEXT)
    done = run(written(Script(*[Mode.DEVICE] * alone, Mode.COLLABORATE), DraftEngine(1.0), stop=(text[17:20],)))
    assert (done["text"], done["finish_reason"]) == (text[: text.index(text[17:20])], "stop")


@pytest.mark.parametrize(("alone", "is_cut"), [(1, False), (5, False), (6, False), (7, True)])
def test_a_stop_string_of_the_drafts_own_cuts_only_text_that_stays_the_drafts(alone, is_cut):
    """The draft alone spells it with its fourth to sixth token; where a verifier is asked behind the sixth, it is no stop."""
    drafted = decode(plain_decoding(DraftEngine(0.0)))
    stop = drafted[3:6]
    assert stop not in decode(FULL_TEXT)
    done = run(written(Script(*[Mode.DEVICE] * alone, Mode.COLLABORATE), DraftEngine(0.0), stop=(stop,)))
    assert done["text"] == (drafted[:3] if is_cut else decode(FULL_TEXT))


def test_beside_a_cloud_that_writes_alone_nothing_is_drafted():
    done = run(written(Script(Mode.CLOUD)))
    assert list(done["token_ids"]) == FULL_TEXT
    assert (done["figures"]["draft_steps"]["value"], done["usage"]["proposed"]) == (0, 0)


def test_a_phone_that_stops_drafting_in_mid_answer_drafts_no_more():
    policy = Script(*[Mode.COLLABORATE] * 6, Mode.CLOUD)
    done = run(written(policy, DraftEngine(1.0, step_s=0.009), SlowEngine(0.05)))
    assert list(done["token_ids"]) == FULL_TEXT
    assert 0 < done["figures"]["draft_steps"]["value"] <= 6
    assert done["usage"]["passes"] >= len(FULL_TEXT) - 6


@pytest.mark.parametrize("mode", [Mode.COLLABORATE, Mode.CLOUD])
def test_without_a_link_the_device_writes_on_whatever_was_decided(mode):
    async def work():
        connector = WatchedConnector(failure=LinkError("nobody answers"))
        async with routed(connector, Script(mode), DraftEngine(0.5, step_s=0.01)) as running:
            return await events_of(running)

    events = run(work())
    assert [reason for _, reason in states_of(events)] == [Script(mode).decide(None).reason, "offline"]
    assert (list(events[-1].token_ids), events[-1].verified_count) == (plain_decoding(DraftEngine(0.5)), 0)


def test_offline_tokens_bound_what_follows_a_loss_and_not_what_the_device_was_left_to_write():
    async def work(policy):
        connector = WatchedConnector(failure=LinkError("nobody answers"))
        async with routed(connector, policy, DraftEngine(0.5, step_s=0.01)) as running:
            return (await events_of(running, offline_tokens=5))[-1]

    assert len(run(work(Script(Mode.DEVICE))).token_ids) == 40
    lost = run(work(Script(*[Mode.DEVICE] * 10, Mode.COLLABORATE)))
    assert (len(lost.token_ids), lost.finish_reason) == (5, "offline")


def far(made):
    return ShapedConnector(MemoryConnector(made), profiles.network("lte"))


def test_a_deadline_that_no_verifier_could_keep_is_kept_by_the_device():
    async def work():
        draft, network = DraftEngine(0.5, step_s=0.01), profiles.network("lte")
        async with (
            verifier(SlowEngine(0.3)) as made,
            agent_of(ShapedConnector(MemoryConnector(made), network), draft) as running,
        ):
            learned = await answer(running, max_tokens=1)
            assert learned.last["verified_count"] == 1
            return await events_of(running, deadline_ms=125)

    events = run(work())
    assert states_of(events) == [("device", "deadline")]
    assert (events[-1].finish_reason, events[-1].verified_count) == ("deadline", 0)
    assert 10 <= len(events[-1].token_ids) <= 12


def test_without_a_verifier_auto_is_the_device_and_final_text_is_refused_by_the_link():
    async def work(**changes):
        async with agent_of(None) as running:
            return await events_of(running, **changes)

    assert states_of(run(work())) == [("device", "alone")]
    assert run(work(reveal="final"))[-1].error["message"] == "no verifier is configured"


def test_what_stays_must_fit_the_draft_and_what_does_not_stay_need_not():
    async def work():
        pair = facts(draft_context_length=20)
        async with verifier() as made, agent_of(MemoryConnector(made), pair=pair) as running:
            with pytest.raises(InvalidRequestError, match="leaves 10 in a context of 20"):
                await events_of(running, privacy="device_only")
            return await events_of(running)

    events = run(work())
    assert states_of(events)[0] == ("collaborate", "no_room")
    assert list(events[-1].token_ids) == FULL_TEXT


def hot_agent(connector, heat, **changes):
    cost = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4"))
    return agent_of(connector, shape(DraftEngine(1.0), cost, heat), phone="dimensity-9300", **changes)


@pytest.mark.parametrize(("heat", "changes", "reason"), [(Heat.HOT, {}, "hot"), (Heat.OFF, {"battery_percent": 10}, "battery")])
def test_a_phone_that_is_hot_or_empty_leaves_the_writing_to_the_cloud(heat, changes, reason):
    async def work():
        async with verifier() as made, hot_agent(MemoryConnector(made), heat, **changes) as running:
            return await events_of(running)

    events = run(work())
    assert {mode for mode, _ in states_of(events)} == {"cloud"}
    assert [told for _, told in states_of(events) if told != "throttling"] == [reason, "link"]
    assert list(events[-1].token_ids) == FULL_TEXT
    assert events[-1].figures["draft_steps"]["value"] == 0


def test_a_phone_that_rested_beside_the_cloud_drafts_again_and_is_said_to_be_cooler():
    async def work():
        async with verifier(SlowEngine(0.05)) as made, hot_agent(MemoryConnector(made), Heat.HOT) as running:
            return [event for _ in range(6) for event in await events_of(running) if event.name == "state"]

    states = run(work())
    assert (states[0].reason, states[0].thermal) == ("hot", "SEVERE")
    rested = next(state for state in states if state.reason == "rested")
    assert (rested.mode, rested.thermal) == ("collaborate", "MODERATE")


def test_an_answer_tells_how_full_the_battery_is_and_less_after_work():
    async def work():
        async with verifier() as made, hot_agent(MemoryConnector(made), Heat.OFF, battery_percent=60) as running:
            first = (await events_of(running))[-1].figures["battery_percent"]
            second = (await events_of(running))[-1].figures["battery_percent"]
            return first, second, (await scraped(running))

    first, second, gauge = run(work())
    assert (first["unit"], first["basis"]) == ("%", "emulated")
    assert 59 < second["value"] <= first["value"] <= 60
    assert 59 < gauge < 60


async def scraped(running):
    return running.metrics.registry.get_sample_value("outrider_agent_battery_percent")


def test_the_same_request_is_decided_the_same_way_again():
    async def work():
        async with agent(DraftEngine(0.3, step_s=0.009), SlowEngine(0.03)) as running:
            return [event.to_json() | {"session_id": ""} for event in await events_of(running)]

    assert run(work()) == run(work())


async def test_a_span_of_what_may_not_leave_is_not_told_to_a_collector():
    class Told:
        def __init__(self):
            self.names = []

        def start(self, name, attributes, traceparent=None):
            self.names.append(name)
            return UNTRACED.start(name, attributes, traceparent)

        def close(self): ...

    told, runner = Told(), EngineRunner(DraftEngine())
    async with verifier() as made, DeviceAgent(facts(), runner, MemoryConnector(made), config(), told) as running:
        await events_of(running)
        assert len(told.names) == 1
        await events_of(running, privacy="device_only")
        assert len(told.names) == 1
