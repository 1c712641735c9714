"""The command ``outrider``, as its script and as ``python -m outrider``."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command and leave with its exit code. Loading it takes half a second, in which Ctrl-C is heard as later."""
    try:
        from outrider.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
