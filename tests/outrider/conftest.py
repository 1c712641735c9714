"""What tests of the command line share."""

import logging

import pytest

from outrider import cli, running


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
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in (None, *running.TOLD)}
    yield
    root.handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
