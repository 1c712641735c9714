"""``python -m loadtest``: one scenario from nothing to its report, on services that run or on ones that are started for it."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from loadtest import scenario as scenarios
from loadtest.scenario import Scenario
from loadtest.services import started
from outrider import cli
from speculation.errors import ConfigurationError

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
KEY_FLAGS = {"users": "--key-file", "abusers": "--abuser-key-file"}
INTERRUPTED = 130


def main(
    scenario: Annotated[str, typer.Option(metavar="NAME|FILE", help=f"{', '.join(scenarios.names())}; or a file.")] = "steady",
    agent: Annotated[str | None, typer.Option(metavar="URL", help="An agent that runs already.")] = None,
    verifier: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="A verifier that runs already.")] = None,
    key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The key that those want.")] = None,
    abuser_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="The key of the abusers.")] = None,
    report: Annotated[Path, typer.Option(metavar="DIR", help="Where the report goes.")] = Path("load-report"),
    seconds: Annotated[float | None, typer.Option(min=1, help="The same scenario in so many seconds.")] = None,
    users: Annotated[int | None, typer.Option(min=1, help="The same scenario with so many users at the most.")] = None,
) -> None:
    """Put load on an agent and a verifier, and report how they bore it. Without --agent and --verifier both are started."""
    if importlib.util.find_spec("locust") is None:
        raise ConfigurationError("Locust is missing: pip install 'outrider[load]'")
    told = scenarios.load(scenario).scaled(seconds, users)
    report.mkdir(parents=True, exist_ok=True)
    flags = [f"--scenario={scenario}", f"--report={report}", f"--csv={report / 'locust'}", f"--html={report / 'locust.html'}"]
    flags += [f"--stretch-to={seconds}"] if seconds else []
    flags += [f"--most-users={users}"] if users else []
    with _interruptible():
        if agent or verifier:
            raise typer.Exit(_on_given(told, agent, verifier, _keys(key_file, abuser_key_file), flags))
        raise typer.Exit(_on_own(told, report, flags))


def _on_given(told: Scenario, agent: str | None, verifier: str | None, keys: Mapping[str, Path], flags: Sequence[str]) -> int:
    """The exit code of a run on services that were there before."""
    come = told.reaching(bool(agent), bool(verifier)).groups
    if away := [group.name for group in told.groups if group not in come]:
        _say(f"without {'--verifier' if agent else '--agent'} these have nobody to call: {', '.join(away)}")
    return _locust(agent, verifier, keys, flags)


def _on_own(told: Scenario, report: Path, flags: Sequence[str]) -> int:
    """The exit code of a run on services that are started for it; an error in their logs is a failure, too."""
    _say("starting a verifier and an agent ...")
    with tempfile.TemporaryDirectory() as scratch, started(told, Path(scratch), report) as running:
        _say(f"{running.agent} and {running.verifier}: {told.title}, {told.seconds:g} s")
        code = _locust(running.agent, running.verifier, running.key_files, flags)
    complaints = running.complaints()
    for line in complaints:
        _say(line)
    return code or int(bool(complaints))


def _locust(agent: str | None, verifier: str | None, keys: Mapping[str, Path], flags: Sequence[str]) -> int:
    """The users, in a process of Locust's own. An interrupt is handed on, once: they stop, and the report is written. A second
    one ends them at once."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary", "--loglevel=WARNING"]
    command += [f"--host={agent}"] if agent else []
    command += [f"--verifier={verifier}"] if verifier else []
    command += [f"{KEY_FLAGS[tenant]}={file}" for tenant, file in keys.items()]
    process = subprocess.Popen([*command, *flags], process_group=0)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)  # on SIGTERM it would not wait for what is under way
        process.wait()
        return INTERRUPTED
    finally:
        process.kill()  # does nothing where it has ended
        process.wait()


def _keys(key_file: Path | None, abuser_key_file: Path | None) -> dict[str, Path]:
    return {tenant: file for tenant, file in (("users", key_file), ("abusers", abuser_key_file)) if file is not None}


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the block as an interrupt does, so that nothing that was started stays; an interrupt does even where a shell
    told to ignore it."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = [(number, signal.signal(number, interrupt)) for number in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command()(main)
    sys.exit(cli.run(lambda: app(standalone_mode=False)))
