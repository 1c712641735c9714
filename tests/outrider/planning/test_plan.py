"""The planner asks the production code, and tells what it finds."""

import asyncio
import dataclasses
import json

import pytest

from device_agent.events import DoneEvent, ErrorEvent
from device_agent.request import Mode
from outrider.planning import plan as planning
from outrider.planning import scene
from outrider.planning.answers import Asked, Effort, Interval, break_even, interval, rate_of
from outrider.planning.plan import num_steps
from outrider.planning.report import sentence
from outrider.planning.scene import Place, Setup, Written
from outrider.planning.sources import RealPair, Synthetic
from outrider.planning.synthetic import Acceptance
from speculation.errors import CapacityError, InvalidRequestError, SimulationError
from speculation.shaping import figures, profiles
from speculation.shaping.models import parse_model
from speculation.shaping.profiles import PhoneProfile

SMALL = Effort(
    num_tokens=32,
    num_draws=3,
    num_search_draws=1,
    num_served_tokens=16,
    most_devices=4,
    round_trips_ms=(0.0, 200.0, 1600.0),
    depths=(1, 8),
    widths=(1, 4),
    moments_s=(0.0, 600.0),
)
PLACE = Place(
    profiles.phone("dimensity-9300"),
    profiles.network("5g-nsa-low"),
    profiles.cloud("mi300x"),
    parse_model("0.9B:int4"),
    parse_model("70B:fp16"),
)


HEAT_AND_ENERGY = [
    attribute for attribute, key in figures.keys(PhoneProfile).items() if key.name.partition(".")[0] in ("heat", "energy")
]


def asked(alpha=0.8, place=PLACE, **changes):
    return Asked(place, Acceptance(alpha), prompt_length=8, context_length=256, effort=SMALL, **changes)


def source(alpha=0.8, seed=0):
    return Synthetic(Acceptance(alpha), 256, 8, seed)


def written(**changes):
    told = dict.fromkeys((field.name for field in dataclasses.fields(Written)), 0.0)
    return Written(**(told | {"num_tokens": 11, "first_final_s": 1.0} | changes))


@pytest.fixture(scope="module")
def found():
    steps = []
    answer = planning.plan(asked(), steps.append)
    return answer, steps


def test_a_good_draft_on_a_near_network_pays_and_the_plan_says_how_much(found):
    plan, _ = found
    assert plan.pays
    assert 1.3 < plan.speed_up.low <= plan.speed_up.mean <= plan.speed_up.high < 5
    assert plan.collaborate.tokens_per_s > plan.cloud.tokens_per_s
    assert plan.collaborate.passes_per_token < plan.cloud.passes_per_token == 1
    assert plan.cloud.draft_steps_per_token == plan.device.passes_per_token == 0
    assert plan.device.first_final_ms is None
    assert sentence(plan).startswith("It pays: ")


def test_the_same_question_gets_the_same_answer(found):
    plan, _ = found
    assert planning.plan(asked(), lambda _: None) == plan


def test_a_hot_phone_drafts_more_slowly_and_still_never_loses_to_the_cloud(found):
    plan, _ = found
    cold, hot = plan.heat
    assert (cold.after_s, cold.phone_speed, hot.after_s) == (0.0, 1.0, 600.0)
    assert hot.phone_speed < 1
    assert hot.device_tokens_per_s == pytest.approx(cold.device_tokens_per_s * hot.phone_speed, rel=0.05)
    assert plan.cloud.tokens_per_s < hot.tokens_per_s <= cold.tokens_per_s


def test_a_phone_without_figures_of_heat_and_energy_has_none_in_the_plan():
    phone = dataclasses.replace(PLACE.phone, **dict.fromkeys(HEAT_AND_ENERGY))
    plan = planning.plan(asked(place=dataclasses.replace(PLACE, phone=phone)), lambda _: None)
    assert plan.heat == []
    assert plan.collaborate.work_j_per_token is None


