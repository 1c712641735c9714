"""The benchmark of a stranger's wait: what it tells, and that a command that fails is no time."""

import re

import pytest

from benchmarks import fresh_clone
from benchmarks.fresh_clone import PIP, UV, Run, grid, serving
from tests.support.code_blocks import ROOT


def test_a_row_has_medians_and_the_sum_of_one_stranger():
    runs = [Run(PIP, True, 1.0, 30.0, 0.5), Run(UV, True, 1.0, 9.0, 0.5), Run(PIP, True, 2.0, 40.0, 0.7)]
    runs += [Run(UV, True, 1.1, 8.0, 0.4), Run(PIP, True, 1.5, 35.0, 0.6), Run(UV, True, 1.2, 7.0, 0.3)]
    by_pip, by_uv = grid(runs).rows
    assert by_pip == ["1", PIP, "the page", "1.5", "35.0", "0.6", "37.1"]
    assert by_uv == ["1", UV, "the page", "1.1", "8.0", "0.4", "9.5"]
    assert "(median of 3)" in grid(runs).title


def test_the_commands_are_those_of_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [line for line in fresh_clone.SHOWN_COMMANDS.split("; ") if not re.search(rf"^{line} ", text, re.MULTILINE)] == []


async def test_a_command_that_ends_is_an_error_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(fresh_clone, "COMMANDS", (("sh", "-c", "echo no luck; exit 3"),))
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno luck"):
        async with serving(tmp_path, fresh_clone.free_port(), PIP):
            pass


async def test_a_stranger_has_nothing_in_any_installers_cache(tmp_path, monkeypatch):
    """Where uv is on the path it installs: what it kept from another day would be no stranger's wait."""
    told = 'echo "pip: $PIP_NO_CACHE_DIR, uv: $UV_NO_CACHE"; exit 3'
    monkeypatch.setattr(fresh_clone, "COMMANDS", (("sh", "-c", told),))
    with pytest.raises(RuntimeError, match=r"ended with 3:\npip: 1, uv: 1\n"):
        async with serving(tmp_path, fresh_clone.free_port(), PIP):
            pass
