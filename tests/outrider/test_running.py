"""How commands run their coroutines."""

import sys

import pytest
import typer

from outrider import cli, running
from outrider.running import run_loop
from speculation.engines.sharing import SWITCH_INTERVAL_S
from speculation.errors import LinkError


@pytest.fixture
def interval():
    usual_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(usual_s)


async def ended(code):
    return code


@pytest.mark.parametrize("is_emulated", [False, True])
def test_a_service_hands_the_interpreter_over_soon(interval, is_emulated):
    seen = []

    async def look():
        seen.append(sys.getswitchinterval())

    run_loop(look(), is_emulated)
    assert seen == [pytest.approx(SWITCH_INTERVAL_S)]


def test_a_code_that_is_not_0_ends_the_command_with_it(interval):
    run_loop(ended(0))
    with pytest.raises(typer.Exit) as caught:
        run_loop(ended(3))
    assert caught.value.exit_code == 3


def test_an_extra_that_cannot_be_used_is_told_of_and_stops_nothing(monkeypatch, capsys):
    def too_new():
        raise ImportError("Numba needs NumPy 2.4 or less. Got NumPy 9.0.")

    monkeypatch.setattr(running, "use_compiled", too_new)
    running.choose_fast()
    assert "NumPy chooses: Numba needs NumPy 2.4 or less" in capsys.readouterr().err


def test_what_a_service_says_of_an_error_steers_no_terminal(capsys):
    def refused():
        raise LinkError("away\x1b[2J\x1b]0;owned\x07 \x9b31m")

    assert cli.run(refused) == 1
    assert capsys.readouterr().err == "outrider: error: away\ufffd[2J\ufffd]0;owned\ufffd \ufffd31m\n"