def test_joules_are_told_for_the_work_and_for_the_radio(found):
    plan, _ = found
    assert plan.collaborate.work_j_per_token > plan.device.work_j_per_token > 0
    assert plan.cloud.radio_j_per_token > plan.collaborate.radio_j_per_token > plan.device.radio_j_per_token == 0


def test_a_network_that_does_not_say_what_its_radio_draws_has_none_in_the_plan():
    wired = dataclasses.replace(PLACE, network=profiles.network("wifi"))
    assert scene.run(wired, source(), Setup.of(), [0], 16)[0].radio_j_per_token is None


def test_progress_is_told_as_often_as_was_promised(found):
    _, steps = found
    assert len(steps) == num_steps(SMALL)


def test_gains_fall_with_distance(found):
    plan, _ = found
    assert plan.by_round_trip[0.0] > plan.by_round_trip[200.0] > plan.by_round_trip[1600.0]
    assert plan.break_even_ms == break_even(plan.by_round_trip)


def test_a_plan_is_json(found):
    plan, _ = found
    told = json.loads(json.dumps(plan.to_json(), allow_nan=False))
    assert told["pays"] is True
    assert told["served"]["collaborate"]["usd_per_million"] < told["served"]["cloud"]["usd_per_million"]


def test_a_bad_draft_far_away_does_not_pay_and_never_costs_speed():
    far = PLACE.at_round_trip(0.8)
    plan = planning.plan(asked(0.3, far), lambda _: None)
    assert not plan.pays
    assert plan.speed_up.low > 0.98
    assert sentence(plan).startswith("It does not pay: ")


def test_a_server_holds_as_many_as_get_their_rate():
    fast = planning.plan(asked(rate_tokens_per_s=30.0), lambda _: None)
    assert (fast.served["cloud"].num_devices, fast.served["cloud"].bound) == (0, "rate")
    assert (fast.served["collaborate"].num_devices, fast.served["collaborate"].bound) == (4, "tried")


def test_a_server_holds_as_many_as_its_memory_has_room_for():
    """140 GB of weights leave room for two and a half contexts of 128 tokens on a machine made to measure."""
    model, context_length = PLACE.full, 256
    cloud = dataclasses.replace(PLACE.cloud, memory_bytes=140e9 + 2.5 * context_length * model.kv_bytes_per_token)
    plan = planning.plan(asked(place=dataclasses.replace(PLACE, cloud=cloud)), lambda _: None)
    assert {mode: (served.num_devices, served.bound) for mode, served in plan.served.items()} == {
        "cloud": (2, "memory"),
        "collaborate": (2, "memory"),
    }


def test_without_a_price_there_is_none_in_the_plan():
    free = dataclasses.replace(PLACE, cloud=dataclasses.replace(PLACE.cloud, price_usd_per_s=None))
    plan = planning.plan(asked(place=free), lambda _: None)
    assert plan.served["cloud"].usd_per_million is None


def test_a_model_that_does_not_fit_the_phone_is_refused_with_the_sum():
    with pytest.raises(CapacityError, match=r"GB weights \+ .* but an app's share"):
        planning.plan(asked(place=dataclasses.replace(PLACE, draft=parse_model("13B:int8"))), lambda _: None)


def test_break_even_lies_on_the_line_between_two_round_trips():
    assert break_even({0.0: 1.0, 100.0: 1.0}) == 0.0
    assert break_even({0.0: 2.0, 100.0: 1.5}) is None
    assert break_even({100.0: 1.0, 0.0: 1.1}) == pytest.approx(50.0)


def test_an_interval_holds_its_mean_and_is_narrow_where_all_agree():
    assert interval([1.5] * 4) == Interval(1.5, 1.5, 1.5)
    wide = interval([1.0, 2.0, 3.0])
    assert wide.low < wide.mean == 2.0 < wide.high


def test_the_rate_of_many_counts_from_the_first_final_token():
    assert (
        rate_of([written(began_s=1.0, ended_s=3.0), written(began_s=1.0, ended_s=7.0), written(began_s=0.0, ended_s=3.5)])
        == 4.0
    )


