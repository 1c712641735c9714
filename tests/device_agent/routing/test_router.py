from __future__ import annotations

from device_agent.assignment import Assignment
from device_agent.events import CommitEvent, CommitOffset, StateEvent
from device_agent.request import Mode, StreamRequest
from device_agent.routing.policy import LinkState
from device_agent.routing.router import Router
from speculation.parameters import SamplingParameters
from speculation.shaping import profiles
from speculation.shaping.battery import Battery
from speculation.shaping.engine import PhoneCost
from speculation.shaping.models import parse_model
from speculation.shaping.phone_state import Heat
from tests.device_agent.routing.test_route import Stubborn


def seen(phone=None, battery=None, events=(), at_s=0.0):
    policy = Stubborn(Mode.DEVICE)
    router = Router(policy, phone, battery)
    router.told(events)
    request = StreamRequest("x", mode=Mode.AUTO)
    router.route(Assignment("id", request, (1,), SamplingParameters(), 5), 100, at_s)
    return policy.seen[-1]


def test_what_nobody_told_is_not_known():
    view = seen()
    assert (view.link, view.rtt_ms, view.thermal, view.battery_percent) == (LinkState.UNKNOWN, None, None, None)


def test_the_newest_word_of_the_link_counts_and_a_round_trip_outlives_a_loss():
    link, away = StateEvent(1, "collaborate", "link", 60.0), StateEvent(2, "device", "offline")
    other = [StateEvent(3, "collaborate", "throttling"), CommitEvent(4, 1, 1, CommitOffset(1, 1))]
    assert (seen(events=[away, link, *other]).link, seen(events=[link]).rtt_ms) == (LinkState.UP, 60.0)
    lost = seen(events=[link, away, *other])
    assert (lost.link, lost.rtt_ms) == (LinkState.DOWN, 60.0)
    assert seen(events=[StateEvent(1, "device", "busy")]).link is LinkState.DOWN


def test_a_phone_that_rested_is_seen_as_cool_as_it_is():
    """Its own status is that of its last work: a phone that is sent to the cloud for being hot would never draft again."""
    phone = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4")).state(Heat.HOT)
    phone.begin(0.0)
    word = phone.status
    assert word not in ("NONE", None)
    assert (seen(phone, at_s=0.0).thermal, seen(phone, at_s=7200.0).thermal) == (word, "NONE")
    assert phone.status == word


def test_the_battery_is_seen_as_full_as_it_is_now():
    phone = PhoneCost(profiles.phone("dimensity-9300"), parse_model("0.9B:int4")).state()
    battery = Battery(phone, capacity_wh=10, full_percent=50)
    assert seen(phone, battery).battery_percent == 50
    assert seen(phone, battery, at_s=3600.0).battery_percent < 50
