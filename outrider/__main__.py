"""``python -m outrider``: the command, where its script is not on the path."""

from outrider.cli import main

main()
