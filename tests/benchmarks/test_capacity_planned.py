"""The capacity runs meet the closed form where there is one, and the tables say what holds the rate and what is missed."""

from dataclasses import replace

import pytest

from benchmarks import capacity_planned, capacity_scene, capacity_settings, capacity_tables
from benchmarks.capacity_scene import Load
from benchmarks.capacity_settings import (
    ACCEPTANCE,
    ALONE,
    INSIDE,
    OURS,
    PACED,
    PRICED,
    SYSTEMS,
    WAITING,
    HeldCosts,
    Point,
    Search,
    Setting,
    cloud_draft_cost,
    full_cost,
    intervals_ms,
    mean_context,
    measure,
    scene,
    settings,
)
from benchmarks.roofline import pass_s, tokens_a_pass
from cloud_verifier.costs import PassShape
from device_agent.config import AgentConfig
from device_agent.request import Mode
from speculation.errors import CapacityError, SimulationError
from speculation.shaping.costs import Work

DEVICES, TOKENS, LENGTH = 4, 120, 3
CONTEXT = mean_context(TOKENS)
TOLERANCE = 0.05
"""Some 160 passes of a session's each: the mean of so many runs of drafts strays by 3 %; the draws are always the same."""


def load(setting):
    return capacity_scene.run(scene(setting, DEVICES, TOKENS))


@pytest.fixture(scope="module")
def alone():
    return load(Setting(ALONE, "", mode=Mode.CLOUD))


def test_a_70b_in_fp8_on_an_h200_costs_what_one_gets_by_hand():
    """70 GB over 4.8 TB/s x 0.65, and 512 tokens of 80 layers x 8 heads x 128 x 2 x 2 bytes; 140 GFLOP a row."""
    cost = full_cost()
    assert cost.model.kv_bytes_per_token == 327_680
    assert pass_s(cost, 1, 1, 512) == pytest.approx((70e9 + 513 * 327_680) / 3.12e12)
    assert pass_s(cost, 1, 1000, 512) == pytest.approx(1000 * 140e9 / 989.5e12)


def test_decoding_alone_costs_a_pass_over_all_a_token_each(alone):
    assert alone.busy_ms_per_token == pytest.approx(1000 * pass_s(full_cost(), DEVICES, DEVICES, CONTEXT) / DEVICES, rel=0.001)
    assert alone.busy_share == pytest.approx(1)
    assert (alone.sessions_a_pass, alone.passes_per_token) == (DEVICES, 1)


def test_drafts_of_a_fixed_length_save_what_the_closed_form_says(alone):
    """Passes so far apart that three drafts of one branch are there for each: (1 - a^4) / (1 - a) tokens a session's pass."""
    agent = AgentConfig(drafting="ahead", draft_depth=LENGTH)
    ours = load(Setting(PACED, "", agent, pass_interval_ms=250.0))
    rows = DEVICES * (1 + LENGTH)
    passes_s = [pass_s(full_cost(), DEVICES, count, CONTEXT) for count in (DEVICES, rows)]
    expected = tokens_a_pass(ACCEPTANCE, 1, 1 + LENGTH) * passes_s[0] / passes_s[1]
    assert alone.busy_ms_per_token / ours.busy_ms_per_token == pytest.approx(expected, rel=TOLERANCE)
    assert ours.sessions_a_pass == DEVICES


def test_inside_the_cloud_the_drafts_steps_are_paid_too(alone):
    inside = load(Setting(INSIDE, "", draft_length=LENGTH, mode=Mode.CLOUD))
    pass_and_drafts_s = pass_s(full_cost(), DEVICES, DEVICES * (1 + LENGTH), CONTEXT) + LENGTH * pass_s(
        cloud_draft_cost(), DEVICES, DEVICES, CONTEXT
    )
    expected_ms = 1000 * pass_and_drafts_s / DEVICES / tokens_a_pass(ACCEPTANCE, 1, 1 + LENGTH)
    assert inside.busy_ms_per_token == pytest.approx(expected_ms, rel=TOLERANCE)
    assert inside.busy_share == pytest.approx(1)


def test_contexts_that_do_not_fit_are_refused():
    """141 GB less 70 GB are 216,674 tokens, and each device needs 512 + 2 + 3 x 4 + 96 + 1: 347 devices."""
    with pytest.raises(CapacityError, match=r"does not fit"):
        capacity_scene.run(scene(Setting(ALONE, "", mode=Mode.CLOUD), 348, 4))


def test_a_text_that_is_not_the_full_models_is_an_error(monkeypatch):
    """The check meets another truth than the one that was written."""
    few = scene(Setting(ALONE, "", mode=Mode.CLOUD), 1, 24)
    engine = replace(few.source, seed=1).full_engine(0)
    sources = iter([few.source.full_engine(1), engine])
    monkeypatch.setattr(type(few.source), "full_engine", lambda *_: next(sources))
    with pytest.raises(SimulationError, match="not what the full model writes alone"):
        capacity_scene.run(few)


def test_systems_differ_in_whether_the_verifier_knows_what_a_pass_costs():
    found = {system: settings(system, 64, Search()) for system in SYSTEMS}
    assert all(len(set(own)) == len(own) for own in found.values())
    priced = {system: {scene(s, 64, 16).costs is not None for s in own} for system, own in found.items()}
    no, yes = {False}, {True}
    assert priced == {ALONE: no, INSIDE: no, WAITING: no, OURS: no | yes, PACED: no, PRICED: yes}


