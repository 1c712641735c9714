import dataclasses
import math

import pytest

from speculation.errors import CapacityError
from speculation.shaping import profiles
from speculation.shaping.costs import Machine, Work, bytes_read, check_capacity, room_tokens, step_time_s
from speculation.shaping.engine import CloudCost, PhoneCost
from speculation.shaping.models import ModelDescription, parse_model

PHONE = profiles.phone(profiles.DEFAULT_PHONE)
CLOUD = profiles.cloud(profiles.DEFAULT_CLOUD)
DRAFT = parse_model(profiles.DEFAULT_DRAFT_MODEL)
FULL = parse_model(profiles.DEFAULT_FULL_MODEL)

# 100 bytes of weights, 2 bytes of cache a token; 50 bytes and 100 operations a second.
MODEL = ModelDescription(parameters=100, bits=8, layers=1, kv_heads=1, head_size=1, kv_bits=8, name="tiny")
MACHINE = Machine(bandwidth_bytes_per_s=50, operations_per_s=100, memory_bytes=150, memory_name="the box", runtime_bytes=10)


def test_a_step_reads_the_weights_once_and_each_cache_once():
    assert bytes_read(MODEL, [Work(9, 1)]) == 100 + 20
    assert bytes_read(MODEL, [Work(9, 1), Work(19, 1)]) == 100 + 20 + 40


def test_a_step_takes_the_longer_of_reading_and_computing():
    fast = dataclasses.replace(MACHINE, operations_per_s=1e6)
    assert step_time_s(fast, MODEL, [Work(9, 1)]) == 120 / 50
    assert step_time_s(MACHINE, MODEL, [Work(0, 4)]) == 2 * 100 * 4 / 100


def test_an_overhead_is_paid_once_a_step_and_not_without_work():
    machine = dataclasses.replace(MACHINE, overhead_s=0.5)
    assert step_time_s(machine, MODEL, [Work(0, 4)]) == 8.5
    assert step_time_s(machine, MODEL, []) == 0


def test_a_draft_step_of_the_demo_takes_9_ms():
    step_s = PhoneCost(PHONE, DRAFT).step_s([Work(0, 1)])
    assert step_s == pytest.approx(0.45e9 / (76.8e9 * 0.65), rel=1e-3)
    assert step_s == pytest.approx(0.0090, abs=0.0001)


def test_a_pass_of_the_demo_takes_41_ms_whether_it_checks_one_token_or_nine():
    cost = CloudCost(CLOUD, FULL)
    assert cost.step_s([Work(100, 1)]) == pytest.approx(0.0406, abs=0.0001)
    assert cost.step_s([Work(100, 9)]) == pytest.approx(0.0406, abs=0.0001)


def test_four_branches_cost_little_more_than_one():
    cost = PhoneCost(PHONE, DRAFT)
    assert cost.step_s([Work(200, 1)] * 4) < 1.07 * cost.step_s([Work(200, 1)])


def test_prefill_is_bound_by_the_phones_operations():
    assert PhoneCost(PHONE, DRAFT).step_s([Work(0, 512)]) == pytest.approx(2 * 0.9e9 * 512 / (50e12 * 0.2))


@pytest.mark.parametrize(("bits", "rates"), [(8, (10.97, 7.13, 3.62)), (4, (21.94, 14.26, 7.24))])
def test_token_speeds_of_a_7b_model_follow_the_published_table(bits, rates):
    model = ModelDescription(7e9, bits, 1, 1, 1)
    for utilisation, rate in zip((1.0, 0.65, 0.33), rates, strict=True):
        phone = dataclasses.replace(PHONE, bandwidth_utilisation=utilisation)
        assert 1 / PhoneCost(phone, model).step_s([Work(0, 1)]) == pytest.approx(rate, abs=0.02)


@pytest.mark.parametrize(
    ("parameters", "shape", "file_mib", "tokens_per_s"),
    [
        (1.236e9, (16, 8, 64), 2358, 19.2),
        (1.236e9, (16, 8, 64), 1083, 50.2),
        (1.236e9, (16, 8, 64), 1127, 45.8),
        (3.213e9, (28, 8, 128), 6129, 7.6),
        (3.213e9, (28, 8, 128), 2435, 19.7),
        (3.213e9, (28, 8, 128), 2529, 18.5),
    ],
)
def test_published_decode_speeds_of_a_phone_are_met_within_15_percent_with_one_utilisation(
    parameters, shape, file_mib, tokens_per_s
):
    """Llama 3.2 on a OnePlus 12 (76.8 GB/s too), 64-token prompt: pytorch/executorch, examples/models/llama/README.md."""
    model = ModelDescription(parameters, 8 * file_mib * 2**20 / parameters, *shape)
    cost = PhoneCost(PHONE, model)
    cost.check_capacity(2048)
    assert 1 / cost.step_s([Work(64, 1)]) == pytest.approx(tokens_per_s, rel=0.15)


