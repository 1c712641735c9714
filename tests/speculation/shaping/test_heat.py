import dataclasses
import random

import pytest

from speculation.errors import ConfigurationError
from speculation.shaping import profiles
from speculation.shaping.heat import PIECE_S, Governor, HeatModel, StatusWords, Temperatures, ThermalCircuit
from speculation.shaping.phone_state import PhoneHeat
from speculation.shaping.phones import ANDROID_WORDS, IOS_WORDS

CIRCUIT = ThermalCircuit(ambient_c=20, die_j_per_k=4, skin_j_per_k=100, die_to_skin_k_per_w=8, skin_to_ambient_k_per_w=2)
GOVERNOR = Governor(throttle_from_c=50, slope_per_k=0.05, slowest=0.2, hysteresis_k=2)
WORDS = StatusWords("nominal", ((40.0, "fair"), (60.0, "serious")), 2.0)
MODEL = HeatModel(CIRCUIT, GOVERNOR, WORDS, idle_w=0.5)
STARTS = [Temperatures(20, 20), Temperatures(90, 30), Temperatures(20, 45)]


def integrated(start: Temperatures, power_w: float, seconds: float, num_steps: int = 200_000) -> Temperatures:
    """The two equations by small steps of Heun's method."""
    die, skin, step_s = start.die_c, start.skin_c, seconds / num_steps

    def rates(die: float, skin: float) -> tuple[float, float]:
        across_w = (die - skin) / CIRCUIT.die_to_skin_k_per_w
        away_w = (skin - CIRCUIT.ambient_c) / CIRCUIT.skin_to_ambient_k_per_w
        return (power_w - across_w) / CIRCUIT.die_j_per_k, (across_w - away_w) / CIRCUIT.skin_j_per_k

    for _ in range(num_steps):
        die_rate, skin_rate = rates(die, skin)
        next_die_rate, next_skin_rate = rates(die + step_s * die_rate, skin + step_s * skin_rate)
        die += step_s * (die_rate + next_die_rate) / 2
        skin += step_s * (skin_rate + next_skin_rate) / 2
    return Temperatures(die, skin)


def close(temperatures: Temperatures, tolerance_k: float = 1e-9) -> Temperatures:
    approx = [pytest.approx(value, abs=tolerance_k) for value in (temperatures.die_c, temperatures.skin_c)]
    return Temperatures(*approx)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("power_w", [0.0, 7.0])
def test_a_constant_power_heats_as_the_equations_say(start, power_w):
    assert CIRCUIT.after(start, power_w, 40) == close(integrated(start, power_w, 40), 1e-5)


@pytest.mark.parametrize("start", STARTS)
def test_many_short_steps_are_one_long_step_to_the_last_digits(start):
    steps_s = [random.Random(1).uniform(0, 0.1) for _ in range(5000)]
    at = start
    for step_s in steps_s:
        at = CIRCUIT.after(at, 5.0, step_s)
    assert at == close(CIRCUIT.after(start, 5.0, sum(steps_s)))


def test_no_time_changes_nothing_and_a_long_time_settles():
    for start in STARTS:
        assert CIRCUIT.after(start, 3.0, 0.0) == close(start)
        # 3 W over 2 K/W, then over 8 K/W.
        assert CIRCUIT.after(start, 3.0, 1e6) == close(Temperatures(20 + 6 + 24, 20 + 6))
    assert CIRCUIT.settled(3.0) == Temperatures(50, 26)


def test_heat_is_kept_or_has_left_and_none_is_made():
    power_w, start = 6.0, Temperatures(30, 25)
    left_j, at, step_s = 0.0, start, 0.01
    for _ in range(3000):
        before, at = at, CIRCUIT.after(at, power_w, step_s)
        left_j += step_s * ((before.skin_c + at.skin_c) / 2 - 20) / CIRCUIT.skin_to_ambient_k_per_w
    stored_j = 4 * (at.die_c - start.die_c) + 100 * (at.skin_c - start.skin_c)
    assert stored_j + left_j == pytest.approx(power_w * 30, rel=1e-6)


def test_a_governor_takes_a_share_for_each_kelvin_too_many():
    assert GOVERNOR.speed(50, 1.0) == 1.0
    assert GOVERNOR.speed(54, 1.0) == pytest.approx(0.8)
    assert GOVERNOR.speed(90, 1.0) == pytest.approx(0.2)


def test_speed_comes_back_only_once_the_die_is_cooler_by_the_hysteresis():
    slow = GOVERNOR.speed(60, 1.0)
    assert slow == pytest.approx(0.5)
    assert GOVERNOR.speed(59, slow) == slow
    assert GOVERNOR.speed(58, slow) == pytest.approx(slow)
    assert GOVERNOR.speed(57, slow) == pytest.approx(0.55)
    assert GOVERNOR.speed(61, slow) == pytest.approx(0.45)
    assert GOVERNOR.speed(40, slow) == 1.0


def test_a_status_begins_at_its_temperature_and_is_left_cooler_than_that():
    assert [WORDS.word(c, "") for c in (39, 40, 59.9, 60, 99)] == ["nominal", "fair", "fair", "serious", "serious"]
    assert WORDS.word(59, "serious") == "serious"
    assert WORDS.word(57.9, "serious") == "fair"
    assert WORDS.word(30, "serious") == "nominal"
    assert WORDS.word(38.5, "nominal") == "nominal"


