"""What tests of the command line share."""

import pytest

from outrider import cli


@pytest.fixture
def outrider(capsys):
    """Runs the command; gives its exit code, standard output and standard error."""

    def run(*arguments):
        code = cli.run(lambda: cli.app([str(a) for a in arguments], standalone_mode=False))
        return code, *capsys.readouterr()

    return run
