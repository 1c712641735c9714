"""The measured capacity: what replay devices draft, and what the tables make of runs."""

import asyncio
import contextlib

import numpy as np
import pytest

from benchmarks import capacity, capacity_runs
from benchmarks.capacity_runs import ALONE, OURS, SYSTEMS, Run, _runs_of, at
from benchmarks.processes.devices import Script
from benchmarks.trace_file import FIRST, Branch, Proposals, Trace

TEXT = [10, 11, 12, 13, 14]


def said(*token_ids):
    ids = np.array([[token_id, 99] for token_id in token_ids])
    return Proposals(ids, np.full(ids.shape, 0.5))


SCRIPT = Script(
    [1, 2],
    Trace("p", 2, 0.0, 1, np.array(TEXT), said(10, 77, 12, 13, 88), np.zeros((5, 2)), [Branch(1, FIRST, said(70, 71))]),
)


def test_a_replay_devices_chain_is_what_was_drafted_and_goes_on_behind_what_was_wrong():
    assert SCRIPT.chain(0, 8) == [10, 77, 70, 71]
    assert SCRIPT.chain(0, 3) == [10, 77, 70]
    assert SCRIPT.chain(2, 8) == [12, 13, 88]
    assert SCRIPT.chain(5, 8) == []


def made(system, tokens_per_s, forward_cpu=0.5, count=4):
    return Run(system, count, 0.0, tokens_per_s, 0.5, 8.0, forward_cpu, 0.25, 0.1, 250.0, 3, 3, 0.75)


def test_rates_are_medians_and_ratios_those_of_each_round():
    rounds = [[made(OURS, ours), made(ALONE, alone)] for ours, alone in ((300.0, 200.0), (100.0, 80.0), (90.0, 30.0))]
    (table,) = capacity.grids(rounds, {0.0: {"peer": {4: 55.0}}})
    assert list(table.columns) == [
        "devices",
        OURS,
        ALONE,
        "ratio to alone",
        "forwards alone",
        "share of them",
        "alone's share",
        "of the time",
        "peer",
    ]
    assert table.rows == [["4", "100", "80", "1.50 (1.25 to 3.00)", "200", "0.50", "0.50", "0.75", "55"]]


def test_a_rate_that_was_measured_once_is_not_called_a_median():
    """Peers are asked before the rounds, and take no turns in them."""
    rounds = [[made(OURS, 2.0), made(ALONE, 1.0)]] * 3
    (table,) = capacity.grids(rounds, {0.0: {"peer": {4: 55.0}, "other": {4: 5.0}}})
    assert table.title.endswith("(medians of 3 rounds; peer, other: once, before them)")
    (table,) = capacity.grids(rounds, {})
    assert table.title.endswith("(medians of 3 rounds)")


def test_briefly_it_is_told_how_far_decoding_alone_differs_from_itself():
    rounds = [[made(OURS, ours), made(ALONE, alone)] for ours, alone in ((100.0, 100.0), (99.0, 110.0), (96.0, 80.0))]
    table = capacity.brief_grid(rounds)
    assert table.rows == [["0", "4", "99", "100", "1.00 (0.90 to 1.20)", "2 of 3", "0.80 to 1.10"]]
    assert len(table.columns) == len(table.rows[0])


def test_what_is_compared_is_measured_side_by_side():
    runs = list(_runs_of(SYSTEMS, (), (1, 4)))
    assert [(count, system.name, temperature) for count, system, temperature in runs] == [
        (count, name, temperature) for count in (1, 4) for temperature in (0.0, 0.8) for name in (OURS, ALONE)
    ]


async def test_the_more_devices_share_a_verifier_the_longer_is_what_counts(monkeypatch):
    """So that each writes a text and more, however slowly."""
    windows = []

    async def run(system, verifier, count, temperature, seconds, models):
        windows.append((count, seconds))
        return made(system.name, 100.0)

    @contextlib.asynccontextmanager
    async def service(flags, slots):
        yield None

    monkeypatch.setattr(capacity_runs, "run", run)
    monkeypatch.setattr(capacity_runs, "service", service)
    await capacity_runs.measure(SYSTEMS[:1], (1, 100), 1, 5.0, a_device_s=0.5)
    assert set(windows) == {(1, 5.5), (100, 55.0)}


def test_systems_can_be_run_at_one_temperature():
    assert [(system.name, system.temperatures) for system in at(SYSTEMS, (0.8,))] == [(OURS, (0.8,)), (ALONE, (0.8,))]


@pytest.mark.parametrize(("flags", "said"), [(["0.5"], "recorded at 0 and 0.8"), (["0.8", "--quick"], "temperature 0 alone")])
def test_a_temperature_that_cannot_be_run_is_refused_before_anything_is(monkeypatch, capsys, flags, said):
    monkeypatch.setattr("sys.argv", ["capacity", "--temperatures", *flags])
    with pytest.raises(SystemExit):
        capacity.main()
    assert said in capsys.readouterr().err


def test_what_a_verdict_costs_beside_the_forward_is_what_the_process_computed_beside_it():
    run = made(OURS, 100.0)
    assert run.outside_us == pytest.approx(1000.0)
    assert run.ceiling_per_s == pytest.approx(200.0)


def test_a_peer_that_was_not_asked_for_a_count_leaves_its_cell_empty():
    (table,) = capacity.grids([[made(OURS, 2.0), made(ALONE, 1.0)]], {0.0: {"peer": {1: 5.0}}})
    assert table.rows[0][-1] == "-"


@pytest.mark.parametrize("num_empty", [0, 2])
def test_a_window_in_which_nothing_was_written_is_no_figure_and_a_longer_one_follows(num_empty, monkeypatch):
    """As where a busy machine gave the verifier no time at all."""
    asked_s = []

    async def window(system, verifier, count, temperature, seconds, models):
        asked_s.append(seconds)
        written = 0 if len(asked_s) <= num_empty else 12
        devices = {"tokens": written, "seconds": seconds, "cpu_s": 0.1, "verdicts": written, "texts": 0, "same_texts": 0}
        spent = {"forward_s": 0.1, "draft_forward_s": 0.0, "at_s": seconds, "cpu_s": 0.2, "forward_wall_s": 0.1}
        return devices, {"passes": written / 4, "rows": written, **spent}

    monkeypatch.setattr(capacity_runs, "_window", window)
    found = asyncio.run(capacity_runs.run(SYSTEMS[0], None, 2, 0.0, 0.5))
    assert asked_s == [0.5, 1.0, 2.0][: num_empty + 1]
    assert (found.tokens_per_s, found.rows_per_pass) == (12 / asked_s[-1], 4)


def test_devices_that_never_write_are_an_error(monkeypatch):
    async def window(*asked):
        return {"tokens": 0}, {"passes": 0}

    monkeypatch.setattr(capacity_runs, "_window", window)
    with pytest.raises(RuntimeError, match="wrote nothing within"):
        asyncio.run(capacity_runs.run(SYSTEMS[0], None, 2, 0.0, 0.5))
