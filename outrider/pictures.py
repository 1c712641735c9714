"""Pictures that commands draw at their end: whether their file can be written is known before anything is computed."""

from __future__ import annotations

import os
from pathlib import Path

from speculation.errors import InvalidRequestError


def check_can_be_drawn(file: Path, flag: str) -> None:
    """Leaves no trace: what is there stays as it is. Raises ``InvalidRequestError``, which names the flag."""
    try:
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise InvalidRequestError(f"--{flag} {file}: name a file in a folder that is there", flag)
        if file.is_file():
            file.open("ab").close()
        elif not os.path.lexists(file):  # else a pipe, say, whose other end would wait for what is written
            file.open("xb").close()
            file.unlink()
    except OSError as error:
        raise InvalidRequestError(f"--{flag} {file} cannot be written: {error.strerror}", flag) from error
