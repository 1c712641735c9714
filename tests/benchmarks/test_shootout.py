"""The shootout: the same weights in every form, and tables that follow from what was measured."""

from __future__ import annotations

import io
import math
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console
from rich.progress import Progress

from benchmarks import shootout
from benchmarks.rivals.base import Form
from benchmarks.rivals.llama import gguf_name, neighbours
from benchmarks.rivals.ours import BareForward
from benchmarks.shootout import CELLS, MANY, Measured, added, chosen, goals, measured, speeds, tokens_of
from benchmarks.shootout_forms import (
    BARE,
    FORMS,
    GENAI,
    IN_8_BITS,
    LLAMA,
    NEEDS,
    OURS,
    SIZES,
    TORCH,
    Forms,
    config_of,
    shapes_of,
    weights_of,
)
from speculation.engines.checkpoint import Checkpoint
from tests.speculation.engines.tiny import reference_logits

TINY = SIZES["tiny"]
PAST = 5


@pytest.fixture
def ours(tmp_path):
    """Our engine on the tiny weights, its sessions filled, and the package that was made of them."""
    made = Forms(tmp_path, TINY, MANY)
    ((_, rival),) = made.made([Form(OURS, "fp32", "32")], lambda said: None)
    rival.fill(tokens_of(MANY, 0, PAST, TINY["vocabulary"]))
    return rival


@pytest.mark.parametrize(("name", "wanted"), [("30 M", 30e6), ("100 M", 100e6)])
def test_sizes_are_what_they_are_called(name, wanted):
    assert sum(map(math.prod, shapes_of(SIZES[name]).values())) == pytest.approx(wanted, rel=0.05)


def test_a_checkpoint_holds_the_weights_that_every_call_draws(tmp_path):
    Forms(tmp_path, TINY, 1)
    found, wanted = Checkpoint(tmp_path / "checkpoint"), weights_of(TINY)
    assert set(found) == set(wanted)
    assert all(np.array_equal(found[name], values) for name, values in wanted.items())


def test_our_form_computes_what_a_plain_forward_of_the_weights_does(tmp_path, ours):
    tokens = tokens_of(MANY, 0, PAST + 9, TINY["vocabulary"])
    found = ours.step(tokens[:, PAST:]).reshape(MANY, 9, -1)
    checkpoint = SimpleNamespace(path=tmp_path / "checkpoint", config=config_of(TINY))
    for session in (0, MANY - 1):
        wanted = reference_logits(checkpoint, tokens[session].tolist())[PAST:]
        np.testing.assert_allclose(found[session], wanted, atol=1e-4)


def test_the_bare_forward_is_our_pass_over_again(ours):
    bare, tokens = BareForward(ours), tokens_of(MANY, PAST, 9, TINY["vocabulary"])
    wanted = ours.step(tokens).copy()
    ours.rewind(MANY)
    bare.ready(tokens)
    bare._logits[:] = 0
    np.testing.assert_array_equal(bare.step(tokens), wanted)


def test_gguf_has_a_name_of_its_own_for_every_weight():
    names = [gguf_name(name) for name in shapes_of(TINY)]
    assert len(set(names)) == len(names)
    assert {"token_embd.weight", "blk.1.attn_q.weight", "blk.0.ffn_norm.weight", "output.weight"} <= set(names)


def test_reordered_rows_give_the_products_of_the_other_order_of_turning():
    """Halves turned against each other, and neighbours turned against each other: the scores are the same."""
    random = np.random.default_rng(2)
    queries, keys = (random.normal(size=(16, 6)).astype(np.float32) for _ in range(2))
    x, y = random.normal(size=(2, 6)).astype(np.float32)
    angles = np.arange(1, 5) / 3

    def halves(row, turn):
        a, b = row.reshape(2, 2, 4).swapaxes(0, 1)
        return np.stack((a * np.cos(turn) - b * np.sin(turn), a * np.sin(turn) + b * np.cos(turn)), 1)

    def pairs(row, turn):
        a, b = row.reshape(2, 4, 2).transpose(2, 0, 1)
        return np.stack((a * np.cos(turn) - b * np.sin(turn), a * np.sin(turn) + b * np.cos(turn)), 1)

    plain = halves(queries @ x, 3 * angles) * halves(keys @ y, angles)
    other = pairs(neighbours(queries, 2) @ x, 3 * angles) * pairs(neighbours(keys, 2) @ y, angles)
    np.testing.assert_allclose(other.sum((1, 2)), plain.sum((1, 2)), rtol=1e-4)


