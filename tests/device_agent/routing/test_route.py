"""What no policy decides: labels, what the device cannot do, and that there is no way back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.assignment import Assignment
from device_agent.drafting.branches import Branch
from device_agent.request import Message, Mode, StreamRequest
from device_agent.routing.policy import Decision, LinkState, Reason
from device_agent.routing.route import RECENT_TOKENS, Route, Surroundings
from speculation.parameters import SamplingParameters

ROOM = 100


class Stubborn:
    """Says one thing whatever it sees, and remembers what it saw."""

    def __init__(self, mode: Mode, reason: Reason = Reason.SWIFT) -> None:
        self.decision = Decision(mode, reason)
        self.seen = []

    def decide(self, view):
        self.seen.append(view)
        return self.decision


def route_of(policy, max_tokens=20, prompt=(1, 2, 3), look=lambda now_s: Surroundings(), began_s=0.0, **changes):
    request = StreamRequest(**{"prompt": "x", "mode": Mode.AUTO} | changes)
    assignment = Assignment("id", request, prompt, SamplingParameters(), max_tokens)
    return Route(assignment, ROOM, policy, look, began_s)


def grown(*chances):
    return [Branch(1, 0, position, None, chance=chance) for position, chance in enumerate(chances)]


@pytest.mark.parametrize("mode", [Mode.DEVICE, Mode.COLLABORATE, Mode.CLOUD])
def test_a_mode_that_was_asked_for_is_kept_and_nobody_is_asked(mode):
    policy = Stubborn(Mode.COLLABORATE)
    route = route_of(policy, mode=mode)
    assert route.first is None
    assert route.again(mode, grown(0.1), 1.0) is None
    assert (route.assignment.request.mode, policy.seen) == (mode, [])


@given(
    st.sampled_from([{"privacy": "device_only"}, {"messages": (Message("user", "x", "device_only"), Message("user", "y"))}]),
    st.sampled_from([Mode.DEVICE, Mode.COLLABORATE, Mode.CLOUD]),
    st.integers(1, 400),
    st.lists(st.floats(0, 1), max_size=5),
)
def test_what_may_not_leave_is_never_anything_but_the_devices(label, wanted, max_tokens, chances):
    policy = Stubborn(wanted)
    route = route_of(policy, max_tokens, **label)
    assert route.first == Decision(Mode.DEVICE, Reason.PRIVATE)
    for chance in chances:
        assert route.again(Mode.DEVICE, grown(chance), 1.0) is None
    assert (route.assignment.request.mode, policy.seen) == (Mode.DEVICE, [])


@pytest.mark.parametrize("wanted", [Mode.COLLABORATE, Mode.CLOUD])
def test_a_decision_becomes_the_assignments_mode(wanted):
    route = route_of(Stubborn(wanted, Reason.HOT))
    assert route.first == Decision(wanted, Reason.HOT)
    assert route.assignment.request.mode is wanted


def test_without_a_verifier_the_device_writes_unless_the_reader_wants_final_text():
    assert route_of(None).first == Decision(Mode.DEVICE, Reason.ALONE)
    assert route_of(None, reveal="final").first == Decision(Mode.COLLABORATE, Reason.FINAL_ONLY)
    assert route_of(None, logprobs=0).first == Decision(Mode.COLLABORATE, Reason.FINAL_ONLY)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"reveal": "final"}, Reason.FINAL_ONLY), ({"logprobs": 0}, Reason.FINAL_ONLY), ({"max_tokens": ROOM}, Reason.NO_ROOM)],
)
def test_what_the_device_cannot_write_it_does_not_begin(changes, reason):
    assert route_of(Stubborn(Mode.DEVICE), **changes).first == Decision(Mode.COLLABORATE, reason)
    assert route_of(Stubborn(Mode.CLOUD, Reason.HOT), **changes).first == Decision(Mode.CLOUD, Reason.HOT)


def test_a_reader_of_likely_text_is_not_left_with_text_that_would_be_held_back():
    route = route_of(Stubborn(Mode.DEVICE), reveal="stable", min_stability=0.5)
    assert route.again(Mode.DEVICE, grown(0.8), 0.0) is None
    assert route.again(Mode.DEVICE, grown(0.6), 0.0) == Decision(Mode.COLLABORATE, Reason.UNSURE)


def test_there_is_no_way_back_to_text_that_nobody_verifies():
    route = route_of(Stubborn(Mode.DEVICE))
    route.assignment = route_of(Stubborn(Mode.COLLABORATE)).assignment
    assert route.again(Mode.COLLABORATE, grown(1.0), 0.0) is None
    assert route.again(Mode.CLOUD, grown(1.0), 0.0) is None


def test_a_lost_verifier_is_waited_for_and_not_decided_about():
    policy = Stubborn(Mode.COLLABORATE)
    route = route_of(policy)
    policy.decision = Decision(Mode.CLOUD, Reason.HOT)
    assert route.again(Mode.DEVICE, grown(0.5), 0.0) is None
    assert route.again(Mode.COLLABORATE, (), 0.0) == Decision(Mode.CLOUD, Reason.HOT)


def test_a_policy_sees_what_was_drafted_and_what_is_around_it():
    policy = Stubborn(Mode.DEVICE)
    around = Surroundings(LinkState.UP, 62.5, "LIGHT", 41.0)
    route = route_of(policy, look=lambda now_s: around, began_s=10.0, deadline_ms=2000, priority=3)
    route.again(Mode.DEVICE, grown(0.5, 0.8), 10.5)
    route.again(Mode.DEVICE, grown(*[1.0] * RECENT_TOKENS), 11.0)
    first, second, third = policy.seen
    assert (first.mode, first.drafted_tokens, first.stability, first.confidence) == (None, 0, 1.0, 1.0)
    assert (second.mode, second.drafted_tokens, second.stability) == (Mode.DEVICE, 2, pytest.approx(0.4))
    assert (second.confidence, third.confidence) == (pytest.approx(0.65), 1.0)
    assert [view.deadline_ms for view in policy.seen] == [2000, 1500, 1000]
    assert (first.link, first.rtt_ms, first.thermal, first.battery_percent) == (LinkState.UP, 62.5, "LIGHT", 41.0)
    assert (first.prompt_tokens, first.max_tokens, first.draft_room, first.priority) == (3, 20, ROOM - 3, 3)
