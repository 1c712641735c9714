"""Where models are downloaded from: a repository of the Hugging Face hub, or a folder. Both give names, sizes and files."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from speculation.engines.files import file_digest
from speculation.errors import ConfigurationError, InvalidRequestError, LinkError, OutriderError, PackageError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
EXTRA = "pip install 'outrider[hub]'"
BLOCK_BYTES = 1 << 20
PART = ".part"

Told = Callable[[str, int, int], None]
"""Told as a file comes: its name, bytes that are here, and bytes in all."""


class Source(Protocol):
    """A place that a model is taken from. ``version`` names what is taken in one word, where the place has versions."""

    @property
    def version(self) -> str | None: ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes of each file, by its path."""

    def has_same(self, name: str, path: Path) -> bool:
        """Whether a file that is here holds what ``name`` holds there."""

    def fetch(self, name: str, folder: Path, tell: Told) -> Path:
        """Bring a file into a folder, whole or not at all; one that is there and is the same is not brought again. Raises
        ``PackageError`` for what the file system refuses, and ``LinkError`` where the place cannot be reached."""


def source_of(name: str, revision: str | None, endpoint: str | None = None) -> Source:
    """A folder where there is one of this name, else a repository. Raises ``InvalidRequestError`` for what can be neither."""
    if folder_of(name).is_dir():
        if revision is not None:
            raise InvalidRequestError(f"{name} is a folder, which has no revisions; leave --revision out", "revision")
        return FolderSource(folder_of(name))
    if not HUB_NAME.fullmatch(name):
        raise InvalidRequestError(f"{name} is no folder, nor a name as the Hugging Face hub has them (OWNER/NAME)", "source")
    return HubSource(name, revision, endpoint)


def folder_of(name: str) -> Path:
    """The folder that a source may be; a home that no shell put in place of its ``~`` is. Raises ``InvalidRequestError`` for an
    empty name, which would be this folder."""
    if not name:
        raise InvalidRequestError("an empty name is no source: a folder is, or a repository of the hub (OWNER/NAME)", "source")
    return Path(os.path.expanduser(name))  # pathlib would raise where nobody has such a home


class FolderSource:
    """A folder of this machine, or one that is mounted. Links to files are followed: what arrives is plain files."""

    version = None

    def __init__(self, path: Path) -> None:
        self._path = path
        files = (file for file in path.rglob("*") if file.is_file())
        self.sizes: Mapping[str, int] = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}

    def has_same(self, name: str, path: Path) -> bool:
        return path.stat().st_size == self.sizes[name] and file_digest(path) == file_digest(self._path / name)

    def fetch(self, name: str, folder: Path, tell: Told) -> Path:
        target, size = folder / name, self.sizes[name]
        try:
            if target.is_file() and self.has_same(name, target):
                tell(name, size, size)
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = target.with_name(target.name + PART)
            read = _copied(self._path / name, partial, lambda done: tell(name, done, size))
            if file_digest(partial) != read:
                raise PackageError(f"{partial} is not what was read from {self._path / name}; is the disk sound? Try again")
            partial.replace(target)
        except OSError as error:
            raise refused(error, name) from error
        return target


class HubSource:
    """A repository of the Hugging Face hub at one commit, by the library ``huggingface_hub``, which knows where the hub is
    (``HF_ENDPOINT``), who asks, and how a connection that broke is taken up.

    Raises ``ConfigurationError`` without the extra, ``InvalidRequestError`` for a repository or revision that does not exist or
    is not open to who asks, ``LinkError`` where the hub cannot be reached.
    """

    def __init__(self, name: str, revision: str | None, endpoint: str | None = None) -> None:
        self._hub, self._name, self._endpoint = _library(), name, endpoint
        try:
            info = self._hub.HfApi(endpoint=endpoint).model_info(name, revision=revision, files_metadata=True)
        except Exception as error:
            raise self._mapped(error, revision) from error
        self.version: str = info.sha
        self.sizes: Mapping[str, int] = {file.rfilename: file.size or 0 for file in info.siblings or ()}
        self._digests = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs is not None}
        self._blobs = {file.rfilename: file.blob_id for file in info.siblings or () if file.lfs is None}

    def has_same(self, name: str, path: Path) -> bool:
        if name in self._digests:
            return file_digest(path) == str(self._digests[name])
        return path.stat().st_size == self.sizes[name] and _git_name(path.read_bytes()) == str(self._blobs[name])

    def fetch(self, name: str, folder: Path, tell: Told) -> Path:
        size = self.sizes[name]
        bar = _telling(self._hub, lambda done: tell(name, min(done, size), size))
        place = {"revision": self.version, "local_dir": folder, "endpoint": self._endpoint}
        try:
            path = Path(self._hub.hf_hub_download(self._name, name, tqdm_class=bar, **place))
            tell(name, size, size)
            is_same = self.has_same(name, path)
        except Exception as error:
            raise self._mapped(error, self.version) from error
        if not is_same:
            path.unlink()
            raise PackageError(f"{name} did not arrive as the hub's digest of it says; it was removed, try again")
        return path

    def _mapped(self, error: Exception, revision: str | None) -> OutriderError:
        errors = self._hub.errors
        where = f"{self._name}" + (f" at {revision}" if revision else "")
        if isinstance(error, errors.GatedRepoError):
            return InvalidRequestError(
                f"{where} is open only to those who took its terms: do so, then `hf auth login`", "source"
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return InvalidRequestError(f"{where} is not on the hub: {self._name} has no such revision", "revision")
        if isinstance(error, errors.RepositoryNotFoundError):
            hint = "mind the spelling; of one that is private `hf auth login` is needed"
            return InvalidRequestError(f"{where} is not on the hub ({hint}), and there is no folder of this name", "source")
        if isinstance(error, errors.HFValidationError):
            return InvalidRequestError(f"{where}: {error}", "source")
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            return refused(error, where)
        return LinkError(f"{where} could not be had from the hub; the same command goes on with what is missing: {error}")


def refused(error: OSError, what: str) -> PackageError:
    """What the file system says, and that nothing is lost."""
    hint = "make room; the same command goes on" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "the same command goes on"
    return PackageError(f"{what} could not be written: {error}; {hint}")


def _copied(source: Path, target: Path, tell: Callable[[int], None]) -> str:
    """Copies a file block by block; gives the SHA-256 of what was read."""
    digest, done = hashlib.sha256(), 0
    with source.open("rb") as read, target.open("wb") as written:
        while block := read.read(BLOCK_BYTES):
            digest.update(block)
            written.write(block)
            tell(done := done + len(block))
    return digest.hexdigest()


def _git_name(content: bytes) -> str:
    """What git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _library() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ConfigurationError(f"the Hugging Face hub needs an extra: {EXTRA}; a folder needs none ({error})") from error
    return huggingface_hub


def _telling(hub: Any, tell: Callable[[int], None]) -> Any:
    """The library's progress bar, which draws nothing and tells how many bytes there are."""
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *arguments: Any, **settings: Any) -> None:
            self._done = int(settings.get("initial") or 0)
            super().__init__(*arguments, **settings | {"disable": True})

        def update(self, count: float | None = 1) -> bool | None:
            self._done += int(count or 0)
            tell(self._done)
            return None

    return Bar
