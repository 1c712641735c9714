"""Keys on disk: the file of a service that says who may call it, and the file of a caller that holds its own key.

No key, and no text that could be one, stands in an error or in the log.
"""

from __future__ import annotations

import contextlib
import logging
import stat
import tomllib
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from speculation.errors import ConfigurationError
from speculation.tenants import BURST_S, MIN_KEY_LENGTH, Keyring, Limits, Tenant, digest_of, is_key

ENTRIES = "keys"
LIMITS = ("max_sessions", "tokens_per_s", "bytes_per_s", "burst_s")
FIELDS = ("tenant", "key", "sha256", *LIMITS)

_log = logging.getLogger(__name__)


def load_keys(path: Path) -> Keyring:
    """The keys of a service, from a TOML file; ``docs/operations.md`` tells its form. Warns where others can read it.

    Raises ``ConfigurationError`` with the file, the entry and the rule for what cannot be right.
    """
    keyring = read_keys(path)
    _warn_if_exposed(path)
    return keyring


def read_keys(path: Path) -> Keyring:
    """``load_keys`` without the warning, for whoever only checks."""
    require_no_pipe(path)
    entries = _parse(path).get(ENTRIES)
    if not isinstance(entries, list) or not entries:
        raise ConfigurationError(f"the key file {path} has no [[{ENTRIES}]]; without keys leave out the setting")
    tenants: dict[bytes, Tenant] = {}
    limits: dict[str, Limits] = {}
    for number, entry in enumerate(entries, 1):
        try:
            digest, tenant = _entry(entry)
            _require_new(digest, tenant, tenants, limits)
        except ValueError as error:
            raise ConfigurationError(f"the key file {path}, entry {number}: {error}") from None
        tenants[digest], limits[tenant.name] = tenant, tenant.limits
    return Keyring(tenants)


def load_key(path: Path) -> str:
    """A caller's own key: the one word in a file. Warns where others can read it. Raises what ``read_key`` raises."""
    key = read_key(path)
    _warn_if_exposed(path)
    return key


def read_key(path: Path) -> str:
    """``load_key`` without the warning. Raises ``ConfigurationError``, which does not show the key."""
    key = _read(path).strip()
    if not is_key(key):
        raise ConfigurationError(f"the key file {path} must hold one key, a word of plain characters, and nothing else")
    return key


def require_no_pipe(path: Path) -> None:
    """Raises ``ConfigurationError`` for what a shell makes of ``<(...)``: settings are checked before they are used, and behind
    the first reading a pipe is empty."""
    with contextlib.suppress(OSError):  # what reading it tells better
        if path.is_fifo():
            raise ConfigurationError(f"the key file {path} is a pipe, and it is read more than once: write it to a file")


def require_key(value: object, name: str) -> object:
    """The value of a setting that is a key, or None. Raises ``ConfigurationError``, which does not show it."""
    key = value.get_secret_value() if isinstance(value, SecretStr) else value
    if key is not None and not (isinstance(key, str) and is_key(key)):
        raise ConfigurationError(f"{name}: a key is one word of plain characters")
    return value


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        hint = "; make one with: outrider keys FOLDER" if isinstance(error, FileNotFoundError) else ""
        raise ConfigurationError(f"the key file {path} cannot be read: {error.strerror}{hint}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(f"the key file {path} is no text in UTF-8") from None


def _parse(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(_read(path))
    except tomllib.TOMLDecodeError as error:
        # The place only: what stands there may be a key.
        place = str(error).rpartition("(")[2].rstrip(")")
        raise ConfigurationError(f"the key file {path} is no valid TOML ({place})") from None
    except (RecursionError, ValueError):
        why = "it is nested too deep, or has a number too long"
        raise ConfigurationError(f"the key file {path} is no valid TOML: {why}") from None
    if set(content) - {ENTRIES}:
        raise ConfigurationError(f"the key file {path} holds more than [[{ENTRIES}]]")
    return content


def _entry(entry: Any) -> tuple[bytes, Tenant]:
    """The digest of an entry's key, and whose it is. Raises ``ValueError`` with the rule that it breaks."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"an entry is a table: write [[{ENTRIES}]]")
    if set(entry) - set(FIELDS):
        raise ValueError(f"it has a field that does not exist; known: {', '.join(FIELDS)}")
    name = entry.get("tenant")
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("tenant must be a name")
    return _digest(entry), Tenant(name, _limits(entry))


def _digest(entry: Mapping[str, Any]) -> bytes:
    if ("key" in entry) == ("sha256" in entry):
        raise ValueError("it must have either key or sha256")
    if "key" in entry:
        key = entry["key"]
        if not isinstance(key, str) or not is_key(key) or len(key) < MIN_KEY_LENGTH:
            raise ValueError(f"key must be one word of at least {MIN_KEY_LENGTH} plain characters")
        return digest_of(key)
    try:
        digest = bytes.fromhex(entry["sha256"])
    except (TypeError, ValueError):
        digest = b""
    if len(digest) != len(digest_of("")):
        raise ValueError("sha256 must be the SHA-256 digest of a key, 64 hexadecimal digits")
    return digest


def _limits(entry: Mapping[str, Any]) -> Limits:
    max_sessions = entry.get("max_sessions")
    if max_sessions is not None and (not isinstance(max_sessions, int) or isinstance(max_sessions, bool) or max_sessions < 1):
        raise ValueError("max_sessions must be a whole number, 1 or more")
    return Limits(
        max_sessions,
        _positive(entry, "tokens_per_s"),
        _positive(entry, "bytes_per_s"),
        _positive(entry, "burst_s") or BURST_S,
    )


def _positive(entry: Mapping[str, Any], name: str) -> float | None:
    value = entry.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a number above 0")
    return float(value)


def _require_new(digest: bytes, tenant: Tenant, tenants: Mapping[bytes, Tenant], limits: Mapping[str, Limits]) -> None:
    if digest in tenants:
        raise ValueError("its key stands in an earlier entry, too")
    if limits.get(tenant.name, tenant.limits) != tenant.limits:
        raise ValueError(f"tenant {tenant.name!r} has other limits in an earlier entry")


def _warn_if_exposed(path: Path) -> None:
    if path.stat().st_mode & stat.S_IROTH:
        _log.warning("the key file %s can be read by everybody on this machine: chmod 600 %s", path, path)
