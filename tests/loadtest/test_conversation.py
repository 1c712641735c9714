"""A device of a load test against the verifier's own protocol session: what is sent, counted and resumed."""

import numpy as np
import pytest

from benchmarks.trace_file import Proposals, Trace
from loadtest.answers import Drafts
from loadtest.conversation import Conversation
from loadtest.drafts import Recorded
from speculation.errors import MalformedMessageError
from speculation.parameters import SamplingParameters
from speculation.protocol.device import DeviceSession
from speculation.protocol.messages import Opened, PairIdentity
from speculation.protocol.verifier import VerifierSession
from speculation.wire import codec

PROMPT, TRUE, SAID = [5, 6], [1, 2, 3, 4, 5, 6], [1, 2, 9, 4, 5, 6]


def conversation(ahead=2):
    said = Proposals(np.array([[token, 99] for token in SAID], np.int64), np.full((len(SAID), 2), 0.5))
    trace = Trace("p", 2, 0.0, 1, np.array(TRUE), said, np.zeros((len(SAID), 2)), [])
    session = DeviceSession("s", PairIdentity("a", "b", "c"), PROMPT, SamplingParameters(), len(TRUE))
    return Conversation(session, Recorded(trace), ahead, began_s=10.0)


class Verifier:
    """The pure end of one stream, which chooses ``TRUE``."""

    def __init__(self, opening):
        self.session = VerifierSession(codec.decode_request(opening[0]), 32)
        self.read(opening[1:])

    def read(self, messages):
        for message in messages:
            self.session.receive(codec.decode_request(message))

    def opened(self):
        return codec.encode_response(Opened("s", 32, "f", reads_packed=True))

    def one_pass(self):
        plan = self.session.plan(64)
        done = plan.start - len(PROMPT)
        verdict, finished = self.session.commit(plan, TRUE[done : done + len(plan.token_ids) + 1], 0)
        return [codec.encode_response(message) for message in (verdict, finished) if message is not None]


def run(talk, verifier, passes=20, now_s=11.0):
    """Passes until the end, or so many of them; the moments are seconds apart."""
    verifier.read(talk.receive(verifier.opened(), now_s))
    for _ in range(passes):
        now_s += 1
        for message in verifier.one_pass():
            verifier.read(talk.receive(message, now_s))
        if talk.is_finished:
            break
    return now_s


def test_an_answer_comes_to_its_end_with_the_full_models_text():
    talk = conversation()
    run(talk, Verifier(talk.opening()))
    assert talk.is_finished
    assert talk.generated == tuple(TRUE)


def test_tokens_are_counted_when_they_become_final():
    talk = conversation()
    run(talk, Verifier(talk.opening()))
    assert talk.times.updates == [(12.0, 3), (13.0, 3)]
    assert talk.times.first_final_s == 2.0
    assert talk.times.first_visible_s is None


def test_the_verifier_tells_what_became_of_the_drafts():
    talk = conversation()
    run(talk, Verifier(talk.opening()))
    assert talk.drafts == Drafts(shown=4, withdrawn=0, agreed=4, contradicted=0)


def test_a_device_is_no_further_ahead_than_it_was_told():
    talk = conversation(ahead=3)
    verifier = Verifier(talk.opening())
    assert verifier.session.plan(64).token_ids == (1, 2, 9)


def test_a_device_that_drafts_nothing_is_decoded():
    talk = conversation(ahead=0)
    run(talk, Verifier(talk.opening()))
    assert talk.generated == tuple(TRUE)
    assert len(talk.times.updates) == len(TRUE)


def test_after_a_cut_the_next_stream_begins_with_all_that_is_final():
    talk = conversation()
    run(talk, Verifier(talk.opening()), passes=1)
    opening = talk.opening()
    message = codec.decode_request(opening[0])
    assert (message.attempt, message.prefix) == (2, (*PROMPT, 1, 2, 3))
    run(talk, Verifier(opening), now_s=20.0)
    assert talk.generated == tuple(TRUE)
    assert talk.times.num_tokens == len(TRUE)


def test_a_message_that_breaks_the_protocol_is_an_error():
    talk = conversation()
    talk.opening()
    with pytest.raises(MalformedMessageError):
        talk.receive(b"\xff", 11.0)
