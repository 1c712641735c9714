import json
from decimal import Context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation import noise
from speculation.protocol import messages
from tests.support import choice_reference as reference

VECTORS = Path(__file__).parent / "vectors"
SEEDS = st.integers(0, 2**64 - 1)
POSITIONS = st.integers(0, 2**63 - 1)
TOKEN_IDS = st.integers(0, noise.MAX_TOKEN_ID)


def read(name):
    return json.loads((VECTORS / name).read_text("utf-8"))


def test_the_rule_is_named_as_in_the_handshake():
    assert noise.RULE == messages.CHOICE_RULE == read("noise.json")["rule"]


@pytest.mark.parametrize("width", [1, 5])
def test_philox_gives_the_published_answers(width):
    for case in read("philox4x32_10.json")["cases"]:
        counter, key, answer = ([int(word, 16) for word in case[name]] for name in ("counter", "key", "words"))
        counters = np.repeat(np.array(counter, dtype=np.uint32)[:, None], width, axis=1)
        for num_keys in {1, width}:
            keys = np.repeat(np.array(key, dtype=np.uint32)[:, None], num_keys, axis=1)
            assert noise.philox(counters, keys).T.tolist() == [answer] * width
        assert reference.philox(counter, key) == answer


def test_bits_and_noise_equal_the_golden_vectors():
    cases = read("noise.json")["cases"]
    columns = ([int(case[name]) for case in cases] for name in ("seed", "position", "token_id"))
    seeds, positions, token_ids = columns
    drawn = noise.bits(np.array(seeds, dtype=np.uint64), positions, token_ids)
    assert drawn.tolist() == [int(case["bits"], 16) for case in cases]
    golden = np.array([case["gumbel"] for case in cases])
    np.testing.assert_array_max_ulp(noise.gumbel(np.array(seeds, dtype=np.uint64), positions, token_ids), golden, maxulp=4)
    for case in cases:
        address = int(case["seed"]), int(case["position"]), case["token_id"]
        assert reference.bits(*address) == int(case["bits"], 16)


@pytest.mark.parametrize("repeats", [1, 8])  # few counters are made in long integers, many in arrays
@given(st.lists(st.tuples(SEEDS, POSITIONS, TOKEN_IDS), min_size=1, max_size=30))
def test_bits_of_any_address_equal_the_plain_reference(repeats, addresses):
    addresses = addresses * repeats
    seeds, positions, token_ids = zip(*addresses, strict=True)
    assert noise.bits(np.array(seeds, dtype=np.uint64), positions, token_ids).tolist() == [
        reference.bits(*address) for address in addresses
    ]


@pytest.mark.parametrize("count", [1, 2, 96, 97, 1500])
@pytest.mark.parametrize("step", [1, 2, 7, 1000])
@pytest.mark.parametrize("start", [0, 50_001])
def test_many_tokens_of_one_row_get_the_bits_they_get_alone(start, step, count):
    token_ids = np.arange(start, start + count * step, step)
    together = noise.bits([2**63 + 5], [2**32 + 9], token_ids)
    alone = [reference.bits(2**63 + 5, 2**32 + 9, int(token_id)) for token_id in token_ids]
    assert together.tolist() == alone


def test_more_counters_than_are_made_at_once_change_nothing():
    token_ids = np.arange(0, 2**16 + 100) * 4
    together = noise.bits([1], [2], token_ids)
    assert together[-200:].tolist() == noise.bits([1], [2], token_ids[-200:]).tolist()
    positions = np.arange(len(token_ids))
    assert noise.bits([1], positions, token_ids)[-1] == reference.bits(1, len(token_ids) - 1, int(token_ids[-1]))


