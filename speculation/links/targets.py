"""How a setting names verifiers: ``HOST:PORT``, several of them, ``dns:///NAME:PORT``, or the URL of a list. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from speculation.errors import ConfigurationError
from speculation.listening import is_loopback

LIST, DNS, HTTP, HTTPS = "list", "dns", "http", "https"
URLS = (HTTP, HTTPS)


@dataclass(frozen=True, slots=True)
class Verifiers:
    """What a setting says: ``targets`` (``host:port``) for a list, the one name for ``dns``, none for a URL."""

    kind: str
    text: str
    targets: tuple[str, ...] = ()

    @property
    def hosts(self) -> list[str]:
        """The hosts that the setting names itself."""
        named = self.targets or (self.text.partition("://")[2].partition("/")[0],)
        return [_host(target) for target in named]


def parse_verifiers(text: str) -> Verifiers:
    """Read a setting. Raises ``ConfigurationError``, which says what would be right."""
    scheme, mark, rest = text.partition("://")
    if mark and scheme in URLS and _is_url(rest):
        return Verifiers(scheme, text)
    if mark and scheme == DNS and is_target(rest.removeprefix("/")):
        return Verifiers(DNS, text, (rest.removeprefix("/"),))
    targets = tuple(part.strip() for part in text.split(","))
    if mark or not all(map(is_target, targets)) or len(set(targets)) < len(targets):
        raise ConfigurationError(
            f"verifier must be host:port, such as 127.0.0.1:50051, several with commas between them, dns:///NAME:PORT,"
            f" or the URL of a list of verifiers, not {text!r}"
        )
    return Verifiers(LIST, text, targets)


def is_target(text: str) -> bool:
    """Whether it is ``host:port``."""
    host, colon, port = text.rpartition(":")
    return is_host(host) and bool(colon) and port.isascii() and port.isdecimal() and 0 < int(port) <= 65535


def is_host(text: str) -> bool:
    """Whether a resolver can be asked for it: for what is no name Python's raises, and what it raises is no ``OSError``."""
    try:
        text.encode("idna")
    except UnicodeError:  # such as a label that is empty, or longer than 63 characters
        return False
    return bool(text) and text.isprintable() and not any(c in "/@?#, " or c.isspace() for c in text)


def is_here(target: str) -> bool:
    """Whether ``host:port`` names this machine alone; names are not looked up."""
    return is_loopback(_host(target))


def _is_url(rest: str) -> bool:
    """Behind the scheme: a host, perhaps a port, and a path; no name or key in it."""
    authority, slash, path = rest.partition("/")
    is_plain = not any(c.isspace() or c in "@?#" for c in rest)
    return is_plain and bool(slash and path) and (is_target(authority) if ":" in authority else is_host(authority))


def _host(target: str) -> str:
    host, colon, port = target.rpartition(":")
    return (host if colon and port.isdecimal() else target).strip("[]")
