"""The roofline's passes, knee and ceilings are the numbers that one gets by hand."""

import pytest

from benchmarks.roofline import HeldContext, HeldOnPhone, ceiling, free_rows, inside_theory, pass_s, tokens_a_pass
from speculation.shaping.costs import Work
from speculation.shaping.models import ModelDescription
from speculation.shaping.profiles import CloudProfile, PhoneProfile, phone

CLOUD = CloudProfile(
    name="made",
    title="1 TB/s and 100 TFLOP/s, all of it reached",
    bandwidth_bytes_per_s=1e12,
    bandwidth_utilisation=1.0,
    operations_per_s=100e12,
    compute_utilisation=1.0,
    memory_bytes=1e12,
    pass_overhead_s=0.0,
)
# 10 GB to read: 10 ms. A row: 20 GFLOP, 0.2 ms. A token of cache: 100 kB, 0.1 us.
MODEL = ModelDescription(10e9, bits=8, layers=10, kv_heads=10, head_size=250)
DRAFT = ModelDescription(1e9, bits=8, layers=1, kv_heads=1, head_size=250)
COST = HeldContext(CLOUD, MODEL, 100)
MS = 1e-3


def test_what_is_held_is_read_in_every_step():
    """10 GB, and two sessions of 100 held, 50 of their own and one new token: 302 tokens."""
    assert COST.step_s([Work(50, 1), Work(50, 1)]) == pytest.approx(10.0302 * MS)
    assert HeldContext(CLOUD, MODEL).step_s([Work(50, 1), Work(50, 1)]) == pytest.approx(10.0102 * MS)


def test_a_phone_reads_what_is_held_too():
    described: PhoneProfile = phone("dimensity-9300")
    bare, held = HeldOnPhone(described, DRAFT), HeldOnPhone(described, DRAFT, 500)
    more_s = 500 * DRAFT.kv_bytes_per_token / described.machine.bandwidth_bytes_per_s
    assert held.step_s([Work(10, 1)]) - bare.step_s([Work(10, 1)]) == pytest.approx(more_s)


def test_a_pass_takes_the_longer_of_reading_and_computing():
    """10 sessions behind 100 tokens: 10 GB and 1,010 tokens to read, 10 rows to compute. Then 100 rows: 20 ms of computing."""
    assert pass_s(COST, 10, 10, 100) == pytest.approx(10.101 * MS)
    assert pass_s(COST, 10, 100, 100) == pytest.approx(20 * MS)


def test_rows_are_free_up_to_the_knee():
    """0.2 ms a row beside 10.1 ms and 0.1 us a row: 50.5 rows."""
    assert free_rows(COST, 10, 100) == 50
    assert free_rows(COST, 60, 100) == 60, "one a session there is in any case"


def test_tokens_of_a_pass_are_a_geometric_sum_and_what_is_over_goes_to_next_drafts():
    assert tokens_a_pass(0.8, 10, 10) == pytest.approx(10)
    assert tokens_a_pass(0.8, 1, 4) == pytest.approx((1 - 0.8**4) / 0.2)
    assert tokens_a_pass(0.8, 10, 25) == pytest.approx(10 * 1.8 + 5 * 0.64)


def test_the_ceiling_is_at_the_best_number_of_rows():
    """51 rows: 33.616 + 0.32768 tokens in 10.2 ms, beside 10 in 10.101 ms. One row fewer or more is worth less."""
    best, rows = ceiling(COST, 0.8, 10, 100)
    assert rows == 51
    assert best == pytest.approx(33.94368 / 10.2 / (10 / 10.101))


def test_where_the_machine_computes_all_the_time_drafts_save_nothing():
    assert ceiling(COST, 0.8, 128, 100) == (1.0, 128)


def test_theory_beside_speculation_inside_the_cloud_is_the_drafts_share_of_a_pass():
    """A draft step over 10 sessions: 1 GB and 1,010 tokens of 1 kB, 1.00101 ms; a pass with 3 drafts each: 10.104 ms."""
    assert DRAFT.kv_bytes_per_token == 1000
    draft = HeldContext(CLOUD, DRAFT, 100)
    assert inside_theory(COST, draft, 3, 10, 100) == pytest.approx(1 + 3 * 1.00101 / 10.104)
