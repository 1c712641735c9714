"""Files that appear whole or not at all: written under another name, put in place at the end."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speculation.engines.files import file_digest, require
from speculation.errors import InvalidRequestError, PackageError


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` that takes its name at the end of the block, and goes away where the block fails.

    Raises ``PackageError`` for what the file system refuses.
    """
    folder = _partial(out.parent, out.name)
    try:
        with _ended_by_sigterm():
            folder.mkdir(parents=True)
            yield folder
            folder.rename(out)
    except OSError as error:
        raise PackageError(f"{out} could not be made: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def staged_files(folder: Path, last: str) -> Iterator[Path]:
    """A folder inside ``folder`` whose files move to the same places in ``folder`` at the end of the block.

    ``last`` moves last and is the only one that may replace a file, in one step: who reads it sees the old one, or the new one
    with all others there. Where the block or a move fails, ``folder`` is left as it was. Raises ``PackageError`` for a file
    that is in the way and for what the file system refuses.
    """
    staged = _partial(folder, "new")
    try:
        with _ended_by_sigterm():
            staged.mkdir()
            yield staged
            _move(staged, folder, last)
    except OSError as error:
        raise PackageError(f"{folder} could not be added to: {error}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def check_is_free(out: Path) -> None:
    """Raises ``InvalidRequestError`` unless ``out`` is not there, or an empty folder, and can be put in place in one step."""
    is_taken = out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir())))
    if is_taken:
        raise InvalidRequestError(f"{out} exists already; name a new or an empty folder", "out")
    check_takes_its_name(out)


def check_takes_its_name(out: Path) -> None:
    """Raises ``InvalidRequestError`` where the system would refuse, at the end of all work, to rename a folder to this."""
    if out.name in ("", ".."):
        raise InvalidRequestError(f"{out} is not the name of a folder to make", "out")
    if os.path.ismount(out):
        raise InvalidRequestError(
            f"{out} cannot be put in place in one step: a file system is mounted there; name a folder in it", "out"
        )


def digests_of(folder: Path) -> dict[str, str]:
    """The digest of every file of a folder, by its path in it."""
    return {name: file_digest(folder / name) for name in _names(folder)}


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, where nobody hears it: else it ends the process, and what was written stays."""
    is_heard = signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    if is_heard or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _leave(number: int, _: object) -> None:
    raise SystemExit(128 + number)


def _partial(parent: Path, name: str) -> Path:
    return parent / f".{name}.{secrets.token_hex(4)}.partial"


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _move(staged: Path, folder: Path, last: str) -> None:
    names, moved = [name for name in _names(staged) if name != last], list[Path]()
    try:
        for name in names:
            target = folder / name
            target.parent.mkdir(exist_ok=True)
            require(not target.exists(), f"{target} is there, though {last} does not list it; take it away and try again")
            moved.append(target)
            (staged / name).rename(target)
        (staged / last).replace(folder / last)
    except BaseException:
        # An interrupt may come just after the last move; then all is done, and nothing may be taken back.
        if (staged / last).exists():
            _take_back(moved)
        raise


def _take_back(moved: list[Path]) -> None:
    for path in moved:
        path.unlink(missing_ok=True)
    for parent in {path.parent for path in moved}:
        if not any(parent.iterdir()):
            parent.rmdir()
