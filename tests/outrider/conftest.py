"""What tests of the command line share."""

import logging
import os

import pytest

from outrider import cli, services
from speculation.engines import sharing
from speculation.telemetry.logs import HEARD_IN_JSON


@pytest.fixture
def outrider(capsys):
    """Runs the command; gives its exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.run(lambda: cli.app([str(a) for a in arguments], standalone_mode=False))
        return code, *capsys.readouterr()

    return run


@pytest.fixture(autouse=True)
def log_as_before():
    """A service that starts sets up the log of its process, which here is that of all other tests too."""
    root = logging.getLogger()
    handlers, levels = (
        root.handlers[:],
        {name: logging.getLogger(name).level for name in (None, *services.TOLD, *HEARD_IN_JSON)},
    )
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture(autouse=True)
def processors_as_before(monkeypatch):
    """A verifier that starts sets how its threads share the processors, and what it starts takes that over."""
    monkeypatch.setattr(sharing, "_is_processor_shared", False)
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy = os.sched_getscheduler(0)
    yield
    os.sched_setscheduler(0, policy, os.sched_param(0))
