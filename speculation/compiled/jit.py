"""How functions are compiled: kept on disk, and run without the interpreter.

Numba notices a change of the file that a function stands in, by its time and size, and none of the files it takes others from.
So what it keeps lies in a folder that is named after the text of all of them.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])

_HERE = Path(__file__).parent
_SOURCES = (*sorted(_HERE.glob("*.py")), _HERE.parent / "choice.py", _HERE.parent / "noise.py", _HERE.parent / "truncation.py")


def compiled(function: F, **options: object) -> F:
    """As machine code for the types it is called with: made at the first call, or found where an earlier process left it."""
    before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _FOLDER
    try:
        made: F = numba.njit(function, cache=bool(_FOLDER), nogil=True, **options)
    finally:
        numba.config.CACHE_DIR = before
    return made


def only_form_of(function: F) -> F:
    """A compiled function as it is called with the types that it was called with before: Numba would look at the types of all
    that it is given at every call, which takes as long as a small choice."""
    made: Any = function
    (types,) = made.signatures
    form: F = made.get_overload(types)
    return form


def inlined(function: F) -> F:
    """As ``compiled``, and written into each of its callers, whose loops the processor can then take several at a time."""
    return compiled(function, inline="always")


def reordered(function: F) -> F:
    """As ``compiled``, for sums that are exact in any order: the processor adds several at a time."""
    return compiled(function, fastmath={"reassoc"})


def _folder() -> str:
    """Where machine code is kept: beside Python's own, or in the user's cache. Empty where neither can be written to."""
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in _SOURCES)).hexdigest()[:16]
    given = numba.config.CACHE_DIR
    for parent in [Path(given)] if given else [_HERE / "__pycache__", Path("~/.cache/outrider")]:
        try:
            folder = parent.expanduser() / f"compiled-{digest}"
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except (OSError, RuntimeError):  # the latter from a user without a home
            continue
        return str(folder)
    return ""


_FOLDER = _folder()