def fake(engine, variant, bits, seconds):
    """Every cell takes so long by the middle pass, and half of it by the fastest."""
    one = Measured("30 M", engine, variant, bits)
    one.cpu_s = {cell: [seconds / 2, seconds, 2 * seconds] for cell in CELLS}
    one.engine_s = {cell: [seconds / 2 + 0.0005, seconds + 0.0005, 2 * seconds + 0.001] for cell in CELLS}
    return one


def test_ratios_and_goals_follow_from_the_seconds():
    found = [
        fake(OURS, "fp32", "32", 0.010),
        fake(BARE, "fp32", "32", 0.0095),
        fake(GENAI, "fp32", "32", 0.009),
        fake(LLAMA, "F32", "32", 0.020),
        fake(LLAMA, "Q8_0", "8", 0.001),
    ]
    assert speeds(found).rows[0][3:5] == ["100 (200)", "1,600 (3,200)"]
    decode, _, verify, _ = goals(found).rows
    assert decode[3:6] == ["0.90 (0.90), onnxruntime-genai", "2.00 (2.00)", "+5.3%"]
    assert decode[-1] == "no"
    assert verify[-1] == "yes"


def test_without_others_only_what_was_measured_is_judged():
    (decode, *_) = goals([fake(OURS, "q4", "4", 0.01), fake(BARE, "q4", "4", 0.004)]).rows
    assert decode[3:5] == ["", ""]
    assert decode[-1] == "no"


def test_a_form_of_ours_is_judged_by_other_engines_and_by_its_own_bare_forward():
    forms = [(OURS, "i8", 0.02), (BARE, "i8", 0.019), (OURS, "q8_b128", 0.01), (BARE, "q8_b128", 0.005), (LLAMA, "Q8_0", 0.016)]
    found = [fake(engine, variant, "8", seconds) for engine, variant, seconds in forms]
    rows = {row[1]: row for row in goals(found).rows if row[2] == "decode, 1 session"}
    assert rows["i8"][3:6] == ["0.80 (0.80), llama.cpp", "0.80 (0.80)", "+2.6%"]
    assert rows["q8_b128"][3:6] == ["1.60 (1.60), llama.cpp", "1.60 (1.60)", "+10.0%"]


def test_what_the_engine_adds_is_the_middle_of_pairs():
    assert added([1.1, 5.5, 2.4], [1.0, 5.0, 2.0]) == pytest.approx(0.1)


def test_an_engine_that_is_not_installed_is_left_out_with_a_line_that_says_how_to_have_it(monkeypatch):
    monkeypatch.setitem(NEEDS, LLAMA, {"no_such_module_at_all": "llama-cpp-python"})
    for engine in (GENAI, TORCH):
        monkeypatch.setitem(NEEDS, engine, {})
    said = io.StringIO()
    kept = chosen(None, Console(file=said))
    assert kept == [form for form in FORMS if form.engine != LLAMA]
    assert said.getvalue() == "left out: llama.cpp, which needs llama-cpp-python (pip install 'outrider[rivals]')\n"


def test_named_rivals_alone_are_measured_beside_ours(monkeypatch):
    monkeypatch.setitem(NEEDS, GENAI, {})
    assert {form.engine for form in chosen([GENAI], Console(file=io.StringIO()))} == {OURS, BARE, GENAI}


def test_every_form_of_ours_is_timed_in_every_cell(monkeypatch):
    forms = [form for form in FORMS if form.engine in (OURS, BARE)]
    monkeypatch.setattr(shootout, "IN_A_ROW", dict.fromkeys(shootout.IN_A_ROW, 1))
    with Progress(disable=True) as progress:
        found = measured("tiny", forms, 2, PAST, progress)
    assert [(one.engine, one.variant) for one in found] == [(form.engine, form.variant) for form in forms]
    assert all(len(one.cpu_s[cell]) == 2 and one.rows_a_second(cell) > 0 for one in found for cell in CELLS)
    assert found[0].largest_difference == 0
    assert found[1].largest_difference == 0
    assert 0 < found[2].largest_difference < 2


def test_a_form_that_this_processor_cannot_run_is_left_out_with_a_line_that_says_so(monkeypatch):
    console = Console(file=io.StringIO(), width=200)
    monkeypatch.setattr(shootout, "are_whole", lambda block: False)
    assert not [form for form in chosen([], console) if form.variant == IN_8_BITS]
    assert "left out: q8_b128, whose sums this processor cuts off" in console.file.getvalue()
    monkeypatch.setattr(shootout, "are_whole", lambda block: True)
    assert [form.variant for form in chosen([], console)].count(IN_8_BITS) == 2
