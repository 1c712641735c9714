"""The check of wheels for other systems: what it asks pip, and what it makes of the answer. The index is asked by hand."""

import json
import subprocess

import pytest

from docs import wheels_check


@pytest.fixture
def asked(monkeypatch):
    """pip that knows wheels for macOS alone; what it was asked."""
    commands = []

    def pip(command, **_):
        commands.append(command)
        if "macosx_14_0_arm64" not in command:
            return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found for grpcio\n")
        urls = ("https://index/a/grpcio-1-cp311-cp311-macosx_11_0_universal2.whl", "https://index/b/rich-14-py3-none-any.whl")
        report = {"install": [{"download_info": {"url": url}} for url in urls]}
        return subprocess.CompletedProcess(command, 0, json.dumps(report), "")

    monkeypatch.setattr(subprocess, "run", pip)
    return commands


def test_where_all_have_wheels_it_says_how_many(asked, capsys):
    assert wheels_check.main(["macosx_14_0_arm64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("Python ")[1] for line in lines] == [
        f"{python}  2 wheels, 1 of them for this platform" for python in wheels_check.PYTHONS
    ]
    assert all("grpcio>=1.85.1" in command and "--dry-run" in command for command in asked)


def test_where_one_has_none_it_says_which_and_fails(asked, capsys):
    assert wheels_check.main(["win_amd64,win32"]) == 1
    assert "win_amd64 " in (told := capsys.readouterr().out)
    assert "cannot be installed: ERROR: No matching distribution found for grpcio" in told
    assert [asked[0][at + 1] for at, word in enumerate(asked[0]) if word == "--platform"] == ["win_amd64", "win32"]
