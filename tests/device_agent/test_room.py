"""How many answers an agent writes at once where its settings do not say."""

import pytest

from device_agent.build import build_agent, with_places
from device_agent.config import AgentConfig
from device_agent.room import CACHES_BYTES, MOST_PLACES, places
from speculation.engines.pairs import models_of
from speculation.errors import UnknownNameError
from speculation.shaping import profiles
from speculation.shaping.engine import PhoneCost
from speculation.shaping.models import parse_model

TOKENS = 4 * 512


def on(phone, model="0.9B:int4"):
    return PhoneCost(profiles.phone(phone), parse_model(model))


@pytest.mark.parametrize(
    ("kv_bytes_per_token", "wanted"),
    [
        (0, MOST_PLACES),
        (1024, MOST_PLACES),
        (CACHES_BYTES // TOKENS // MOST_PLACES, MOST_PLACES),
        (CACHES_BYTES // TOKENS // MOST_PLACES + 1, MOST_PLACES - 1),
        (CACHES_BYTES // TOKENS // 9, 9),
        (CACHES_BYTES // TOKENS // 9 + 1, 8),
        (CACHES_BYTES // TOKENS, 4),
        (1000 * CACHES_BYTES, 4),
        (None, 4),
    ],
)
def test_as_many_as_the_caches_leave_room_for_and_never_under_four(kv_bytes_per_token, wanted):
    assert places(kv_bytes_per_token, TOKENS, on("none")) == wanted


@pytest.mark.parametrize(
    ("phone", "model", "wanted"),
    [
        ("dimensity-9300", "0.9B:int4", MOST_PLACES),
        ("apple-a18-pro", "3.25B:int4", 6),
        ("dimensity-9300", "3.25B:fp16", 4),
        ("apple-a18-pro", "7B:int4", 4),
    ],
)
def test_an_emulated_phone_has_room_for_no_more(phone, model, wanted):
    cost = on(phone, model)
    assert places(1024, TOKENS, cost) == wanted
    assert wanted == 4 or wanted * TOKENS <= cost.room_tokens()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, 16),
        ({"variant": "lookup"}, 16),
        ({"max_streams": 3}, 3),
        ({"phone": "apple-a18-pro", "emulate": "3.25B:int4"}, 6),
        ({"phone": "apple-a18-pro", "emulate": "3.25B:int4", "draft_width": 1, "drafting": "fixed-length"}, 16),
    ],
)
def test_the_bundled_draft_has_its_places_and_each_has_its_caches(settings, wanted):
    config = AgentConfig(verifier=None, **settings)
    agent = build_agent(config)
    assert agent.config.num_places == wanted
    engine = agent._runner.engine
    caches = [engine.open() for _ in range(wanted * config.policy().width)]
    assert len(set(caches)) == len(caches)
    agent._runner.shutdown()


def test_places_of_a_variant_that_is_not_there():
    draft = models_of(None, None, None).draft
    with pytest.raises(UnknownNameError, match=r"known: .*lookup"):
        with_places(AgentConfig(variant="q5"), draft, on("none"))
