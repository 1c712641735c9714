"""What only machine code has: its own exponential, tokens passed over eight at a time, and a place where it is kept."""

import importlib.util
import subprocess
import sys
from decimal import Context

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from speculation import choice, compiled, noise
from speculation.choice import Run, choose_ranked, choose_runs
from speculation.errors import EngineError
from speculation.parameters import SamplingParameters

pytest.importorskip("numba", reason="Numba is not installed: outrider[compiled]")

from speculation.compiled import jit, weights
from speculation.compiled import noise as compiled_noise

SEEDS, POSITIONS = st.integers(0, 2**64 - 1), st.integers(0, 2**63 - 1)


@pytest.fixture(scope="module")
def rule():
    from speculation.compiled.calls import CompiledRule

    return CompiledRule()


@pytest.fixture
def both_ways(rule, monkeypatch):
    """Calls a function with the choice of NumPy, then with that of machine code."""

    def call(function, *arguments):
        results = []
        for way in (None, rule):
            monkeypatch.setattr(choice, "_rule", way)
            results.append(function(*arguments))
        return results

    return call


@pytest.fixture(scope="module")
def made():
    """The functions that are called here alone, so that no example is charged with their compilation."""
    compiled_noise.fill(np.empty(4, np.uint32), 0, np.uint64(0), np.uint64(0))
    compiled_noise.bits_of(0, np.uint64(0), np.uint64(0))


@pytest.mark.usefixtures("made")
@given(SEEDS, POSITIONS, st.integers(0, 2**20), st.integers(1, 300))
def test_bits_are_those_of_the_rule(seed, position, block, count):
    start, size = 4 * block, 4 * count
    drawn = np.empty(size, np.uint32)
    compiled_noise.fill(drawn, start, np.uint64(position), np.uint64(seed))
    wanted = noise.bits([seed], [position], np.arange(start, start + size))
    assert drawn.tolist() == wanted.tolist()
    last = start + size - 1
    assert compiled_noise.bits_of(last, np.uint64(position), np.uint64(seed)) == wanted[-1]


def test_noise_is_within_the_rules_four_units_of_the_last_place():
    drawn = [0, 1, 2**31, 2**32 - 2, 2**32 - 1, *np.random.default_rng(4).integers(0, 2**32, 500).tolist()]
    made = [compiled_noise.gumbel_of(np.uint64(bits)) for bits in drawn]
    np.testing.assert_array_max_ulp(np.array(made), noise.gumbel_of(np.array(drawn, np.uint32)), maxulp=4)


@pytest.mark.parametrize("temperature", [0.01, 0.8, 1.0, 100.0])
def test_exponentials_are_within_the_rules_four_units_of_the_last_place(temperature):
    logits = -np.abs(np.random.default_rng(5).standard_normal(1500) * 20 * temperature).astype(np.float32)
    logits[:3] = 0.0, -0.0, -600 * temperature
    made = np.empty(len(logits))
    weights.weigh(logits, 0.0, temperature, made)
    exact = Context(prec=50)
    wanted = [float(exact.exp(exact.create_decimal(float(logit) / temperature))) for logit in logits]
    np.testing.assert_array_max_ulp(made, np.array(wanted), maxulp=4)


def test_bars_let_everything_pass_whose_noise_reaches_the_bound():
    bars = np.empty(compiled_noise.NUM_STEPS, np.uint64)
    for bound, highest in ((3.0, 1.0), (-2.0, 5.0), (30.0, 12.0), (-np.inf, 2.0)):
        compiled_noise.set_bars(bars, bound, highest)
        for step in range(compiled_noise.NUM_STEPS):
            least = bound - highest + step / compiled_noise.STEPS_A_UNIT
            assert bars[step] <= max(noise.least_bits(least), 0)
            if least < 20:
                below = np.array([max(int(bars[step]) - 1, 0)], np.uint32)
                assert bars[step] == 0 or noise.gumbel_of(below)[0] < least


ROWS = np.random.default_rng(8).standard_normal((40, 5003)).astype(np.float32)


