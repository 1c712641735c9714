"""Which verifiers there are: a list, a name that has several addresses, or a service that tells them in JSON."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import httpx

from speculation import foreign_json
from speculation.certificates import ClientTls
from speculation.errors import LinkError
from speculation.links.targets import DNS, URLS, Verifiers, is_target
from speculation.tenants import AUTHORIZATION, bearer

PERIOD_S = 3.0
"""How often a resolver is asked whose answer may change."""
TIMEOUT_S = 2.0
LIMIT_BYTES = 256 * 1024
LIST_PATH, LIST_FIELD, TARGET_FIELD = "/v1/verifiers", "verifiers", "target"
"""The answer's form: ``{"verifiers": [{"target": "host:port", ...}, ...]}``."""


class Resolver(Protocol):
    """Tells targets (``host:port``). ``period_s`` is how often it wants to be asked; None: once is enough."""

    @property
    def period_s(self) -> float | None: ...

    async def targets(self) -> Sequence[str]:
        """The verifiers that take sessions now, possibly none. Raises ``LinkError`` where that cannot be learned."""

    async def aclose(self) -> None: ...


class FixedList:
    """Always the same verifiers."""

    period_s: float | None = None

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = tuple(targets)

    async def targets(self) -> Sequence[str]:
        return self._targets

    async def aclose(self) -> None:
        """Nothing is held."""


class NameResolver:
    """Every address of a name, by the system's resolver."""

    period_s: float | None = PERIOD_S

    def __init__(self, target: str) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)

    async def targets(self) -> Sequence[str]:
        loop, host = asyncio.get_running_loop(), self._host.strip("[]")
        try:
            async with asyncio.timeout(TIMEOUT_S):
                found = await loop.getaddrinfo(host, self._port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            raise LinkError(f"the name {host} has no address: {str(error) or 'nobody answers'}") from error
        return [_address(address[4][0], self._port) for address in found]

    async def aclose(self) -> None:
        """Nothing is held."""


class HttpResolver:
    """A service that tells the list, such as the head of a pool. Asked with suspicion: no redirect is followed, no
    environment read, and an answer that is large, slow or of another form is a ``LinkError``.
    """

    period_s: float | None = PERIOD_S

    def __init__(
        self,
        url: str,
        key: str | None = None,
        tls: ClientTls | None = None,
        make_client: Callable[..., httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self._url = url
        self._headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if key is not None:
            self._headers[AUTHORIZATION] = bearer(key)
        self._tls = tls
        self._make_client = make_client
        self._client: httpx.AsyncClient | None = None

    async def targets(self) -> Sequence[str]:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                content = await self._content()
            return _targets_in(foreign_json.loads(content))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, TimeoutError) as error:
            raise LinkError(f"{self._url} does not answer: {str(error) or type(error).__name__}") from error
        except ValueError as error:
            raise LinkError(f"{self._url} tells no list of verifiers: {error}") from error

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _content(self) -> bytes:
        if self._client is None:
            verify = True if self._tls is None else self._tls.context()
            self._client = self._make_client(headers=self._headers, verify=verify, trust_env=False, timeout=TIMEOUT_S)
        content = bytearray()
        async with self._client.stream("GET", self._url) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"status {response.status_code}")
            async for part in response.aiter_raw():
                content += part
                if len(content) > LIMIT_BYTES:
                    raise ValueError(f"more than the {LIMIT_BYTES} bytes that are read")
        return bytes(content)


def resolver_of(verifiers: Verifiers, key: str | None = None, tls: ClientTls | None = None) -> Resolver:
    """Who tells where the verifiers are that a setting names. ``key`` and ``tls`` are for a service that is asked."""
    if verifiers.kind in URLS:
        return HttpResolver(verifiers.text, key, tls)
    return NameResolver(verifiers.targets[0]) if verifiers.kind == DNS else FixedList(verifiers.targets)


def _targets_in(answer: Any) -> list[str]:
    """Raises ``ValueError`` for what is not the form of ``LIST_FIELD``."""
    entries = answer.get(LIST_FIELD) if isinstance(answer, dict) else None
    if not isinstance(entries, list):
        raise ValueError(f"{LIST_FIELD!r} must be a list")
    return [_target_in(entry) for entry in entries]


def _target_in(entry: Any) -> str:
    target = entry.get(TARGET_FIELD) if isinstance(entry, dict) else None
    if not isinstance(target, str) or not is_target(target):
        raise ValueError(f"a {TARGET_FIELD!r} must be host:port")
    return target


def _address(ip: Any, port: int) -> str:
    return f"[{ip}]:{port}" if ":" in str(ip) else f"{ip}:{port}"