def test_a_round_trip_is_shared_as_before_and_keeps_its_jitter_within_it():
    jittery = dataclasses.replace(PLACE.network, uplink_jitter_s=0.02)
    near = dataclasses.replace(PLACE, network=jittery).at_round_trip(0.006).network
    assert near.round_trip_s == pytest.approx(0.006)
    assert near.uplink_delay_s / near.downlink_delay_s == pytest.approx(34 / 26)
    assert near.uplink_jitter_s == near.uplink_delay_s
    nowhere = dataclasses.replace(PLACE.network, uplink_delay_s=0.0, downlink_delay_s=0.0)
    assert dataclasses.replace(PLACE, network=nowhere).at_round_trip(0.1).network.round_trip_s == pytest.approx(0.1)


def test_a_phone_at_half_its_speed_drafts_half_as_fast():
    fast, slow = (
        scene.run(place, source(), Setup.of(Mode.DEVICE), [0], 32)[0].tokens_per_s for place in (PLACE, PLACE.at_speed(0.5))
    )
    assert fast / slow == pytest.approx(2.0, rel=0.02)


def test_each_device_asks_something_else_and_meets_other_draws():
    prompts = {source().request(number, 4, Mode.CLOUD).prompt for number in range(300)}
    assert len(prompts) == 300
    rates = {answer.passes_per_token for answer in scene.run(PLACE, source(), Setup.of(num_devices=4), range(4), 32)}
    assert len(rates) > 1


def test_a_timeline_has_every_event_of_an_answer_in_order():
    events = scene.timeline(PLACE, source(), Setup.of(), 0, 16)
    assert [timed.at_s for timed in events] == sorted(timed.at_s for timed in events)
    assert isinstance(events[-1].event, DoneEvent)
    assert len(events[-1].event.token_ids) == 16


def test_a_stream_that_ends_with_an_error_is_told():
    too_short = Synthetic(Acceptance(0.8), 8, 8)
    with pytest.raises(InvalidRequestError, match="leaves no room behind it"):
        scene.run(PLACE, too_short, Setup.of(), [0], 16)

    async def broken():
        yield ErrorEvent(0, {"message": "no"})

    async def endless():
        for event in ():
            yield event

    for events in (broken(), endless()):
        with pytest.raises(SimulationError, match="the stream ended with"):
            asyncio.run(scene.last_event(events))


def test_a_real_pair_is_asked_with_its_own_prompts():
    pair = RealPair(None, (), 0.8)
    answers = {mode: scene.run(PLACE, pair, Setup.of(mode), [0], 12)[0] for mode in (Mode.CLOUD, Mode.COLLABORATE)}
    assert answers[Mode.CLOUD].num_tokens == answers[Mode.COLLABORATE].num_tokens == 12
    assert answers[Mode.COLLABORATE].tokens_per_s > answers[Mode.CLOUD].tokens_per_s
    assert RealPair(None, ["## Threads"], 0.0).request(5, 3, Mode.CLOUD).prompt == "## Threads"


def test_answers_in_turn_are_one_phones_the_first_as_if_it_were_alone():
    source = Synthetic(Acceptance(0.6), 256, 8)
    found = scene.in_turn(PLACE, source, Setup.of(), [0, 1], 32)
    assert found[0] == scene.run(PLACE, source, Setup.of(), [0], 32)[0]
    assert found[1].began_s == found[0].ended_s
    assert [answer.num_tokens for answer in found] == [32, 32]


def test_a_prompt_that_is_read_on_another_thread_is_planned_with_as_well():
    """From 4,096 bytes on: a token of the synthetic pair has three."""
    short, long = (
        scene.run(PLACE, Synthetic(Acceptance(0.8), 2048, length), Setup.of(), [0], 4)[0].first_final_s for length in (64, 1400)
    )
    assert short < long
