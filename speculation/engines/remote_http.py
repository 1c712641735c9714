"""A server that answers in JSON, asked with suspicion: no redirects, bounded answers, one time-out, every failure by name."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import httpx

from speculation import foreign_json
from speculation.errors import EngineError

ERROR_LIMIT_BYTES = 64 * 1024
SHOWN_CHARACTERS = 300
ATTEMPTS = 2
"""A kept connection may be closed by the server just as it is used again, so a broken one is tried once more, a new one."""

BROKEN = (httpx.ConnectError, httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)


class JsonServer:
    """Requests to one server, from any number of threads. All methods raise ``EngineError`` when no answer of use comes; as it
    may be told to whoever asked for a text, it names the path and not the address.

    ``timeout_s`` bounds an answer from its request to its last byte, but that a server which falls silent half-way through is
    found out only so much later again; ``clock`` tells seconds. ``api_key`` goes into the header that OpenAI's clients use, and
    nowhere else.
    """

    def __init__(
        self, url: str, api_key: str | None, timeout_s: float, connections: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._clock = clock
        # A compressed answer could be small on the way and large here.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # In plain text there is nothing to verify, and to read all authorities takes tens of milliseconds.
        verify = not self.url.lower().startswith("http:")
        # Only configuration reads the environment: a proxy named there is none of the operator's settings for this service.
        alone: dict[str, Any] = {"trust_env": False, "follow_redirects": False}
        self._client = httpx.Client(headers=headers, timeout=timeout_s, limits=limits, verify=verify, **alone)

    def get(self, path: str, limit_bytes: int) -> Any:
        return self._json("GET", path, None, limit_bytes)

    def post(self, path: str, body: dict[str, Any], limit_bytes: int) -> Any:
        """Asks may be repeated: they must change nothing at the server."""
        return self._json("POST", path, body, limit_bytes)

    def close(self) -> None:
        self._client.close()

    def _json(self, method: str, path: str, body: dict[str, Any] | None, limit_bytes: int) -> Any:
        content = self._content(method, path, body, limit_bytes)
        try:
            return foreign_json.loads(content)
        except ValueError as error:
            raise EngineError(f"{path} answered with what is not JSON: {error}") from error

    def _content(self, method: str, path: str, body: dict[str, Any] | None, limit_bytes: int) -> bytes:
        deadline_s = self._clock() + self._timeout_s
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._attempt(method, path, body, limit_bytes, deadline_s)
            except httpx.TimeoutException as error:
                raise self._too_late(path) from error
            except BROKEN as error:
                if attempt == ATTEMPTS:
                    raise EngineError(f"{path} cannot be reached: {_described(error)}") from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise EngineError(f"{path}: {_described(error)}") from error
        raise AssertionError

    def _attempt(self, method: str, path: str, body: dict[str, Any] | None, limit_bytes: int, deadline_s: float) -> bytes:
        with self._client.stream(method, self.url + path, json=body) as response:
            if response.status_code != httpx.codes.OK:
                raise self._refusal(path, response, deadline_s)
            return self._read(path, response, limit_bytes, deadline_s)

    def _read(self, path: str, response: httpx.Response, limit_bytes: int, deadline_s: float) -> bytes:
        content = bytearray()
        for part in response.iter_raw():
            content += part
            if len(content) > limit_bytes:
                raise EngineError(f"{path} answered with more than the {limit_bytes} bytes that are read")
            if self._clock() > deadline_s:
                raise self._too_late(path)
        return bytes(content)

    def _refusal(self, path: str, response: httpx.Response, deadline_s: float) -> EngineError:
        if response.is_redirect:
            return EngineError(f"{path} redirects (status {response.status_code}), which is not followed")
        said = _message(self._read(path, response, ERROR_LIMIT_BYTES, deadline_s))
        return EngineError(f"{path} refused with status {response.status_code}: {said}")

    def _too_late(self, path: str) -> EngineError:
        return EngineError(f"{path} did not answer within {self._timeout_s:g} s")


def shown(text: str) -> str:
    """A text of the server's in one line, as far as it is told: what ends a stream has to fit into a status."""
    text = " ".join(text[: 2 * SHOWN_CHARACTERS].split())
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."


def _message(content: bytes) -> str:
    """What a refusal says, in whichever of the usual places: error.message, error, message, detail; else its beginning."""
    try:
        found = foreign_json.loads(content)
        for key in ("error", "message", "detail"):
            if isinstance(found, dict) and found.get(key):
                found = found[key]
        text = found if isinstance(found, str) else json.dumps(found)
    except ValueError:
        text = content.decode("utf-8", "replace")
    return shown(text)


def _described(error: Exception) -> str:
    return str(error) or type(error).__name__
