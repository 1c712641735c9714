"""How a phone gets at the agent's page: a QR code on a terminal, of the address that the phone sees with the key behind it.

The key stands in the address's fragment, which a browser keeps to itself: it is in no request, so in no log of the agent or of
a proxy. It is shown on a terminal alone, and only where that was asked for.
"""

from __future__ import annotations

import io
import ipaddress
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import segno
from rich.console import Console
from rich.text import Text

from device_agent.config import AgentConfig
from outrider.key_folder import KEY
from speculation.errors import ConfigurationError
from speculation.keys import read_key, read_keys
from speculation.listening import is_loopback
from speculation.tenants import bearer

QUIET_ZONE = 4
"""Light modules around the code, by its standard."""
STYLE = "#ffffff on #000000"
"""The light modules are what is drawn. Named colours would be the terminal's own, and its background may be light."""
ELSEWHERE = ("192.0.2.1", 9)
"""An address of nobody (RFC 5737): the way there is the way to other machines. No packet is sent."""


@dataclass(frozen=True, slots=True)
class PhonePage:
    """The page as a phone on the same network sees it. ``key`` None: the agent asks for none."""

    scheme: str
    host: str
    key: str | None

    def url(self, port: int) -> str:
        """Its address; what stands behind ``#`` never leaves the browser."""
        bare = self.host.strip("[]")  # a host may be given with its brackets
        host = f"[{bare}]" if ":" in bare else bare
        fragment = "" if self.key is None else f"#key={quote(self.key, safe='')}"
        return f"{self.scheme}://{host}:{port}/{fragment}"


def way_in(settings: AgentConfig, is_wanted: bool, key_file: Path | None) -> Callable[[int], None]:
    """Shows a phone the way to the page, once the port is known. Raises ``ConfigurationError`` where that cannot be."""
    if not is_wanted:
        if key_file is not None:
            raise ConfigurationError("--qr-key-file: it is the key for --qr; give that, too")
        return lambda port: None
    page = phone_page(settings, key_file)
    return lambda port: show(page, port, Console(stderr=True))


def phone_page(settings: AgentConfig, key_file: Path | None) -> PhonePage:
    """What ``--qr`` will show. ``key_file`` None is the file that ``outrider keys`` put beside the agent's file of keys.

    Raises ``ConfigurationError`` where no phone could use it, and where it would be seen by others than who sits here.
    """
    if not sys.stderr.isatty():
        raise ConfigurationError(
            "--qr: it shows the key, and standard error is no terminal but may be a log; leave it out here"
        )
    if is_loopback(settings.host):
        raise ConfigurationError(f"--qr: a phone cannot reach {settings.host}; add --host 0.0.0.0, and --keys FILE with it")
    scheme = "http" if settings.tls_cert is None else "https"
    return PhonePage(scheme, _reachable(settings.host), _key(settings.keys, key_file))


def show(page: PhonePage, port: int, console: Console) -> None:
    """Print the code, and the address below it for a phone without a camera."""
    url = page.url(port)
    drawn = code_of(url)
    needed = max(map(len, drawn.splitlines()))
    console.print("\nOpen it on a phone in the same network:\n")
    if needed <= console.width:
        console.print(Text(drawn, STYLE), no_wrap=True)
    else:
        console.print(Text(f"(a terminal of {needed} columns has room for the QR code)"))
    # Printed as it is: a line that is broken would be another address.
    console.print(Text(f"\n{url}\n"), soft_wrap=True)


def code_of(text: str) -> str:
    """The QR code in half blocks, two rows of it a line."""
    drawn = io.StringIO()
    segno.make_qr(text).terminal(drawn, border=QUIET_ZONE, compact=True)
    return drawn.getvalue().rstrip("\n")


def _key(keys: Path | None, key_file: Path | None) -> str | None:
    if keys is None:
        if key_file is not None:
            raise ConfigurationError("--qr-key-file: this agent asks for no key; add --keys FILE, or leave it out")
        return None
    file = keys.with_name(KEY) if key_file is None else key_file
    if key_file is None and not file.is_file():
        raise ConfigurationError(
            f"--qr: {keys} holds digests, and no key lies beside it: name the phone's with --qr-key-file FILE"
        )
    key = read_key(file)
    if read_keys(keys).tenant_of(bearer(key)) is None:
        raise ConfigurationError(f"--qr: {keys} does not let in the key of {file}; name another with --qr-key-file FILE")
    return key


def _reachable(host: str) -> str:
    """The address itself, or, of an agent on all of them, the one by which this machine reaches others."""
    if not _is_any(host):
        return host
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(ELSEWHERE)
            found = str(probe.getsockname()[0])
    except OSError:
        found = ""
    if not found or is_loopback(found):
        raise ConfigurationError("--qr: this machine seems to be on no network; name the address that a phone sees as --host")
    return found


def _is_any(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_unspecified
    except ValueError:
        return host == ""
