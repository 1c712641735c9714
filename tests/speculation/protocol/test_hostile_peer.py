"""Each session alone against a peer that sends anything: an answer or an error of the tree, and nothing grows without bound."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example, given, settings
from hypothesis import strategies as st

from speculation.errors import CreditExceededError, MalformedMessageError, ProtocolError
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import INITIAL_CREDIT, Open, Opened, PairIdentity, Verdict
from speculation.protocol.verifier import VerifierSession
from speculation.wire import codec
from tests.speculation.protocol.hostile_pair import END_TOKEN, TableModel
from tests.support.wire_fuzz import STEP, VOCABULARY, HostileDevice, HostileVerifier, damaged, good_open, odd_open

IDENTITY = PairIdentity("tokenizer", "pair", "full")
PROMPT, MAX_TOKENS = [1, 2, 3], 24
MODEL = TableModel(5, VOCABULARY)
TRUTH = MODEL.generate(PROMPT, MAX_TOKENS)
GOOD = good_open(IDENTITY, "s", PROMPT, MAX_TOKENS)
HISTORY = st.lists(STEP, min_size=1, max_size=16)
PAUSE = 64
"""A step whose last byte is below: the verifier runs a pass, or the device drafts."""


def run_pass(session):
    """One pass of the table's choices."""
    plan = session.plan(6)
    log = [*session.final, *plan.token_ids]
    session.commit(plan, [MODEL.choose(log[: plan.start + row]) for row in range(len(plan.token_ids) + 1)])


def check(session):
    usage = session.usage
    assert session.live_nodes <= INITIAL_CREDIT
    assert list(session.final) == TRUTH[: len(session.final)]
    assert 0 <= usage.proposed - usage.accepted - usage.late - usage.discarded <= INITIAL_CREDIT
    assert min(usage.accepted, usage.late, usage.discarded) >= 0


def receive(session, data):
    """As the verifier does, which refuses a second ``Open`` before the session hears of it."""
    message = codec.decode_request(data)
    if isinstance(message, Open):
        raise MalformedMessageError("a second Open")
    was_over = session.finished is not None
    session.receive(message)
    assert was_over or getattr(message, "known", 0) <= len(session.final)


@settings(max_examples=2 * settings.default.max_examples, deadline=None)
@given(HISTORY)
@example([b"\x0e\x8b\x00\x00\x00@", bytes(6)])  # a draft of the largest token id, then a pass
def test_whatever_a_device_sends_the_log_is_the_models_and_the_nodes_are_within_the_credit(history):
    session = VerifierSession(codec.decode_request(GOOD.SerializeToString()), INITIAL_CREDIT)
    device = HostileDevice(GOOD, TRUTH)
    with suppress(MalformedMessageError, CreditExceededError):
        for step in history:
            if step[-1] >= PAUSE:
                receive(session, device.request(step, len(session.final)))
            elif session.finished is None:
                run_pass(session)
            check(session)
    assert session.live_nodes <= INITIAL_CREDIT


@settings(deadline=None)
@given(STEP, STEP)
def test_whatever_an_open_says_it_begins_a_session_or_is_malformed(odd, damage):
    wire = odd_open(GOOD, odd).SerializeToString()
    with suppress(MalformedMessageError):
        message = codec.decode_request(wire if damage[0] < 128 else damaged(wire, damage))
        if isinstance(message, Open):
            assert len(VerifierSession(message, 1).final) <= len(wire)


def hear(device, data):
    """One message of the verifier, and what it may have changed."""
    before, live = list(device.final), device.live_nodes
    try:
        message = codec.decode_response(data)
        update = device.receive(message)
    except ProtocolError:
        assert (list(device.final), device.live_nodes) == (before, live)
        raise
    assert list(device.final) == before + list(update.tokens)
    assert len(device.final) <= len(PROMPT) + MAX_TOKENS
    assert END_TOKEN not in device.final[:-1]
    if isinstance(message, Verdict):
        assert len(device.final) == max(len(before), message.end)


def draft_some(device):
    """The nodes that were sent."""
    for number in range(min(device.room, 4)):
        device.drafted(1 + number % 2, number % 3, None if number % 2 else 0)
    draft = device.flush()
    return draft.nodes if draft else ()


@settings(max_examples=2 * settings.default.max_examples, deadline=None)
@given(HISTORY)
def test_whatever_a_verifier_sends_it_is_an_update_or_an_error_and_the_device_can_go_on_elsewhere(history):
    device, verifier = DeviceSession("s", IDENTITY, PROMPT, SamplingParameters(), MAX_TOKENS, (END_TOKEN,)), HostileVerifier()
    device.open()
    device.receive(Opened("s", 40, "f"))
    with suppress(ProtocolError):
        for step in history:
            if step[-1] >= PAUSE:
                hear(device, verifier.response(step, len(device.final)))
            else:
                verifier.heard(draft_some(device))
    assert device.open().prefix == tuple(device.final)
    assert all(node.number >= 1 for node in draft_some(device))
