"""Whether everything that a plain ``pip install outrider`` needs has a wheel for other systems: asked of the package index.

python -m docs.wheels_check [TAG,TAG,... ...]

pip resolves the project's dependencies, and all that they need in turn, for each platform and Python, and installs nothing. It
says that they can be installed there, not that anything was run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
PLATFORMS = ("macosx_14_0_arm64", "manylinux_2_28_aarch64,manylinux_2_17_aarch64,manylinux2014_aarch64")
"""Tags that one system takes, by commas: pip knows which older ones a macOS takes, of a Linux it does not."""
PYTHONS = ("3.11", "3.12", "3.13")


def dependencies() -> list[str]:
    """What the project itself asks for, extras left out."""
    return list(tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"])


def resolve(wanted: Sequence[str], platform: str, python: str) -> tuple[list[str], str]:
    """The wheels that pip would install there, or an empty list and pip's last words."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "install",
            "--quiet",
            "--dry-run",
            "--report",
            "-",
        ]
        there = ["--ignore-installed", "--only-binary=:all:", "--python-version", python]
        there += [word for tag in platform.split(",") for word in ("--platform", tag)]
        done = subprocess.run([*command, *there, "--target", folder, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        return [], (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
    return sorted(each["download_info"]["url"].rpartition("/")[2] for each in json.loads(done.stdout)["install"]), ""


def main(platforms: Sequence[str]) -> int:
    """A line for each platform and Python. The exit code: 1 where something has no wheel."""
    wanted, is_whole = dependencies(), True
    for platform in platforms or PLATFORMS:
        for python in PYTHONS:
            wheels, fault = resolve(wanted, platform, python)
            is_whole &= bool(wheels)
            own = sum(not wheel.endswith("-any.whl") for wheel in wheels)
            told = f"{len(wheels)} wheels, {own} of them for this platform" if wheels else f"cannot be installed: {fault}"
            print(f"{platform.partition(',')[0]:<24} Python {python:<5} {told}", flush=True)
    return 0 if is_whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
