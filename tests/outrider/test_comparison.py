"""The demo's verdict: same text or not, and figures that say where they come from."""

import io

import pytest
from rich.console import Console

from device_agent.events import DoneEvent
from device_agent.request import Mode
from outrider.comparison import FIGURES, Comparison, cell


def figure(value, unit, basis="emulated"):
    return {"value": value, "unit": unit, "basis": basis}


def done(token_ids, verified_count=None, tokens_per_s=10.0):
    figures = dict.fromkeys(FIGURES, figure(None, "share")) | {"tokens_per_s": figure(tokens_per_s, "tokens/s")}
    return DoneEvent(
        0, "length", (1,), token_ids, "", len(token_ids) if verified_count is None else verified_count, {}, figures
    )


def compared(ours, theirs):
    return Comparison({Mode.COLLABORATE: ours, Mode.CLOUD: theirs, Mode.DEVICE: done((9,), 0)})


def test_equal_tokens_that_are_all_verified_are_the_same_text():
    comparison = compared(done((1, 2, 3)), done((1, 2, 3)))
    assert comparison.is_same_text
    assert comparison.sentence == "Same text: all 3 collaborative tokens equal those of the cloud alone."


@pytest.mark.parametrize(
    "ours", [done((1, 2)), done((1, 2, 4)), done((1, 2, 3), verified_count=2)], ids=["short", "other", "unverified"]
)
def test_anything_less_is_a_different_text(ours):
    comparison = compared(ours, done((1, 2, 3)))
    assert not comparison.is_same_text
    assert comparison.sentence.startswith("DIFFERENT")


def test_the_speed_up_is_over_the_cloud_alone():
    assert compared(done((1,), tokens_per_s=25.0), done((1,), tokens_per_s=20.0)).speed_up == pytest.approx(1.25)


def test_no_speed_is_no_speed_up():
    comparison = compared(done((1,), tokens_per_s=None), done((1,)))
    assert comparison.speed_up is None
    assert "Too short" in comparison.speed_sentence


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (figure(61.6, "ms"), "62 ms emulated"),
        (figure(0.25, "share", "measured"), "0.25 measured"),
        (figure(25.04, "tokens/s"), "25.0 emulated"),
        (figure(380, "bytes", "measured"), "380 measured"),
        (figure(None, "ms"), "-"),
        (None, "-"),
    ],
)
def test_every_figure_says_whether_it_is_measured_or_emulated(value, shown):
    assert cell(value).plain == shown


def test_the_table_has_a_row_for_each_figure_and_fits_eighty_columns():
    console = Console(file=io.StringIO(), width=80)
    console.print(compared(done((1,), tokens_per_s=12345.6), done((1,))).table())
    lines = console.file.getvalue().splitlines()
    assert [line.startswith(label) for line, label in zip(lines[1:], FIGURES.values(), strict=True)] == [True] * len(FIGURES)
    assert "12345.6 emulated" in console.file.getvalue()


def test_joules_have_a_row_only_where_a_phone_tells_them():
    def printed(figures):
        console = Console(file=io.StringIO(), width=120)
        console.print(Comparison({Mode.DEVICE: DoneEvent(0, "length", (1,), (1,), "", 1, {}, figures)}).table())
        return console.file.getvalue()

    plain = {name: figure(1, "ms") for name in FIGURES}
    assert "joules" not in printed(plain)
    assert "0.047 J emulated" in printed(plain | {"joules_per_token": figure(0.0468, "J/token")})
