"""The full model as a verifier's settings describe it, and the limit of its caches."""

import pytest

from cloud_verifier import engine as module
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.room import Room
from cloud_verifier.server import serve
from speculation.errors import ConfigurationError
from tests.cloud_verifier.doubles import CONTEXT, IDENTITY, SELF_TEST, WatchedEngine, settings
from tests.speculation.engines.tiny import tiny_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    tiny_pair(folder)
    return folder


def test_caches_that_are_limited_leave_the_self_test_and_its_fingerprint_as_they_are(pair):
    limited, free = build_engine(settings(pair=pair, cache_bytes=1 << 24)), build_engine(settings(pair=pair))
    assert limited.self_test.is_exact
    assert limited.self_test.fingerprint == free.self_test.fingerprint
    assert free.room is None
    context = limited.engine.description.context_length
    assert limited.room.size_of(context) == limited.engine.cache_bytes(context)


def test_a_limit_under_one_context_is_refused_with_what_one_takes(pair):
    with pytest.raises(ConfigurationError, match=r"cache_bytes: 1000 do not hold one context of \d+ tokens, which takes \d+"):
        build_engine(settings(pair=pair, cache_bytes=1000))


def test_an_engine_whose_memory_cannot_be_limited_is_refused(pair, monkeypatch):
    monkeypatch.setattr(module, "_build_full", lambda *_: WatchedEngine())
    with pytest.raises(ConfigurationError, match="does not give memory back; leave it out, set num_slots"):
        build_engine(settings(pair=pair, cache_bytes=1 << 30))


async def test_a_server_seats_sessions_by_the_room_of_its_model():
    room = Room(CONTEXT, CONTEXT, lambda num_tokens: num_tokens)
    async with serve(settings(), full_model=FullModel(WatchedEngine(), IDENTITY, SELF_TEST, room=room)) as running:
        assert running.verifier.seats.room is room
