"""The benchmark of a stranger's wait: what it tells, and that a command that fails is no time."""

import re

import pytest

from benchmarks import fresh_clone
from benchmarks.fresh_clone import Run, grid, serving
from tests.support.code_blocks import ROOT


def test_the_row_has_medians_and_the_sum_of_one_stranger():
    runs = [Run(True, True, 1.0, 30.0, 0.5), Run(True, True, 2.0, 40.0, 0.7), Run(True, True, 1.5, 35.0, 0.6)]
    (row,) = grid(runs).rows
    assert row == ["1", "installed", "the page", "1.5", "35.0", "0.6", "37.1"]


def test_the_commands_are_those_of_the_readme():
    text = (ROOT / "README.md").read_text("utf-8")
    assert [line for line in fresh_clone.SHOWN_COMMANDS.split("; ") if not re.search(rf"^{line} ", text, re.MULTILINE)] == []


async def test_a_command_that_ends_is_an_error_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(fresh_clone, "COMMANDS", (("sh", "-c", "echo no luck; exit 3"),))
    with pytest.raises(RuntimeError, match=r"ended with 3:\nno luck"):
        async with serving(tmp_path, fresh_clone.free_port(), is_quick=False):
            pass
