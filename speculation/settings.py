"""How a service is configured: defaults < TOML file < environment < flags, checked once, then frozen and handed down.

``Settings`` is the base of each service's one configuration; ``load_settings`` is the only place that reads the environment.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from speculation.errors import ConfigurationError
from speculation.listening import is_loopback
from speculation.protocol.cover import Cover

FILE_VARIABLE = "CONFIG"


class Settings(BaseSettings):
    """A frozen configuration. Constructed directly it reads nothing but its arguments.

    Raises ``ConfigurationError`` for a value that cannot work and for a key that does not exist (those that do are listed).
    """

    model_config = SettingsConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values: Any) -> None:
        refuse_unknown(values, type(self).model_fields, "configuration")
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigurationError(_describe(error)) from error

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *others: Any, **more: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


S = TypeVar("S", bound=Settings)


def load_settings(cls: type[S], file: Path | None, env_prefix: str, flags: Mapping[str, Any] | None = None) -> S:
    """A configuration of class ``cls`` from all its sources, later ones first: flags, environment, file, defaults.

    ``file`` None takes the path in the variable ``env_prefix`` + ``CONFIG``, where that is set. A flag that is None was not
    given. Raises ``ConfigurationError``: unknown key in any source, unreadable file, value that cannot work.
    """
    environment = EnvSettingsSource(cls, env_prefix=env_prefix, case_sensitive=False)
    prefix = env_prefix.lower()
    given = {name.removeprefix(prefix): value for name, value in environment.env_vars.items() if name.startswith(prefix)}
    named_file = given.pop(FILE_VARIABLE.lower(), None)
    refuse_unknown(given, cls.model_fields, "environment", env_prefix)
    path = file or (Path(named_file) if named_file else None)
    from_file = read_toml(path) if path else {}
    refuse_unknown(from_file, cls.model_fields, str(path))
    from_flags = {name: value for name, value in (flags or {}).items() if value is not None}
    return cls(**from_file | _read(environment) | from_flags)


def _read(environment: EnvSettingsSource) -> dict[str, Any]:
    try:
        return environment()
    except SettingsError as error:
        raise ConfigurationError(f'{error}; there a list is written as JSON, like ["a", "b"]') from error


def read_toml(path: Path) -> dict[str, Any]:
    """The keys of a TOML file. Raises ``ConfigurationError`` when it cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except (RecursionError, ValueError) as error:  # bytes that are no UTF-8, and a number of thousands of digits, too
        raise ConfigurationError(f"the configuration file {path} is no valid TOML: {error}") from error


def refuse_unknown(given: Iterable[str], known: Iterable[str], where: str, prefix: str = "") -> None:
    """Raises ``ConfigurationError`` when a key of ``given`` is not ``known``; the message lists those that are."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        shown = ", ".join(f"{prefix}{key.upper()}" if prefix else key for key in unknown)
        names = ", ".join(f"{prefix}{key.upper()}" if prefix else key for key in sorted(known))
        raise ConfigurationError(f"unknown key in {where}: {shown}; known: {names}")


def require_one_source(pair: Path | None, draft: Path | None, full: Path | None) -> None:
    """Raises ``ConfigurationError`` unless the models are named in one way: as a pair, as two folders, or not at all; and for
    a path that is no folder."""
    named = {name: path for name, path in (("pair", pair), ("draft", draft), ("full", full)) if path is not None}
    if list(named) not in ([], ["pair"], ["draft", "full"]):
        raise ConfigurationError(f"models are named by pair, or by draft and full together, not by {' and '.join(named)}")
    for name, path in named.items():
        if not path.is_dir():
            raise ConfigurationError(f"{name}: {path} is not a folder; name the one that the model's files are in")


def require_cover(cover: Cover, max_message_bytes: int | None = None) -> None:
    """Raises ``ConfigurationError`` for a cover that no stream gets, and for padding beyond the largest message."""
    if cover.fault is not None:
        raise ConfigurationError(cover.fault)
    if max_message_bytes is not None and cover.pad_bytes > max_message_bytes:
        raise ConfigurationError(f"pad_bytes must be at most max_message_bytes, {max_message_bytes} (got {cover.pad_bytes})")


def require_loopback(host: str, insecure: bool, has_keys: bool = False) -> None:
    """Raises ``ConfigurationError`` when ``host`` is not this machine alone, no key is asked for and nobody said that this is
    wanted."""
    if not (insecure or has_keys or is_loopback(host)):
        raise ConfigurationError(
            f"host {host!r} can be reached from other machines and nothing guards it:"
            " name a file of keys, or bind 127.0.0.1, or set insecure"
        )


def _describe(error: ValidationError) -> str:
    """Every fault in one line each: the key, what was wrong, what was given."""
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in fault["loc"])
        lines.append(f"{key}: {fault['msg']} (got {fault['input']!r})" if key else str(fault["msg"]))
    return "; ".join(lines)
