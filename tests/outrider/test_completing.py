"""Shell completion, as bash asks for it, and what is offered behind an option."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from outrider import completing
from outrider.conformance import CASES
from speculation.shaping import profiles

ROOT = Path(__file__).parents[2]
ASK = """
eval "$(outrider --show-completion bash)"
ask() { COMP_WORDS=(outrider "$@"); COMP_CWORD=$#; _outrider_completion outrider; echo "${COMPREPLY[@]}"; }
ask gen
ask generate text --phone dimensity-9
ask demo --mode ''
ask generate --mode ''
"""


def offered(complete, incomplete="", **params):
    return [name for name, _ in complete(SimpleNamespace(params=params), incomplete)]


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash on the path")
def test_bash_completes_verbs_modes_and_names_by_the_script_that_is_shown(tmp_path):
    program = tmp_path / "outrider"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m outrider "$@"\n')
    program.chmod(0o755)
    shell = ["env", f"PATH={tmp_path}:/usr/bin:/bin", "bash", "--norc", "-c", ASK]
    done = subprocess.run(shell, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["generate", "dimensity-9300 dimensity-9400", "", "collaborate cloud device auto"]


def test_names_of_profiles_come_with_their_titles():
    titled = dict(completing.phones(SimpleNamespace(params={}), "apple-"))
    assert list(titled) == [name for name in profiles.phones() if name.startswith("apple-")]
    assert all(titled.values())
    assert offered(completing.networks) == list(profiles.networks())
    assert offered(completing.clouds, "mi") == [name for name in profiles.clouds() if name.startswith("mi")]


def test_a_folder_of_ones_own_counts_and_one_that_cannot_be_read_does_not_get_in_the_way(tmp_path):
    (tmp_path / "phones").mkdir()
    (tmp_path / "phones" / "abacus.toml").write_text("this is no profile")
    assert offered(completing.phones, "aba", profiles=tmp_path) == ["abacus"]
    assert offered(completing.phones, profiles=tmp_path / "nowhere") == list(profiles.phones())


def test_a_folder_below_ones_home_counts_as_it_is_typed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine" / "phones").mkdir(parents=True)
    (tmp_path / "mine" / "phones" / "abacus.toml").write_text("this is no profile")
    assert offered(completing.phones, "aba", profiles=Path("~/mine")) == ["abacus"]
    assert offered(completing.phones, "aba", profiles="~nobody-of-this-name/mine") == []


def test_profiles_are_completed_by_the_kind_in_front():
    assert offered(completing.kinds) == ["phones", "networks", "clouds"]
    assert offered(completing.profiles, "h1", kind="clouds") == [name for name in profiles.clouds() if name.startswith("h1")]
    assert offered(completing.profiles, kind="ships") == []


def test_cases_of_conformance_are_completed():
    assert offered(completing.cases) == [case.name for case in CASES]
