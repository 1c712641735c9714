"""The full model as a verifier's settings describe it, the limit of its caches, and the full models of two pairs."""

import asyncio
from dataclasses import replace
from itertools import product

import pytest

from cloud_verifier import engine as module
from cloud_verifier.assembly import budget
from cloud_verifier.config import load_config
from cloud_verifier.engine import FullModel, build_engine
from cloud_verifier.room import Room
from cloud_verifier.server import serve
from speculation.engines.onnx import OnnxEngine
from speculation.engines.package import load_pair
from speculation.engines.package_writer import write_pair
from speculation.errors import CapacityError, ConfigurationError
from speculation.links.grpc import GrpcConnector
from speculation.parameters import SamplingParameters
from tests.cloud_verifier.doubles import CONTEXT, IDENTITY, SELF_TEST, WatchedEngine, plain_decoding, settings
from tests.cloud_verifier.sessions import LIMIT_S, device
from tests.speculation.engines.tiny import PROMPTS, tiny_pair, tiny_source

MAX_TOKENS = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Pair 1; pair 2 with another full model; pair 3 with the full model of pair 2 and another draft."""
    root = tmp_path_factory.mktemp("pairs")
    for version, draft, full in ((1, 0, 1), (2, 0, 2), (3, 9, 2)):
        halves = [tiny_source(f"tiny-{half}", seed, ("fp32",)) for half, seed in (("draft", draft), ("full", full))]
        write_pair(root / str(version), "tiny", version, *halves, PROMPTS)
    return [root / str(version) for version in (1, 2, 3)]


def two(folders, newest, previous, **changes):
    return settings(pair=folders[newest - 1], previous_pair=folders[previous - 1], num_slots=3, **changes)


async def test_both_full_models_are_loaded_proved_and_serve_their_own_devices(folders, caplog):
    config = two(folders, 2, 1, previous_slots=2)
    full = build_engine(config)
    proofs = full.self_test, full.previous.self_test
    assert all(proof.is_exact for proof in proofs)
    assert proofs[0].fingerprint != proofs[1].fingerprint
    assert [one.engine.description.num_slots for one in (full, full.previous)] == [3, 2]
    sampled = SamplingParameters(temperature=0.8, seed=3)
    with caplog.at_level("INFO", "cloud_verifier.assembly"):
        async with asyncio.timeout(LIMIT_S), serve(config, full_model=full) as running:
            connector = GrpcConnector(running.target)
            for folder in folders[:2]:
                pair = load_pair(folder)
                alone = pair.full.engine("fp32", 1, 1)
                truth = plain_decoding(alone, (5, 6, 7), sampled, MAX_TOKENS)
                one = device(pair.version, truth, (5, 6, 7), sampled, 0.0, MAX_TOKENS, identity=pair.identity)
                assert await one.run(connector) == truth
            await connector.aclose()
    told = [record.getMessage() for record in caplog.records if record.name == "cloud_verifier.assembly"]
    assert told == [f"pair {v}: {budget(one.engine.description)}" for v, one in ((2, full), (1, full.previous))]


async def test_both_pairs_write_their_texts_in_their_shares_of_the_memory_and_never_take_more(folders, monkeypatch):
    """Room for two contexts of the newest and one of the other, kept caches included; streams are padded."""
    least_free, take = {}, Room.take

    def taking(room, owner, size):
        take(room, owner, size)
        least_free[room] = min(least_free.get(room, room.limit_bytes), room.free_bytes)

    monkeypatch.setattr(Room, "take", taking)
    whole = build_engine(settings(pair=folders[1], cache_bytes=1 << 24)).room.size_of(1 << 20)
    limited = {"cache_bytes": 3 * whole, "max_kept": 2, "max_queued": 16, "pad_bytes": 128}
    full = build_engine(settings(pair=folders[1], previous_pair=folders[0], num_slots=6, previous_slots=3, **limited))
    devices, truths = [], []
    for folder, number in product(folders[:2], range(4)):
        pair, prompt, sampled = load_pair(folder), (5, 6, number), SamplingParameters(temperature=0.8, seed=number)
        truths.append(plain_decoding(pair.full.engine("fp32", 1, 1), prompt, sampled, 20 * number + 4))
        name = f"{pair.version}-{number}"
        devices.append(device(name, truths[-1], prompt, sampled, 0.5, 20 * number + 4, identity=pair.identity))
    async with asyncio.timeout(LIMIT_S), serve(settings(**limited), full_model=full) as running:
        connector = GrpcConnector(running.target)
        assert await asyncio.gather(*(one.run(connector) for one in devices)) == truths
        await connector.aclose()
    assert set(least_free) == {full.room, full.previous.room}
    assert all(0 <= free <= whole for free in least_free.values())


def test_a_budget_names_the_weights_and_the_caches(folders):
    description = replace(
        load_pair(folders[0]).full.engine("fp32", 2, 1).description,
        name="m",
        weight_bytes=12_300_000,
        kv_bytes_per_token=500,
        context_length=1000,
    )
    assert budget(description) == "m, 12.3 MB of weights and at most 1.0 MB of caches (2 of 1000 tokens)"


def test_a_new_draft_of_the_same_full_model_is_no_second_engine(folders):
    full = build_engine(two(folders, 3, 2))
    assert full.previous is None
    assert full.also == load_pair(folders[1]).identity


def test_two_pairs_divide_the_memory_of_caches_by_their_slots_and_never_take_more(folders):
    limit_bytes = (1 << 24) + 1
    full = build_engine(two(folders, 2, 1, previous_slots=1, cache_bytes=limit_bytes))
    assert [one.room.limit_bytes for one in (full, full.previous)] == [limit_bytes - limit_bytes // 4, limit_bytes // 4]
    assert full.room is not full.previous.room
    as_many = build_engine(two(folders, 2, 1, cache_bytes=limit_bytes))
    assert [one.room.limit_bytes for one in (as_many, as_many.previous)] == [limit_bytes // 2 + 1, limit_bytes // 2]


def test_a_share_under_one_context_is_refused_as_what_it_is(folders):
    """Alone a pair would do with half as much."""
    enough = build_engine(settings(pair=folders[1], cache_bytes=1 << 24)).room.size_of(1 << 20)
    build_engine(settings(pair=folders[1], cache_bytes=enough))
    said = rf"cache_bytes: {enough // 2}, the share of tiny-full:fp32 \(slots: 1\), do not hold one .* takes {enough}"
    with pytest.raises(ConfigurationError, match=said):
        build_engine(two(folders, 2, 1, previous_slots=1, cache_bytes=2 * enough))


def test_one_engine_for_two_pairs_has_all_the_memory(folders):
    assert build_engine(two(folders, 3, 2, cache_bytes=1 << 24)).room.limit_bytes == 1 << 24
    with pytest.raises(ConfigurationError, match="cache_bytes: 1000 do not hold"):
        build_engine(two(folders, 3, 2, cache_bytes=1000))


async def test_the_log_tells_of_limited_caches_what_each_pair_may_take(folders, caplog):
    full = build_engine(two(folders, 2, 1, previous_slots=1, cache_bytes=40_000_000))
    with caplog.at_level("INFO", "cloud_verifier.assembly"):
        async with serve(settings(), full_model=full) as running:
            assert [one.seats.room for one in running.pairs.verifiers] == [full.room, full.previous.room]
    told = [record.getMessage() for record in caplog.records if record.name == "cloud_verifier.assembly"]
    assert ["at most 30.0 MB of caches" in told[0], "at most 10.0 MB of caches" in told[1]] == [True, True]


@pytest.mark.parametrize(("newest", "previous"), [(1, 2), (1, 1)])
def test_a_pair_that_is_no_earlier_one_is_refused_with_both_counters(folders, newest, previous):
    with pytest.raises(ConfigurationError, match=f"has version {previous}, the newest pair {newest}"):
        build_engine(two(folders, newest, previous))


def test_two_models_that_do_not_fit_the_emulated_machine_together_are_refused(folders):
    """Each of them would, alone: 70B in fp16 are 140 GB, the machine has 192 GB."""
    with pytest.raises(CapacityError, match="70B:fp16"):
        build_engine(two(folders, 2, 1, cloud="mi300x", emulate="70B:fp16"))
    build_engine(two(folders, 3, 2, cloud="mi300x", emulate="70B:fp16"))


def test_each_of_two_models_leaves_the_other_its_place_in_the_emulated_memory(folders):
    config = two(folders, 2, 1, cloud="mi300x", emulate="8B:fp16")
    full, memory_bytes = build_engine(config), config.catalogue.cloud("mi300x").memory_bytes
    for one in (full, full.previous):
        cost = one.engine.cost
        assert cost.machine.memory_bytes == memory_bytes - cost.model.weight_bytes


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"previous_slots": 2}, "without previous_pair"),
        ({"previous_pair": "a", "draft": ".", "full": "."}, "no version to be newer by"),
        ({"previous_pair": "a", "full_url": "http://127.0.0.1:1"}, "runs one model"),
    ],
)
def test_what_cannot_be_served_beside_a_pair_is_refused_at_once(changes, told):
    with pytest.raises(ConfigurationError, match=told):
        settings(**changes)


def test_the_pair_before_is_named_by_file_environment_and_flag(tmp_path, monkeypatch):
    (tmp_path / "v.toml").write_text('previous_pair = "/file"\n')
    assert str(load_config(tmp_path / "v.toml").previous_pair) == "/file"
    monkeypatch.setenv("OUTRIDER_VERIFIER_PREVIOUS_PAIR", "/environment")
    assert str(load_config(tmp_path / "v.toml").previous_pair) == "/environment"
    assert str(load_config(tmp_path / "v.toml", {"previous_pair": "/flag"}).previous_pair) == "/flag"


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
    assert limited.room.size_of(context) == limited.engine._engine.cache_bytes(context)  # behind what may play a machine


def test_a_limit_under_one_context_is_refused_with_what_one_takes(pair):
    with pytest.raises(ConfigurationError, match=r"cache_bytes: 1000 do not hold one context of \d+ tokens, which takes \d+"):
        build_engine(settings(pair=pair, cache_bytes=1000))


def test_an_engine_whose_memory_cannot_be_limited_is_refused(pair, monkeypatch):
    monkeypatch.setattr(module, "_build_full", lambda *_: WatchedEngine())
    with pytest.raises(ConfigurationError, match="does not give memory back; leave it out, set num_slots"):
        build_engine(settings(pair=pair, cache_bytes=1 << 30))


class PooledEngine(WatchedEngine):
    """Its caches share a pool of 1,000 bytes, and take a byte a token."""

    pool_bytes = 1000

    def cache_bytes(self, num_tokens):
        return num_tokens


@pytest.mark.parametrize(("cache_bytes", "limit_bytes"), [(None, 1000), (900, 900), (10**6, 1000)])
def test_caches_that_share_a_pool_never_want_more_than_it_has(pair, monkeypatch, cache_bytes, limit_bytes):
    monkeypatch.setattr(module, "_build_full", lambda *_: PooledEngine())
    room = build_engine(settings(pair=pair, cache_bytes=cache_bytes)).room
    assert (room.limit_bytes, room.size_of(CONTEXT)) == (limit_bytes, CONTEXT)


async def test_a_server_seats_sessions_by_the_room_of_its_model():
    room = Room(CONTEXT, CONTEXT, lambda num_tokens: num_tokens)
    async with serve(settings(), full_model=FullModel(WatchedEngine(), IDENTITY, SELF_TEST, room=room)) as running:
        assert running.verifier.seats.room is room


@pytest.mark.parametrize(("cache_bytes", "reserved"), [(None, [40]), (10**8, [])])
def test_the_widest_pass_has_its_memory_from_the_start_unless_that_of_caches_is_limited(
    folders, cache_bytes, reserved, monkeypatch
):
    asked = []
    monkeypatch.setattr(OnnxEngine, "reserve", lambda engine, num_rows: asked.append(num_rows))
    build_engine(settings(pair=folders[0], max_rows=40, cache_bytes=cache_bytes))
    assert asked == reserved
