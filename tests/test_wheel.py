"""The wheel alone, outside the checkout: everything that the demo needs is inside it."""

import json
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from device_agent import page

CHECKOUT = Path(__file__).resolve().parents[1]
UNSHAPED = ["--phone", "none", "--network", "none", "--cloud", "none"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def run(*command, cwd):
    """Standard output of a command that must succeed, with nothing of this environment's but the search path for programs."""
    done = subprocess.run(
        command, cwd=cwd, env={"PATH": "/usr/bin:/bin", "HOME": str(cwd)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(folder),
        CHECKOUT,
        cwd=folder,
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new environment with the wheel installed; its dependencies are borrowed from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel), cwd=folder)
    site = folder / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "env"


def test_the_wheel_holds_the_pair_the_licences_and_the_type_markers(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    wanted = [
        "outrider/models/pydoc/pair.json",
        "outrider/models/pydoc/prompts.json",
        "outrider/py.typed",
        "speculation/py.typed",
        *(f"device_agent/static/{name}" for name in page.FILES),
        *(f"device_agent/templates/{name}" for name in ("api.html", "api.css")),
    ]
    assert [name for name in wanted if name not in names] == []
    assert {Path(name).name for name in names if ".dist-info/licenses/" in name} == {"LICENSE", "NOTICE"}
    assert not [name for name in names if name.startswith(("tests/", "models/", "benchmarks/"))]


def test_the_wheel_is_for_every_system(wheel):
    assert wheel.name.endswith("-py3-none-any.whl")


def test_nothing_of_the_checkout_is_used(environment):
    paths = run(
        environment / "bin" / "python", "-c", "import outrider, speculation; print(speculation.__file__)", cwd=environment
    )
    assert paths.startswith(str(environment))


def test_the_demo_runs_from_the_wheel(environment):
    lines = run(
        environment / "bin" / "outrider", "demo", "--json", "--max-tokens", "12", *UNSHAPED, cwd=environment
    ).splitlines()
    events = [json.loads(line) for line in lines]
    assert events[-1]["event"] == "comparison"
    assert events[-1]["is_same_text"]
    assert [event["run"] for event in events if event["event"] == "done"] == ["collaborate", "cloud", "device"]
