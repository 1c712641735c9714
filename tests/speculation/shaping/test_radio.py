import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation.errors import ConfigurationError
from speculation.shaping.radio import Radio, Sleep

DOZE = Sleep(after_s=1.0, cycle_s=0.25)
IDLE = Sleep(after_s=10.0, cycle_s=1.0, promotion_s=0.5)


def radio(*sleeps: Sleep, seed: int = 0) -> Radio:
    return Radio(sleeps or (DOZE, IDLE), seed)


def awake(at_s: float = 100.0) -> Radio:
    """A radio whose last traffic ended then."""
    woken = radio()
    woken.ready_at(at_s - 5, is_uplink=True)
    woken.stay_active(at_s)
    return woken


def test_a_radio_that_never_sleeps_is_always_ready():
    assert Radio((), 0).ready_at(5.0, is_uplink=False) == 5.0


def test_a_radio_begins_idle_and_the_phone_waits_for_its_promotion_alone():
    assert radio().ready_at(3.0, is_uplink=True) == 3.5


def test_traffic_keeps_it_awake():
    woken = awake(100.0)
    assert woken.ready_at(100.9, is_uplink=False) == 100.9


def test_a_phone_that_dozes_sends_at_once_and_is_called_at_its_next_listening_time():
    assert awake(100.0).ready_at(102.0, is_uplink=True) == 102.0
    assert 102.0 <= awake(100.0).ready_at(102.0, is_uplink=False) <= 102.25


def test_who_calls_an_idle_phone_waits_for_its_paging_cycle_and_its_promotion():
    waits = [radio(seed=seed).ready_at(0.0, is_uplink=False) for seed in range(400)]
    assert 0.5 <= min(waits) < 0.55
    assert 1.45 < max(waits) <= 1.5
    assert sum(waits) / len(waits) == pytest.approx(1.0, rel=0.05)


def test_what_comes_while_it_wakes_waits_for_the_same_waking():
    waking = radio()
    ready_s = waking.ready_at(0.0, is_uplink=False)
    assert waking.ready_at(ready_s / 2, is_uplink=False) == ready_s


def test_a_message_of_the_phone_cuts_the_wait_for_its_paging_cycle_short():
    waking = next(r for r in (radio(seed=seed) for seed in range(100)) if r.ready_at(0.0, is_uplink=False) > 1.2)
    assert waking.ready_at(0.1, is_uplink=True) == 0.6


def test_silence_is_counted_from_the_end_of_the_traffic():
    woken = awake(100.0)
    woken.stay_active(105.0)
    assert woken.ready_at(105.5, is_uplink=False) == 105.5


@pytest.mark.parametrize("sleep", [(0.0, 0.1, 0.1), (-1.0, 0.0, 0.0), (1.0, -0.1, 0.0), (1.0, 0.0, -0.1)])
def test_a_sleep_that_cannot_be_is_refused(sleep):
    with pytest.raises(ConfigurationError, match="a radio sleeps after more than 0 s"):
        Sleep(*sleep)


@given(st.lists(st.tuples(st.floats(0, 15), st.booleans()), min_size=1, max_size=30), st.integers(0, 9))
def test_no_message_moves_before_it_wants_to_and_the_same_seed_wakes_the_same(steps, seed):
    def play() -> list[float]:
        modem, now_s, ready = radio(seed=seed), 0.0, []
        for gap_s, is_uplink in steps:
            now_s += gap_s
            ready.append(modem.ready_at(now_s, is_uplink))
            assert now_s <= ready[-1] <= now_s + IDLE.cycle_s + IDLE.promotion_s
        return ready

    assert play() == play()


def test_traffic_that_ends_sooner_cuts_no_other_short():
    radio = Radio([Sleep(after_s=2.0, promotion_s=0.5)], 0)
    radio.stay_active(10.0)
    radio.stay_active(5.0)
    assert radio.ready_at(11.5, is_uplink=True) == 11.5
