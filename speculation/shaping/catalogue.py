"""Profiles by name: those that come with the program and, beside them, those in a folder of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from speculation.errors import ConfigurationError, UnknownNameError
from speculation.shaping import figures, profiles
from speculation.shaping.profiles import UNSHAPED, CloudProfile, NetworkProfile, PhoneProfile

SUFFIX = ".toml"

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Kind(Generic[P]):
    """One kind of profile: what it is called, its class, and the bundled ones. Its files lie in a folder ``name`` + ``s``."""

    name: str
    profile: type[P]
    bundled: Callable[[str], P]
    bundled_names: Callable[[], tuple[str, ...]]

    @property
    def folder(self) -> str:
        return self.name + "s"


PHONES = Kind("phone", PhoneProfile, profiles.phone, profiles.phones)
NETWORKS = Kind("network", NetworkProfile, profiles.network, profiles.networks)
CLOUDS = Kind("cloud", CloudProfile, profiles.cloud, profiles.clouds)
FOLDERS = (PHONES.folder, NETWORKS.folder, CLOUDS.folder)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Where names are looked up. ``folder`` holds ``phones/NAME.toml``, ``networks/…`` and ``clouds/…``, any of the three.

    A file in ``folder`` goes before the bundled profile of its name: who named the folder means what is in it, and a name that
    a later release brings does not change a run. ``none`` alone cannot be given another meaning.
    Raises ``ConfigurationError`` for a folder that holds no profiles, and for a file that breaks a rule (file, line, rule);
    ``UnknownNameError``, with the names that exist, for a name that does not.
    """

    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        if not self.folder.is_dir():
            raise ConfigurationError(f"profiles: {self.folder} is not a folder; name the one that holds {', '.join(FOLDERS)}")
        if not any((self.folder / name).is_dir() for name in FOLDERS):
            raise ConfigurationError(f"profiles: {self.folder} holds none of the folders {', '.join(FOLDERS)}")
        kinds: tuple[Kind[Any], ...] = (PHONES, NETWORKS, CLOUDS)
        for kind in kinds:
            if UNSHAPED in self.own_names(kind):
                file = self.file(kind, UNSHAPED)
                raise ConfigurationError(f"{file}: the name {UNSHAPED!r} stands for nothing emulated; choose another")

    def phone(self, name: str) -> PhoneProfile:
        return self.load(PHONES, name)

    def network(self, name: str) -> NetworkProfile:
        return self.load(NETWORKS, name)

    def cloud(self, name: str) -> CloudProfile:
        return self.load(CLOUDS, name)

    def names(self, kind: Kind[Any]) -> tuple[str, ...]:
        """Every name of a kind, sorted."""
        return tuple(sorted({*kind.bundled_names(), *self.own_names(kind)}))

    def own_names(self, kind: Kind[Any]) -> tuple[str, ...]:
        """The names of the user's own, sorted."""
        if self.folder is None or not (self.folder / kind.folder).is_dir():
            return ()
        try:
            found = [file.name for file in (self.folder / kind.folder).iterdir()]
        except OSError as error:
            raise ConfigurationError(f"{self.folder / kind.folder} cannot be read: {error.strerror}") from error
        return tuple(sorted(name.removesuffix(SUFFIX) for name in found if name.endswith(SUFFIX) and name[0] != "."))

    def file(self, kind: Kind[Any], name: str) -> Path | None:
        """The user's file of that name; None where it is a bundled profile."""
        if self.folder is None or name not in self.own_names(kind):
            return None
        return self.folder / kind.folder / (name + SUFFIX)

    def load(self, kind: Kind[P], name: str) -> P:
        """A profile of a kind by name."""
        file = self.file(kind, name)
        if file is not None:
            return figures.load(kind.profile, name, _text(file), str(file))
        if name not in kind.bundled_names():
            raise UnknownNameError(kind.name, name, self.names(kind))
        return kind.bundled(name)


BUNDLED = Catalogue()
"""The profiles that come with the program, and no others."""


def _text(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{file} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}") from error