@pytest.mark.parametrize("size", [1, 4, 4095, 40_000])
@given(st.lists(st.tuples(SEEDS, POSITIONS), min_size=1, max_size=20))
def test_bits_of_rows_are_those_of_their_addresses(size, addresses):
    seeds, positions = zip(*addresses, strict=True)
    rows = noise.bits_of_rows(np.array(seeds, np.uint64), np.array(positions, np.int64), size)
    assert rows.shape == (len(addresses), size)
    for row, (seed, position) in zip(rows, addresses, strict=True):
        for token_id in {0, size // 2, size - 1}:
            assert row[token_id] == reference.bits(seed, position, token_id)


@pytest.mark.parametrize("which", ["middle", "low end", "high end"])
def test_each_logarithm_is_within_four_units_in_the_last_place(which):
    start = {"middle": 2**31, "low end": 0, "high end": 2**32 - 200}[which]
    drawn = np.arange(start, start + 200, dtype=np.uint32)
    exact = Context(prec=50)
    inner = -np.log((drawn + 0.5) / 2**32)
    uniform = [exact.divide(exact.create_decimal(2 * int(word) + 1), 2**33) for word in drawn]
    np.testing.assert_array_max_ulp(inner, np.array([float(-exact.ln(u)) for u in uniform]), maxulp=4)
    outer = np.array([float(-exact.ln(exact.create_decimal(float(x)))) for x in inner])
    np.testing.assert_array_max_ulp(noise.gumbel_of(drawn), outer, maxulp=4)


def test_noise_is_finite_and_within_its_bounds_at_both_ends():
    low, high = noise.gumbel_of(np.array([0, 2**32 - 1], dtype=np.uint32))
    assert low == pytest.approx(noise.GUMBEL_MIN, rel=1e-14)
    assert high == pytest.approx(noise.GUMBEL_MAX, rel=1e-14)
    assert -3.14 < low < high < 22.88


def test_noise_has_the_mean_and_variance_of_a_gumbel_distribution():
    drawn = noise.gumbel([99], [7], np.arange(200_000))
    assert drawn.mean() == pytest.approx(np.euler_gamma, abs=0.02)
    assert drawn.var() == pytest.approx(np.pi**2 / 6, abs=0.04)


@pytest.mark.parametrize("count", [1, 40, 200, 3000])
@given(seed=SEEDS, position=POSITIONS)
def test_bits_of_tokens_at_one_position_are_those_of_their_addresses(count, seed, position):
    token_ids = np.arange(count) * 5 // 4 + 3
    assert np.array_equal(
        noise.bits_of_tokens(seed, position, token_ids), noise.bits(np.array([seed], np.uint64), [position], token_ids)
    )


def test_rough_odds_are_near_the_noise_where_they_promise_to_be():
    random = np.random.default_rng(6)
    ends = np.arange(1000, dtype=np.uint32), np.arange(noise.SURE_BITS - 1000, noise.SURE_BITS, dtype=np.uint32)
    drawn = np.concatenate([random.integers(0, noise.SURE_BITS, 10**6, dtype=np.uint32), *ends])
    exact = np.exp(-noise.gumbel_of(drawn))
    assert np.abs(noise.rough_odds(drawn) / exact - 1).max() < 0.01
    sure = np.arange(noise.SURE_BITS, 2**32, 7, dtype=np.uint32)
    assert noise.rough_odds(sure).min() >= noise.SURE_ODDS > 0


def test_an_address_out_of_range_is_refused():
    with pytest.raises(ValueError, match="positions start at 0"):
        noise.bits([1], [-1], [0])
    with pytest.raises(ValueError, match="positions start at 0"):
        noise.bits_of_tokens(1, -1, np.array([0]))
    for token_id in (-1, noise.MAX_TOKEN_ID + 1):
        with pytest.raises(ValueError, match="token ids lie between 0 and 2147483647"):
            noise.bits([1], [0], [token_id])
    assert noise.bits([1], [0], []).shape == (0,)


@given(st.integers(0, 2**32 - 1) | st.integers(2**32 - 3000, 2**32 - 1))
def test_bits_whose_noise_reaches_a_value_are_not_below_its_least(bits):
    value = float(noise.gumbel_of(np.array([bits], np.uint32))[0])
    least = noise.least_bits(value)
    assert least <= bits
    # And not far below: what it lets pass is little more than what it must.
    assert bits - least < 3 + 1e-5 * min(bits, 2**32 - bits) + 2e4 * (value < 1)


@pytest.mark.parametrize(
    ("value", "least"), [(-np.inf, 0), (noise.GUMBEL_MIN, 0), (noise.GUMBEL_MAX + 1, 2**32 - 3), (np.inf, 2**32 - 2)]
)
def test_values_that_no_noise_has_are_all_bits_or_next_to_none(value, least):
    assert noise.least_bits(value) in range(least, least + 2)
