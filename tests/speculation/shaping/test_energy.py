import pytest

from speculation.shaping import profiles
from speculation.shaping.energy import LTE_POWER, LTE_PROMOTION_S, LTE_TAIL_S, PhoneEnergy, RadioUse, radio_j

# 1 pJ a bit, 2 W while busy.
PHONE = PhoneEnergy(dram_j_per_bit=1e-12, compute_w=2.0, idle_w=0.5)


def test_a_step_costs_its_bits_and_its_busy_time():
    step = PHONE.step_j(1e9, 0.01)
    assert step.dram_j == pytest.approx(8e-3)
    assert step.compute_j == pytest.approx(2e-2)
    assert step.total_j == pytest.approx(2.8e-2)


def test_a_radio_costs_its_states_by_time_and_its_bits_on_top():
    assert radio_j(LTE_POWER, RadioUse(promotion_s=LTE_PROMOTION_S)) == pytest.approx(1.2 * 0.26)
    assert radio_j(LTE_POWER, RadioUse(tail_s=LTE_TAIL_S)) == pytest.approx(1.06 * 11.6)
    # A second at 1 Mbit/s up and 2 Mbit/s down: 1.29 + 0.44 + 2 x 0.05 W.
    assert radio_j(LTE_POWER, RadioUse(active_s=1, bytes_up=125_000, bytes_down=250_000)) == pytest.approx(1.83)


def test_bits_cost_the_same_at_any_rate():
    slow = radio_j(LTE_POWER, RadioUse(active_s=10, bytes_up=1e6)) - radio_j(LTE_POWER, RadioUse(active_s=10))
    fast = radio_j(LTE_POWER, RadioUse(active_s=1, bytes_up=1e6)) - radio_j(LTE_POWER, RadioUse(active_s=1))
    assert slow == pytest.approx(fast) == pytest.approx(0.44 * 8)


def test_after_one_short_message_the_tail_is_nearly_all_that_a_radio_costs():
    use = RadioUse(promotion_s=LTE_PROMOTION_S, active_s=0.05, tail_s=LTE_TAIL_S, bytes_up=300, bytes_down=200)
    assert LTE_POWER.tail_w * use.tail_s > 0.95 * radio_j(LTE_POWER, use)


def test_every_emulated_phone_says_what_its_work_costs_and_a_drafted_token_stays_in_the_published_range():
    for name in profiles.phones():
        phone = profiles.phone(name)
        assert (phone.energy is None) == (name == profiles.UNSHAPED)
        if phone.energy is not None:
            step_j = phone.energy.step_j(0.45e9, 0.45e9 / phone.machine.bandwidth_bytes_per_s).total_j
            assert 0.02 < step_j < 0.5
