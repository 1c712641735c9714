"""A verifier and an agent of one's own for a load test: processes on free loopback ports, with keys, ended with the block."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from loadtest.scenario import Limits, Scenario, Setting
from outrider.key_folder import KEY, KEYS, make_keys
from speculation.errors import ConfigurationError

START_LIMIT_S = 120.0
"""The self-test of a full model takes seconds, and longer where the machine is busy."""
STOP_LIMIT_S = 30.0
TENANTS = ("users", "abusers")
SUSPICIOUS = ("ERROR", "CRITICAL", "Traceback", "Exception")


@dataclass(frozen=True, slots=True)
class Running:
    """Where the services are, the key of each tenant, and their logs."""

    agent: str
    verifier: str
    key_files: Mapping[str, Path]
    logs: Mapping[str, Path]

    def complaints(self) -> list[str]:
        """Lines of the logs that tell of an error."""
        found = []
        for name, log in self.logs.items():
            lines = log.read_text("utf-8", "replace").splitlines()
            found += [f"{name}: {line}" for line in lines if any(word in line for word in SUSPICIOUS)]
        return found


@contextmanager
def started(scenario: Scenario, scratch: Path, report: Path) -> Iterator[Running]:
    """Both services while the block runs; keys and settings lie in ``scratch``, logs in ``report``.

    Raises ``ConfigurationError`` where one does not come up; its log says why.
    """
    keys = [_key(scratch, tenant) for tenant in TENANTS]
    keys_file = scratch / KEYS
    _write_private(keys_file, keys_toml(scratch, scenario.limits))
    key_files = dict(zip(TENANTS, keys, strict=True))
    logs = {name: report / f"{name}.log" for name in ("verifier", "agent")}
    own: dict[str, Setting] = {"port": 0, "keys": str(keys_file)}
    with ExitStack() as stack:
        settings: dict[str, Setting] = {**scenario.services.verifier, **own}
        verifier = stack.enter_context(service("verifier", _command("verifier", settings, scratch), logs["verifier"]))
        settings = {**scenario.services.agent, **own, "verifier": verifier, "verifier_key_file": str(key_files["users"])}
        agent = stack.enter_context(service("agent", _command("agent", settings, scratch), logs["agent"]))
        yield Running(agent, verifier, key_files, logs)


def keys_toml(scratch: Path, limits: Limits) -> str:
    """One file that lets all tenants in, the abusers within their limits."""
    entries = [(scratch / tenant / KEYS).read_text("utf-8") for tenant in TENANTS]
    given = limits.model_dump(exclude_none=True)
    return "\n".join(entries) + "".join(f"{name} = {value}\n" for name, value in given.items())


def settings_toml(settings: Mapping[str, Setting]) -> str:
    """Settings as a file holds them; JSON's numbers, words and strings are TOML's, too."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items())


def _key(scratch: Path, tenant: str) -> Path:
    make_keys(scratch / tenant, tenant)
    return scratch / tenant / KEY


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, "utf-8")


def _command(verb: str, settings: Mapping[str, Setting], scratch: Path) -> list[str]:
    config = scratch / f"{verb}.toml"
    config.write_text(settings_toml(settings), "utf-8")
    return [sys.executable, "-m", "outrider", verb, "--config", str(config)]


@contextmanager
def service(verb: str, command: Sequence[str], log: Path) -> Iterator[str]:
    """A process while the block runs; gives where it listens, as told on standard error. Raises ``ConfigurationError``."""
    # A group of its own: an interrupt from the keyboard is the users' first, and what they stream comes to its end.
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, process_group=0)
    assert process.stderr is not None
    address: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_keep, args=(process.stderr, log, f"{verb} on ", address), daemon=True)
    reader.start()
    try:
        yield _heard(verb, address, log)
    finally:
        _end(process)
        reader.join()


def _keep(stream: IO[bytes], log: Path, ready: str, address: queue.SimpleQueue[str | None]) -> None:
    """Keep what a service says; tell its address once, None where it ended without one."""
    with stream, log.open("wb", buffering=0) as file:
        for line in stream:
            file.write(line)
            if (text := _said(line.decode("utf-8", "replace"))).startswith(ready):
                address.put(text.removeprefix(ready).partition(",")[0].strip())  # behind a comma: where its figures are
    address.put(None)


def _said(line: str) -> str:
    """What a line of a service's says, where its log is JSON, too."""
    try:
        entry = json.loads(line)
    except ValueError:
        return line
    return str(entry.get("message", "")) if isinstance(entry, dict) else line


def _heard(verb: str, address: queue.SimpleQueue[str | None], log: Path) -> str:
    try:
        found = address.get(timeout=START_LIMIT_S)
    except queue.Empty:
        raise ConfigurationError(f"the {verb} did not come up within {START_LIMIT_S:g} s; see {log}") from None
    if found is None:
        said = log.read_text("utf-8", "replace").strip().splitlines()
        raise ConfigurationError(f"the {verb} ended at once: {said[-1] if said else 'it said nothing'}")
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Let it drain; end it for good where it takes too long."""
    process.terminate()
    try:
        process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
