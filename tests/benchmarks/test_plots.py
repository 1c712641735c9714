"""Pictures are drawn from the figures, and the same figures give the same picture."""

import pytest

pytest.importorskip("matplotlib", reason="the extra plot is not installed")

from benchmarks import capacity_settings, capacity_tables, plots
from benchmarks.capacity_scene import Load
from benchmarks.capacity_settings import SYSTEMS, Setting
from benchmarks.first_order import Figures, Times
from benchmarks.grid_cells import Beside, Cell, Row
from benchmarks.routing import Curve
from benchmarks.routing_texts import Point as Routed
from benchmarks.routing_texts import best
from benchmarks.soak_samples import Sample
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


def test_capacity_shows_every_system_that_holds_the_rate_and_the_ceiling(tmp_path):
    load = Load(0.5, 1.0, 25.0, 25.0, 0.4, 8.0, 25.0, 3.0)
    held = {
        name: capacity_tables.Held(capacity_settings.Point(Setting(name, ""), 4, load), name != SYSTEMS[2]) for name in SYSTEMS
    }
    rows = [capacity_tables.Row(rate, count, held, 2.0, 1.1, rate) for rate in (20.0, 30.0) for count in (4, 16)]
    picture = drawn(lambda file: plots.capacity(rows, file), tmp_path / "a.svg")
    assert all(text in picture for text in (*SYSTEMS, "ceiling", "20 tokens a second", "30 tokens a second"))


def test_the_soak_shows_memory_and_sessions(tmp_path):
    counts = dict.fromkeys(Sample.__dataclass_fields__, 1)
    samples = [Sample(**(counts | {"at_s": at_s})) for at_s in (60.0, 120.0)]
    picture = drawn(lambda file: plots.soak(samples, file), tmp_path / "a.svg")
    assert all(text in picture for text in ("memory, MiB", "resident", "sessions", "of them waiting", "caches kept"))


def test_signals_are_drawn_between_lot_and_knowledge(tmp_path):
    ideal = best([1.0, 0.0], [1, 1])
    curves = [Curve(name, 8, [Routed(0.5, 0.8), Routed(0.9, 1.0)], ideal) for name in ("all of it", "its end")]
    picture, again = (drawn(lambda file: plots.routing(curves, file), tmp_path / name) for name in ("a.svg", "b.svg"))
    assert picture == again
    for label in ("by lot", "by knowledge", "all of it", "its end", "answers of 8 tokens"):
        assert label in picture
