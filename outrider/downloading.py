"""`outrider models download`: the files of a model that load, brought here, checked, and then put in place as a whole."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outrider.checking import verified_digest
from outrider.sources import PART, Source, Told, refused, source_of
from speculation.engines.selection import files_of
from speculation.engines.staging import check_takes_its_name
from speculation.errors import CapacityError, InvalidRequestError, PackageError

DIGEST = re.compile(r"[0-9a-f]{64}")
HALVES = (f"*{PART}", "*.incomplete")
"""What a file is called that has not come whole, here and by the hub's library. Nobody goes on with one."""


@dataclass(frozen=True, slots=True)
class Download:
    """What to bring from where. ``expect``: the digest that the model must have."""

    source: str
    out: Path
    variants: Sequence[str] = ()
    revision: str | None = None
    expect: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What lies in ``out`` now. ``version`` is the commit of a repository. ``was_there``: all of it lay there before."""

    out: Path
    files: tuple[str, ...]
    num_bytes: int
    digest: str
    version: str | None
    was_there: bool


def download(wanted: Download, tell: Told = lambda name, done, total: None) -> Downloaded:
    """Bring a model. It grows in a hidden folder beside ``out``, which a later call goes on with, and takes its name once it is
    whole and checked.

    Raises ``InvalidRequestError`` for a source that is none, a choice that is left open, and an ``out`` that holds something
    else; ``PackageError`` for what is no model, is damaged, or has another digest than was expected; ``CapacityError`` where
    the disk is too small; ``LinkError`` where the hub cannot be reached; ``ConfigurationError`` where its library is missing.
    """
    if wanted.expect is not None and not DIGEST.fullmatch(wanted.expect):
        raise InvalidRequestError(f"a digest has 64 hexadecimal digits in lower case, not {wanted.expect!r}", "expect")
    if wanted.out.name in ("", ".."):
        raise InvalidRequestError(f"{wanted.out} is not the name of a folder to make", "out")
    if not _holds(wanted.out):
        check_takes_its_name(wanted.out)
    source = source_of(wanted.source, wanted.revision, wanted.endpoint)
    partial = wanted.out.parent / f".{wanted.out.name}.download"
    names = _chosen(source, wanted, partial)
    was_there = _holds(wanted.out)
    if was_there:
        shutil.rmtree(partial)
        _check_same(wanted.out, source, names)
        digest = _checked(wanted.out, wanted)
    else:
        digest = _brought(source, names, partial, wanted, tell)
    num_bytes = sum(source.sizes[name] for name in names)
    return Downloaded(wanted.out, tuple(names), num_bytes, digest, source.version, was_there)


def _chosen(source: Source, wanted: Download, partial: Path) -> list[str]:
    """The files to bring; those that say so are in ``partial`` then."""
    is_new = not partial.exists()
    _make(partial)
    try:
        return files_of(source.sizes.keys(), wanted.variants, lambda name: source.fetch(name, partial, lambda *_: None))
    except (InvalidRequestError, PackageError):
        if is_new:
            shutil.rmtree(partial)
        raise


def _brought(source: Source, names: Sequence[str], partial: Path, wanted: Download, tell: Told) -> str:
    _drop_halves(partial)
    _check_room(partial, source, names)
    for name in names:
        source.fetch(name, partial, tell)
    _drop_others(partial, names)
    digest = _checked(partial, wanted)
    _put_in_place(partial, wanted.out)
    return digest


def _make(partial: Path) -> None:
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise refused(error, str(partial)) from error


def _holds(out: Path) -> bool:
    """Whether something lies at ``out`` already."""
    return out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir())))


def _check_same(out: Path, source: Source, names: Sequence[str]) -> None:
    """Raises ``InvalidRequestError`` unless ``out`` is a folder with these very files."""
    here = {path.relative_to(out).as_posix(): path for path in _files(out)} if out.is_dir() and not out.is_symlink() else {}
    others = sorted(here.keys() - set(names))
    differ = [name for name in names if name not in here or not source.has_same(name, here[name])]
    if others or differ:
        has = f"holds {', '.join(others[:4])} besides" if others else f"has not the same {', '.join(differ[:4])}"
        raise InvalidRequestError(f"{out} exists already, and {has}; name a new or an empty folder", "out")


def _check_room(partial: Path, source: Source, names: Sequence[str]) -> None:
    needed = sum(source.sizes[name] for name in names if not (partial / name).is_file())
    free = shutil.disk_usage(partial).free
    if needed > free:
        raise CapacityError(
            f"{needed / 1e9:.2f} GB are to come, and {free / 1e9:.2f} GB are free at {partial.parent}; make room"
        )


def _drop_halves(partial: Path) -> None:
    """What a command that was stopped left of a file: it would take the room of the file itself."""
    for half in [half for pattern in HALVES for half in partial.rglob(pattern)]:
        half.unlink(missing_ok=True)


def _drop_others(partial: Path, names: Sequence[str]) -> None:
    """What an earlier call left that is not part of the model, and what the hub's library keeps for going on."""
    for path in _files(partial):
        if path.relative_to(partial).as_posix() not in names:
            path.unlink()
    for folder in sorted((p for p in partial.rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def _checked(folder: Path, wanted: Download) -> str:
    digest = verified_digest(folder)
    if wanted.expect not in (None, digest):
        left = f"{wanted.out} was there already, and is left as it is"
        if folder != wanted.out:
            shutil.rmtree(folder)
            left = "it was not kept"
        raise PackageError(f"the digest of {wanted.source} is {digest}, and {wanted.expect} was expected; {left}")
    return digest


def _put_in_place(partial: Path, out: Path) -> None:
    try:
        if out.is_dir():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise refused(error, str(out)) from error


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