def test_work_heats_and_slows_and_rest_cools_and_gives_back():
    state = MODEL.cold
    assert (state.speed, state.word) == (1.0, "nominal")
    for _ in range(600):
        state = MODEL.work(state, 0.1, 0.8)
    assert state.speed < 0.7
    assert state.at_s > 60 / 0.9
    assert state.word in ("fair", "serious")
    rested = MODEL.rest(state, 3600)
    assert rested.speed == 1.0
    assert rested.temperatures == close(MODEL.cold.temperatures, 1e-3)


def test_throttled_work_takes_longer_and_the_same_joules():
    hot = dataclasses.replace(MODEL.cold, temperatures=Temperatures(58, 40), speed=0.5)
    done = MODEL.work(hot, PIECE_S, 0.8)
    assert done.at_s == pytest.approx(PIECE_S / 0.5)
    # 0.8 J over twice the time, besides what the phone draws anyway.
    assert done.temperatures == close(CIRCUIT.after(hot.temperatures, 0.5 + 4.0, 0.2))


def test_a_long_step_is_governed_piece_by_piece():
    at_once = MODEL.work(MODEL.cold, 60.0, 480.0)
    piece_by_piece = MODEL.cold
    for _ in range(600):
        piece_by_piece = MODEL.work(piece_by_piece, PIECE_S, 0.8)
    assert at_once.at_s == pytest.approx(piece_by_piece.at_s)
    assert at_once.speed == pytest.approx(piece_by_piece.speed)


def test_work_that_is_given_up_heats_no_longer():
    whole = MODEL.work(MODEL.cold, 0.08, 0.5)
    part = MODEL.work(MODEL.cold, 0.08, 0.5, until_s=0.03)
    assert part.at_s == 0.03
    assert part.temperatures == close(CIRCUIT.after(MODEL.cold.temperatures, 0.5 + 0.5 / 0.08, 0.03))
    assert part.temperatures.die_c < whole.temperatures.die_c


def test_a_hot_phone_is_where_work_without_a_pause_leads_a_cold_one():
    hot, worked = MODEL.hot(8.0), MODEL.cold
    for _ in range(3000):
        worked = MODEL.work(worked, 1.0, 8.0)
    assert worked.speed == pytest.approx(hot.speed, abs=1e-6)
    assert worked.temperatures == close(hot.temperatures, 1e-3)
    assert worked.word == hot.word


def test_a_hot_phone_is_one_on_which_further_work_changes_nothing():
    hot = MODEL.hot(8.0)
    assert 0.2 < hot.speed < 0.7
    later = hot
    for _ in range(20_000):
        later = MODEL.work(later, 0.1, 0.8)
    assert later.speed == pytest.approx(hot.speed, abs=1e-3)
    assert later.temperatures == close(hot.temperatures, 0.1)


def test_a_phone_that_cannot_throttle_enough_runs_at_its_slowest():
    assert MODEL.hot(1000.0).speed == pytest.approx(0.2)
    assert MODEL.hot(0.1).speed == 1.0


def test_a_phone_in_the_middle_of_its_work_is_no_colder_than_at_its_end():
    """Work is charged before it has passed."""
    heat = PhoneHeat(MODEL, MODEL.cold)
    heat.begin(0.0)
    heat.work(10.0, 50.0)
    assert heat.at(3.0) == heat.state
    assert heat.at(30.0).temperatures.die_c < heat.state.temperatures.die_c


def test_every_emulated_phone_has_heat_and_the_words_of_its_system():
    for name in profiles.phones():
        heat = profiles.phone(name).heat
        assert (heat is None) == (name == profiles.UNSHAPED)
        if heat is not None:
            ios = name.startswith("apple")
            assert heat.words.coolest == ("nominal" if ios else "NONE")
            assert tuple(word for _, word in heat.words.from_c) == (IOS_WORDS if ios else ANDROID_WORDS)


def test_three_ways_to_compute_on_one_phone_share_its_heat():
    heats = [profiles.phone(f"apple-a19-pro{way}").heat for way in ("", "-ane", "-litert")]
    assert heats[0] == heats[1] == heats[2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"idle_w": None}, "figures of energy are given all together or not at all; missing: energy.idle"),
        ({"skin_j_per_k": None}, "figures of heat are given all together or not at all; missing: heat.skin"),
        ({"idle_w": None, "compute_w": None, "dram_j_per_bit": None}, "heat is given without energy"),
        ({"android_light_from_c": 50.0}, "words of iOS and of Android"),
        ({"serious_from_c": None}, "the words are given from the first on"),
        ({"serious_from_c": 40.0}, "each word begins at a higher temperature"),
        ({"throttle_per_k": -0.1}, "throttle_slope is -0.1: it cannot be negative"),
    ],
)
def test_half_of_a_phones_heat_is_refused_with_what_is_missing(changes, said):
    with pytest.raises(ConfigurationError, match=said):
        dataclasses.replace(profiles.phone("apple-a19-pro"), **changes)
