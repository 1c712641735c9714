"""Who may talk to an agent on loopback: programs of this machine, and pages that it served itself.

A web page elsewhere can make a browser send requests to loopback, under a name of its own that resolves to 127.0.0.1 (DNS
rebinding) or across origins. Both show in the headers, and nothing else of the request needs to be trusted.

A WebSocket is no part of what browsers keep apart: a page may open one to anywhere, and read it. So its ``Origin`` is judged at
every address.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from device_agent.events import error_fields
from speculation.listening import is_loopback


def _refusal(fault: str) -> Response:
    return JSONResponse({"error": error_fields(fault, 403, "forbidden_origin")}, 403)


class LoopbackGuard:
    """Refuses with 403 what does not name this machine, or a host in ``allowed_hosts``, in ``Host`` and, if there, in
    ``Origin``. ``refuse`` makes the response of a fault, by default with OpenAI's error object.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = (), refuse: Callable[[str], Response] = _refusal) -> None:
        self._app = app
        self._refuse = refuse
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._fault(Headers(scope=scope)) if scope["type"] in ("http", "websocket") else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        await self._refuse(fault)(scope, receive, send)

    def _fault(self, headers: Headers) -> str | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_allowed("//" + host):
            return f"the host {host!r} is not this machine; name it in allowed_hosts if it is meant"
        if origin is not None and not self._is_allowed(origin):
            return f"pages of {origin!r} may not use this agent; name its host in allowed_hosts if they may"
        return None

    def _is_allowed(self, url: str) -> bool:
        name = _name(url)
        return name is not None and (is_loopback(name) or name in self._allowed_hosts)


class OriginGuard:
    """For an agent that other machines reach: refuses with 403 a WebSocket of a page that is neither the agent's own, by
    ``Host``, nor of a host in ``allowed_hosts``.
    """

    def __init__(self, app: ASGIApp, allowed_hosts: Collection[str] = ()) -> None:
        self._app = app
        self._allowed_hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "websocket" else Headers()
        origin = headers.get("origin")
        if origin is None or _is_at(origin, headers.get("host", "")) or _name(origin) in self._allowed_hosts:
            await self._app(scope, receive, send)
            return
        fault = f"pages of {origin!r} may not use this agent; name its host in allowed_hosts if they may"
        await _refusal(fault)(scope, receive, send)


def _is_at(origin: str, host: str) -> bool:
    """Whether a page comes from the host, port included, that was called."""
    return host != "" and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _name(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
