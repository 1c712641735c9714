"""Pictures are drawn from the figures, and the same figures give the same picture."""

import pytest

pytest.importorskip("matplotlib", reason="the extra plot is not installed")

from benchmarks import plots
from benchmarks.first_order import Figures, Times
from benchmarks.grid_cells import Beside, Cell, Row
from benchmarks.thrift_front import Point


def row(round_trip_ms, alpha=0.8):
    figures = Figures(round_trip_ms, 0.5)
    beside = Beside(figures, figures)
    cell = Cell(Times(9.0, 60.0, round_trip_ms), alpha)
    return Row(cell, figures, beside, 3, beside, 4, {1: beside, 2: beside, 4: beside}, figures, 7, 1.5)


def drawn(draw, file):
    draw(file)
    return file.read_text()


def test_the_grid_shows_every_way_and_only_one_acceptance(tmp_path):
    rows = [row(20.0), row(300.0), row(60.0, alpha=0.6)]
    picture, again = (drawn(lambda file: plots.grid(rows, file), tmp_path / name) for name in ("a.svg", "b.svg"))
    assert picture == again
    assert all(way in picture for way in ("cloud alone", "stop and wait", "one branch", "two branches", "four branches"))
    assert picture == drawn(lambda file: plots.grid(rows[:2], file), tmp_path / "c.svg")


def test_thrift_shows_both_fronts(tmp_path):
    points = [Point("a", Figures(10.0, 0.3)), Point("b", Figures(20.0, 0.6))]
    picture = drawn(lambda file: plots.thrift(points, points[:1], "some cell", file), tmp_path / "a.svg")
    assert all(text in picture for text in ("some cell", "stop and wait", "0.42 passes a token"))