def test_the_verifier_is_told_what_a_pass_is_charged():
    """64 sessions behind 538 tokens, 3 rows each."""
    shape = PassShape()
    for _ in range(64):
        shape = shape.with_session(3, 26)
    assert HeldCosts(full_cost()).seconds(shape) == pytest.approx(full_cost().step_s([Work(26, 3)] * 64))


def test_passes_are_so_far_apart_that_a_rate_should_just_be_held():
    """184 rows for 64 sessions: 64 x 1.8 + 56 x 0.64 tokens, 2.36 each; of fewer sessions' passes 4.5 each at most."""
    search = replace(Search(), around=(1.0,))
    assert intervals_ms(64, search) == [79.0, 118.0]
    assert intervals_ms(4, search) == [150.0, 225.0]


def test_passes_are_paced_farther_and_farther_apart_until_no_rate_is_held(monkeypatch):
    """118 ms is no longer than a pass was; at 125 ms 20 a second are no longer held."""
    rates = {78.0: 30.0, 125.0: 19.0, 130.0: 15.0}
    monkeypatch.setattr(
        capacity_settings, "run", lambda scene: made(PACED, 1.0, rates[scene.verifier.pass_interval_ms], pass_ms=119.0).load
    )
    monkeypatch.setattr(capacity_settings, "intervals_ms", lambda *_: [78.0, 118.0, 125.0, 130.0])
    monkeypatch.setattr(capacity_settings, "depths", lambda _: (6, 12))
    found = [(p.setting.agent.draft_depth, p.setting.pass_interval_ms) for p in measure((PACED, 4), Search())]
    assert found == [(6, 78.0), (6, 125.0), (12, 78.0), (12, 125.0)], "each depth from the start"


def made(system, cost, rate, devices=64, length=0, pass_ms=25.0):
    load = Load(cost, 1.0, rate, rate, passes_per_token=0.4, sessions_a_pass=8.0, pass_ms=pass_ms, window_s=3.0)
    return Point(Setting(system, f"{rate:g}", draft_length=length), devices, load)


def points(paced_cost, devices=64, paced_rate=21.0, as_it_is=0.7):
    return [
        made(ALONE, 1.0, 40.0, devices),
        made(INSIDE, 0.5, 60.0, devices, 3),
        made(WAITING, 0.3, 19.0, devices),
        made(WAITING, 0.9, 20.0, devices),
        made(OURS, as_it_is, 45.0, devices),
        *(made(system, paced_cost, paced_rate, devices) for system in (PACED, PRICED)),
    ]


def row(*args, rate=20.0, **more):
    return capacity_tables.row_of(points(*args, **more), rate, Search())


def test_a_system_chooses_its_cheapest_setting_that_holds_the_rate():
    assert row(0.4).systems[WAITING].cost == 0.9
    fast = row(0.4, rate=30.0).systems[WAITING]
    assert (fast.is_held, fast.point.load.tokens_per_s) == (False, 20.0)


def test_bounds_that_are_missed_are_named_for_what_there_is_and_for_what_pacing_would_give():
    found = row(0.4)
    assert found.misses(PACED) == []
    assert found.misses(OURS) == ["2.2 of alone", "0.9 of the theory"]
    assert row(0.46).misses(PRICED) == ["2.2 of alone"]
    assert row(1.04, 256).misses(PACED) == ["0.97 of alone", "0.9 of the theory"]
    assert row(1.0, 128).misses(PACED) == ["0.85 of the ceiling", "0.9 of the theory"]
    assert row(0.4, paced_rate=19.0).misses(PACED) == ["the rate"]
    assert row(0.4, rate=70.0).misses(PACED) == [], "where nobody holds the rate there is nothing to compare"


def test_where_the_machine_cannot_give_the_rate_all_are_held_to_what_decoding_alone_gives():
    """By the roofline 256 sessions cannot be made much cheaper than by decoding alone."""
    found = row(0.9, 256, rate=70.0, paced_rate=41.0)
    assert (found.held_tokens_per_s, found.systems[ALONE].is_held, found.systems[PACED].is_held) == (40.0, True, True)
    assert found.misses(PACED) == ["0.9 of the theory"]
    assert row(0.9, 256, rate=70.0, paced_rate=39.0).misses(PACED) == ["the rate"]
    assert row(0.4, 4, rate=70.0).held_tokens_per_s == 70.0, "here drafts could give it"
    assert capacity_tables.grids([found])[0].rows[0][1] == "1.000 (all held to 40.0/s)"


def test_tables_show_what_is_held_and_how_far_the_others_come():
    held, bounds, settings_of, missed, _, _ = capacity_tables.grids([row(0.4), row(0.4, rate=30.0)])
    assert held.rows[0][:7] == ["64", "1.000", "2.00", "1.11", "1.43", "2.50", "2.50"]
    assert missed.rows[0][3:7] == ["only 20.0/s", "1.43", "only 21.0/s", "only 21.0/s"]
    assert "0 (ours, not paced), 1 (ours, paced, all drafts)" in bounds.title
    assert [line[2] for line in bounds.rows] == ["1.43", "2.50", "2.50"]
    assert all(len(grid.columns) == len(line) for grid in (held, bounds, settings_of, missed) for line in grid.rows)


def test_stop_and_wait_chooses_its_length_as_speculation_inside_the_cloud_does():
    """One length alone made it 1.4 times as dear with one device as its best one does."""
    tried = {setting.agent.draft_length for setting in settings(WAITING, 4, Search())}
    assert tried == {setting.draft_length for setting in settings(INSIDE, 4, Search()) if setting.draft_length >= 4}


def test_the_quick_form_runs_every_system():
    assert all(settings(system, 4, capacity_planned.QUICK) for system in SYSTEMS)
