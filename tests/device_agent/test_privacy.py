from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.privacy import Privacy, strictest
from device_agent.request import Message, Mode, Reveal, StreamRequest
from speculation.errors import InvalidRequestError, UnknownNameError

ONLY = {"privacy": "device_only"}
SAID = {"role": "user", "content": "x"}


@given(st.lists(st.sampled_from(list(Privacy))))
def test_one_that_stays_keeps_all(labels):
    assert (strictest(labels) is Privacy.DEVICE_ONLY) == (Privacy.DEVICE_ONLY in labels)


@pytest.mark.parametrize("body", [{"prompt": "x"} | ONLY, {"messages": [SAID, SAID | ONLY]}, {"messages": [SAID]} | ONLY])
@pytest.mark.parametrize("mode", ["auto", "device"])
def test_a_label_of_a_request_or_of_a_message_is_one_of_the_request(body, mode):
    assert StreamRequest.from_json(body | {"mode": mode}).is_private


@pytest.mark.parametrize(
    "body", [{"prompt": "x"}, {"messages": [SAID | {"privacy": None}]}, {"prompt": "x", "privacy": "open"}]
)
def test_without_a_label_a_request_is_open(body):
    assert not StreamRequest.from_json(body).is_private


@pytest.mark.parametrize(
    ("mode", "named"), [({"mode": "cloud"}, "cloud"), ({"mode": "collaborate"}, "collaborate"), ({}, "collaborate")]
)
def test_a_mode_that_sends_the_prompt_away_is_refused_by_name_with_those_that_would_do(mode, named):
    with pytest.raises(InvalidRequestError, match=rf"mode {named} .* use mode auto or device") as refused:
        StreamRequest.from_json({"prompt": "x"} | ONLY | mode)
    assert refused.value.parameter == "mode"


def test_who_wants_final_text_alone_is_told_that_there_is_none():
    with pytest.raises(InvalidRequestError, match=r"no final tokens .* reveal all or stable") as refused:
        StreamRequest("x", mode=Mode.AUTO, reveal=Reveal.FINAL, privacy=Privacy.DEVICE_ONLY)
    assert refused.value.parameter == "reveal"


def test_there_are_no_log_probabilities_of_what_no_full_model_reads():
    with pytest.raises(InvalidRequestError, match="what stays on the device: leave them out") as refused:
        StreamRequest("x", mode=Mode.AUTO, logprobs=0, privacy=Privacy.DEVICE_ONLY)
    assert refused.value.parameter == "logprobs"


@pytest.mark.parametrize("body", [{"prompt": "x", "privacy": "device-only"}, {"messages": [SAID | {"privacy": "secret"}]}])
def test_a_label_that_is_none_is_refused_with_those_that_are(body):
    with pytest.raises(UnknownNameError, match="known: device_only, open"):
        StreamRequest.from_json(body | {"mode": "device"})


def test_a_misspelt_label_in_python_is_no_open_door():
    with pytest.raises(UnknownNameError):
        Message("user", "x", "deviceonly")
