"""The command ``outrider``, as its script and as ``python -m outrider``."""

import io
import os
import sys

INTERRUPTED = 130
STREAMS = ("stdin", "stdout", "stderr")
"""By their descriptors."""


def main() -> None:
    """Run the command and leave with its exit code. Loading it takes half a second, in which Ctrl-C is heard as later."""
    try:
        _open_what_is_closed()
        _write_what_is_no_text()
        from outrider.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _open_what_is_closed() -> None:
    """A stream that the caller closed becomes one to nowhere. Else Python has none, and the first socket or file that is opened
    gets its number, with all that a library in C writes there."""
    for number, name in enumerate(STREAMS):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _write_what_is_no_text() -> None:
    """Names come from the system as they are, and a terminal's encoding may lack what a text has: as escapes then, which is
    what standard error does. Else Python would end the command in the middle of a line."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
