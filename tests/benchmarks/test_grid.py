"""The grid runs what it says, names what falls short, and gives the same figures however it is run."""

from dataclasses import replace

import pytest

from benchmarks import grid
from benchmarks.first_order import Figures, Times
from benchmarks.grid_cells import Beside, Cell, Row, Runs, measure
from benchmarks.grid_tables import grids

REFERENCE = Cell(Times(9.0, 60.0, 60.0), 0.8)


@pytest.fixture(scope="module")
def row():
    return measure(REFERENCE, Runs(300, 1))


def test_the_code_comes_near_the_model_at_every_width(row):
    assert min(row.of_model.values()) > 0.97
    assert max(row.of_model.values()) < 1.02
    rates = [row.ahead[width].ours.tokens_per_s for width in (1, 2, 4)]
    assert rates == sorted(rates)
    assert row.of_cloud["one branch"] > 1.5


def test_a_rate_counts_from_the_request_to_the_end_of_the_last_pass(row):
    """Half a round trip, then 300 passes."""
    assert row.cloud.tokens_per_s == pytest.approx(300 / (0.030 + 300 * 0.060), rel=1e-6)
    assert row.emulated_s > row.num_sessions * 2 * 0.060
    assert row.num_sessions == 7


def test_stop_and_wait_is_run_for_real_at_the_models_best_length(row):
    assert row.sync.share == pytest.approx(1, abs=0.03)
    assert row.sync.ours.passes_per_token == pytest.approx(row.sync.model.passes_per_token, rel=0.05)
    assert row.sync.ours.tokens_per_s < row.ahead[1].ours.tokens_per_s


def test_speculation_inside_the_cloud_is_run_for_real(row):
    assert row.inside.share == pytest.approx(1, abs=0.05)
    assert row.inside.ours.passes_per_token < 0.5
    assert row.inside.ours.tokens_per_s > row.sync.ours.tokens_per_s


def built(of_model, of_cloud):
    """A row with these shares, in the order of the policies."""
    cloud = Figures(10.0, 1.0)
    ahead = {
        width: Beside(Figures(10 * over, 0.5), Figures(10 * over / share, 0.5))
        for width, share, over in zip((1, 2, 4), of_model, of_cloud[:3], strict=True)
    }
    beside = Beside(cloud, cloud)
    return Row(REFERENCE, cloud, beside, 3, beside, 4, ahead, Figures(10 * of_cloud[3], 0.5), 7, 1.5)


def test_a_row_names_the_bounds_that_it_misses():
    assert built((0.971, 1.2, 0.98), (0.991, 1.0, 1.0, 2.0)).misses == []
    assert built((0.969, 1.0, 0.9), (1.0, 0.98, 1.0, 0.5)).misses == [
        "one branch: model",
        "four branches: model",
        "two branches: cloud",
        "adaptive: cloud",
    ]


def test_the_worst_cell_stands_above_the_table():
    good = built((0.99, 0.99, 0.99), (1.1, 1.1, 1.1, 1.1))
    bad = replace(built((0.98, 0.95, 0.99), (1.1, 1.1, 1.1, 1.0)), cell=Cell(Times(18.0, 30.0, 150.0), 0.6))
    tables = grids([good, bad, good], Runs(5, 6))
    assert "5 tokens x 6 draws" in tables[0].title
    assert "2 of 3 cells" in tables[0].title
    worst = {line[0]: line[1:] for line in tables[0].rows}
    assert worst["two branches: of the model"] == ["0.97", "0.950", "18; 30; 150; 0.6", "2 of 3"]
    assert worst["adaptive: of cloud alone"] == ["0.99", "1.000", "18; 30; 150; 0.6", "3 of 3"]
    assert all(len(line) == len(table.columns) for table in tables for line in table.rows)
    assert [line[-1] for line in tables[2].rows] == ["", "MISS two branches: model", ""]


def test_figures_do_not_depend_on_the_number_of_processes():
    cells = [replace(REFERENCE, alpha=alpha) for alpha in (0.6, 0.9, 0.95)]
    alone, together = (grid.measured(cells, Runs(30, 1), count) for count in (1, 2))
    assert [row.to_json() for row in alone] == [row.to_json() for row in together]
    assert [row.cell for row in alone] == cells


def test_an_acceptance_that_the_short_form_has_not_is_refused_before_anything_is_run(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["grid", "--quick", "--acceptance", "0.6"])
    with pytest.raises(SystemExit) as left:
        grid.main()
    assert left.value.code == 2
    assert "--quick runs at acceptance 0.8 alone" in capsys.readouterr().err
