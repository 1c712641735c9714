"""Who may use a service over HTTP that has keys: every route but ``/health`` is closed to callers without one.

A service may name paths of files that are the same for everybody and hold no data (the agent's page): those may be read, and
nothing else be done to them, without a key.
"""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from device_agent.events import error_object
from device_agent.subprotocols import key_among
from speculation.errors import AuthenticationError, status_of
from speculation.tenants import AUTHORIZATION, NOBODY, Keyring, Tenant

OPEN_PATHS = frozenset({"/health"})
READING = frozenset({"GET", "HEAD"})
_TENANT = "tenant"


class KeyDoor:
    """Refuses with 401 whoever has no key, before a route is looked up or a byte of the body is read. ``service`` is what the
    refusal calls it. A page's WebSocket, which can send no header, may have its key among the subprotocols. Anybody may read
    ``public`` paths."""

    def __init__(self, app: ASGIApp, keyring: Keyring, service: str = "agent", public: Collection[str] = ()) -> None:
        self._app = app
        self._keyring = keyring
        self._service = service
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._is_open(scope):
            given = Headers(scope=scope).get(AUTHORIZATION, key_among(scope.get("subprotocols", ())))
            tenant = self._keyring.tenant_of(given)
            if tenant is None:
                await _refusal(self._service, given)(scope, receive, send)
                return
            scope.setdefault("state", {})[_TENANT] = tenant
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        is_reading = scope["type"] == "http" and scope["method"] in READING
        return scope["path"] in OPEN_PATHS or (is_reading and scope["path"] in self._public)


def tenant_of(connection: HTTPConnection) -> Tenant:
    """Who sent a request; ``NOBODY`` where there are no keys."""
    tenant: Tenant = connection.scope.get("state", {}).get(_TENANT, NOBODY)
    return tenant


def _refusal(service: str, given: str | None) -> JSONResponse:
    fault = f"this {service} wants a key" if given is None else f"this {service} does not know the key that was sent"
    error = AuthenticationError(f"{fault}: send the header Authorization: Bearer KEY")
    return JSONResponse({"error": error_object(error)}, status_of(error).http, {"www-authenticate": "Bearer"})