@pytest.mark.parametrize(
    ("parameters", "shape", "file_mib", "tokens_per_s"),
    [
        (1.236e9, (16, 8, 64), 2358, 19.2),
        (1.236e9, (16, 8, 64), 1083, 50.2),
        (1.236e9, (16, 8, 64), 1127, 45.8),
        (3.213e9, (28, 8, 128), 6129, 7.6),
        (3.213e9, (28, 8, 128), 2435, 19.7),
        (3.213e9, (28, 8, 128), 2529, 18.5),
    ],
)
def test_so_they_are_by_the_phones_own_profile(parameters, shape, file_mib, tokens_per_s):
    model = ModelDescription(parameters, 8 * file_mib * 2**20 / parameters, *shape)
    cost = PhoneCost(profiles.phone("snapdragon-8-gen-3"), model)
    assert 1 / cost.step_s([Work(64, 1)]) == pytest.approx(tokens_per_s, rel=0.15)


def test_what_just_fits_is_taken_and_one_token_more_is_refused():
    check_capacity(MACHINE, MODEL, 20)
    with pytest.raises(CapacityError):
        check_capacity(MACHINE, MODEL, 21)


def test_a_refusal_shows_the_sum():
    with pytest.raises(CapacityError) as refusal:
        PhoneCost(PHONE, parse_model("13B:int4")).check_capacity(8192)
    assert str(refusal.value) == (
        "13B:int4 does not fit: 6.50 GB weights + 1.07 GB keys and values of 8192 tokens + 0.80 GB runtime = 8.37 GB, "
        "but an app's share (50%) of the RAM of dimensity-9300 is 8.00 GB; the largest listed model that fits is 8.03B:int4"
    )


def test_a_refusal_offers_the_largest_listed_model_by_parameters_and_then_by_bits():
    small = dataclasses.replace(PHONE, memory_bytes=8e9)  # 4 GB for an app, 0.8 of them for the runtime
    with pytest.raises(CapacityError, match=r"the largest listed model that fits is 3.25B:int4$"):
        PhoneCost(small, parse_model("7B:int4")).check_capacity(2048)
    with pytest.raises(CapacityError, match=r"the largest listed model that fits is 1.8B:int8$"):
        PhoneCost(small, parse_model("7B:int4")).check_capacity(2048 * 7)
    with pytest.raises(CapacityError, match=r"; no listed model fits$"):
        PhoneCost(dataclasses.replace(PHONE, memory_bytes=2e9), parse_model("7B:int4")).check_capacity(1)
    with pytest.raises(CapacityError, match=r"is 192.00 GB; the largest listed model that fits is 70.6B:fp16"):
        CloudCost(CLOUD, parse_model("405B:fp16")).check_capacity(1)


def test_what_is_offered_does_fit():
    for name in set(profiles.phones()) - {profiles.UNSHAPED}:
        cost = PhoneCost(profiles.phone(name), parse_model("70B:fp16"))
        with pytest.raises(CapacityError) as refusal:
            cost.check_capacity(1024)
        offered = str(refusal.value).rpartition(" ")[2]
        PhoneCost(cost.phone, parse_model(offered)).check_capacity(1024)


def test_the_room_is_what_just_fits():
    assert room_tokens(MACHINE, MODEL) == 20
    assert room_tokens(dataclasses.replace(MACHINE, memory_bytes=109), MODEL) < 0
    assert room_tokens(dataclasses.replace(MACHINE, memory_bytes=math.inf), MODEL) == math.inf


def test_a_cloud_machine_has_a_limit_too():
    with pytest.raises(CapacityError, match=r"the memory of mi300x is 192.00 GB"):
        CloudCost(CLOUD, parse_model("405B:fp16")).check_capacity(1)


def test_the_profile_none_costs_nothing_and_holds_everything():
    for cost in (PhoneCost(profiles.phone("none"), FULL), CloudCost(profiles.cloud("none"), FULL)):
        assert cost.step_s([Work(1000, 1000)]) == 0
        cost.check_capacity(10**12)