@pytest.mark.parametrize("spread", [0.5, 3.0, 9.0])
@pytest.mark.parametrize(
    "asked", [{}, {"top_p": 0.9}, {"top_k": 50}, {"min_p": 0.02}, {"top_k": 4000, "top_p": 0.99, "min_p": 1e-6}]
)
@pytest.mark.parametrize("size", [5003, 1024, 1025, 257, 3])
def test_both_ways_choose_the_same_in_runs_and_in_ranks(both_ways, size, asked, spread):
    rows = np.ascontiguousarray(ROWS[:, :size] * spread)
    runs = [
        Run(
            7 * number,
            SamplingParameters(temperature=temperature, seed=number, **asked),
            rows[4 * number : 4 * number + 3].argmax(1).tolist(),
        )
        for number, temperature in enumerate([0.0, 0.3, 0.8, 0.8, 1.0, 1.5, 5.0, 0.8, 100.0, 0.0])
    ]
    plain, machine = both_ways(choose_runs, rows, runs)
    assert (machine.token_ids, machine.near_ties) == (plain.token_ids, plain.near_ties)
    parameters = [run.parameters for run in runs for _ in range(4)]
    plain, machine = both_ways(choose_ranked, rows, range(40), parameters, 4)
    assert machine.token_ids.tolist() == plain.token_ids.tolist()
    np.testing.assert_allclose(machine.confidences, plain.confidences, atol=1e-3)


@pytest.mark.parametrize("num_equal", [3, 25, 2000])
def test_equal_logits_at_the_edge_of_a_nucleus_stay_in_the_order_of_their_ids(both_ways, num_equal):
    row = np.full((1, 3000), -30, np.float32)
    row[0, 100 : 100 + num_equal] = 1
    row[0, 50] = 2
    for share in (0.1, 0.5, 0.9, 0.999):
        runs = [Run(position, SamplingParameters(temperature=1, top_p=share, seed=5)) for position in range(20)]
        plain, machine = both_ways(choose_runs, np.repeat(row, 20, axis=0), runs)
        assert machine.token_ids == plain.token_ids


LOGITS = [0.0, -0.0, 1.0, -1.0, 1.0 + 2**-23, 1.0 + 2**-13, -1e-45, 1e-45, 3e38, -3e38]


@given(st.lists(st.sampled_from(LOGITS), min_size=1, max_size=5), st.integers(1, 2100), st.sampled_from(LOGITS), st.data())
def test_the_highest_by_bits_are_those_of_the_floats(rule, few, size, rest, data):
    rows = np.full((3, size), rest, np.float32)
    for row in rows:
        places = data.draw(st.lists(st.integers(0, size - 1), min_size=len(few), max_size=len(few)))
        row[places] = few
    parameters = SamplingParameters()
    results = []
    for way in (None, rule):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(choice, "_rule", way)
            runs = [Run(0, parameters, [int(rows[0].argmax())]), Run(9, parameters)]
            results.append((choose_runs(rows, runs), choose_ranked(rows, [0] * 3, [parameters] * 3, 3)))
    (plain, plain_ranked), (machine, machine_ranked) = results
    assert machine.token_ids == plain.token_ids == rows.argmax(1).tolist()
    assert machine.near_ties == plain.near_ties
    assert machine_ranked.token_ids.tolist() == plain_ranked.token_ids.tolist()
    np.testing.assert_allclose(machine_ranked.confidences, plain_ranked.confidences, atol=1e-6)


@pytest.mark.parametrize("others", [(3,), (1500,), (2999,), (3, 1500, 2999)])
@pytest.mark.parametrize("behind", [0.0, 5e-5, 2e-4])
def test_a_near_tie_is_seen_wherever_the_next_logit_is(both_ways, others, behind):
    rows = np.zeros((1, 3000), np.float32)
    rows[0, 700] = 4
    rows[0, list(others)] = 4 - behind
    plain, machine = both_ways(choose_runs, rows, [Run(0, SamplingParameters())])
    assert machine.near_ties == plain.near_ties == [behind < choice.NEAR_TIE]
    assert machine.token_ids == plain.token_ids == [rows[0].argmax()]


