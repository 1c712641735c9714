"""What a load test asks the bundled pair for: prompts with the seeds of their recording, and prompts of a wanted length."""

import random

import pytest

from benchmarks import trace_file
from loadtest.asking import Library
from loadtest.drafts import FromText, Recorded
from loadtest.scenario import Group, Kind, parse
from loadtest.world import World
from speculation.engines.package import load_pair
from speculation.errors import ConfigurationError

DEVICES = Group(name="devices", kind=Kind.DEVICE)
LONG = {
    "title": "t",
    "stages": [{"seconds": 1, "users": 1}],
    "groups": [{"name": "a", "kind": "device", "prompt_tokens": [1, 900]}],
}


@pytest.fixture(scope="module")
def library():
    return Library(load_pair(), trace_file.load())


def test_every_short_request_is_one_that_was_recorded(library):
    asked = [library.request(DEVICES, number, random.Random(1)) for number in range(40)]
    assert len({request.text for request in asked}) == 16
    for request in asked:
        assert (request.trace.seed, request.trace.temperature) == (request.seed, request.temperature)
        assert request.trace.prompt_length == len(request.token_ids)


def test_a_recorded_request_is_drafted_for_by_its_recording(library):
    request = library.request(DEVICES, 3, random.Random(1))
    drafter = library.drafter(request)
    assert isinstance(drafter, Recorded)
    assert drafter.next([], []) == request.trace.said.token_ids[0, 0]


def test_a_temperature_that_was_not_recorded_is_drafted_for_from_the_text(library):
    request = library.request(DEVICES.model_copy(update={"temperature": 0.3}), 0, random.Random(1))
    assert isinstance(library.drafter(request), FromText)


def test_a_longer_prompt_is_as_long_as_the_scenario_says_and_leaves_room(library):
    group = DEVICES.model_copy(update={"prompt_tokens": (450, 460), "max_tokens": 192})
    request = library.request(group, 5, random.Random(1))
    assert 450 <= len(request.token_ids) <= 460
    assert len(request.token_ids) + request.max_tokens == 512
    assert request.body["prompt"] == request.text


def test_a_prompt_that_leaves_no_room_is_refused_before_anybody_asks(library):
    groups = [DEVICES, DEVICES.model_copy(update={"prompt_tokens": (300, 511)})]
    library.check(groups)
    assert library.request(groups[1].model_copy(update={"prompt_tokens": (511, 511)}), 0, random.Random(1)).max_tokens == 1
    with pytest.raises(ConfigurationError, match="the group devices: prompt_tokens go to 512, and prompts of the pair to 511"):
        library.check([DEVICES.model_copy(update={"prompt_tokens": (300, 512)})])
    with pytest.raises(ConfigurationError, match="and prompts of the pair to 511"):
        World.of(parse(LONG, "my.toml"), "h:1", {})


def test_a_session_asks_for_what_the_request_says(library):
    request = library.request(DEVICES, 2, random.Random(1))
    opening = library.session(request).open()
    assert (opening.prefix, opening.max_tokens) == (request.token_ids, request.max_tokens)
    assert (opening.parameters.seed, opening.parameters.temperature) == (request.seed, 0.8)
    assert library.session(request).session_id != library.session(request).session_id