def test_rows_that_are_not_in_the_compiled_form_are_chosen_from_all_the_same(both_ways):
    rows = np.asfortranarray(ROWS[:3])
    rows.flags.writeable = False
    runs = [Run(3, SamplingParameters(temperature=0.8)), Run(9, SamplingParameters(), [4])]
    plain, machine = both_ways(choose_runs, rows, runs)
    assert machine.token_ids == plain.token_ids


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_is_told_of(rule, monkeypatch, wrong):
    monkeypatch.setattr(choice, "_rule", rule)
    rows = ROWS[:3].copy()
    rows[2, 77] = wrong
    for call in (
        lambda: choose_runs(rows, [Run(0, SamplingParameters(), [1, 2])]),
        lambda: choose_ranked(rows, [0] * 3, [SamplingParameters()] * 3, 2),
    ):
        with pytest.raises(EngineError, match="row 2 of the logits is not finite"):
            call()


def test_without_numba_nothing_changes(monkeypatch):
    monkeypatch.setattr(choice, "_rule", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert compiled.use_compiled() is False
    assert choice._rule is None


def test_machine_code_is_kept_by_the_text_of_all_its_sources(tmp_path, monkeypatch):
    folders = set()
    for text in ("one", "two"):
        source = tmp_path / f"{text}.py"
        source.write_text(text, "utf-8")
        monkeypatch.setattr(jit, "_SOURCES", (source,))
        folders.add(jit._folder())
    assert len(folders) == 2


def test_where_the_package_cannot_be_written_to_it_is_kept_in_the_users_cache_or_nowhere(tmp_path, monkeypatch):
    a_file = tmp_path / "file"
    a_file.touch()
    monkeypatch.setattr(jit, "_HERE", a_file)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert jit._folder().startswith(str(tmp_path / "home" / ".cache" / "outrider" / "compiled-"))
    monkeypatch.setenv("HOME", str(a_file))
    assert jit._folder() == ""


def test_machine_code_that_was_kept_is_found_by_another_process(tmp_path):
    code = """
import numba
import numpy as np
numba.config.CACHE_DIR = FOLDER
from speculation.compiled import weights
out = np.zeros(2)
weights.weigh(np.zeros(2, np.float32), 0.0, 1.0, out)
assert out.tolist() == [1, 1]
print(sum(weights.weigh.stats.cache_hits.values()))
""".replace("FOLDER", repr(str(tmp_path)))
    hits = [subprocess.check_output([sys.executable, "-c", code], text=True).strip() for _ in range(2)]
    assert hits == ["0", "1"]


@pytest.mark.parametrize("seed", [2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("top_k", [0, 40, 2**80])
def test_seeds_have_64_bits_and_top_k_no_bound(both_ways, seed, top_k):
    rows = np.ascontiguousarray(ROWS[:8] * 0.5)
    asked = SamplingParameters(temperature=1.0, top_k=top_k, seed=seed)
    runs = [Run(number, asked) for number in range(8)]
    plain, machine = both_ways(choose_runs, rows, runs)
    assert machine.token_ids == plain.token_ids
    plain, machine = both_ways(choose_ranked, rows, range(8), [asked] * 8, 3)
    assert machine.token_ids.tolist() == plain.token_ids.tolist()


def test_a_position_below_0_is_refused(both_ways):
    asked = SamplingParameters(temperature=1)
    for call in (lambda: choose_runs(ROWS[:1], [Run(-1, asked)]), lambda: choose_ranked(ROWS[:1], [-1], [asked], 2)):
        with pytest.raises(ValueError, match="positions start at 0"):
            both_ways(call)


@pytest.mark.parametrize("size", [40, 3000, 20_000])
def test_where_scores_swallow_the_noise_the_lowest_ids_are_first(both_ways, size):
    asked = SamplingParameters(temperature=1e-25, seed=4)
    row = np.full((1, size), 3.0, np.float32)
    for made in both_ways(choose_runs, row, [Run(6, asked)]):
        assert (made.token_ids, made.near_ties) == ([0], [True])
    for ranked in both_ways(choose_ranked, row, [6], [asked], 3):
        assert ranked.token_ids.tolist() == [[0, 1, 2]]
