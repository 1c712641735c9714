"""Who comes in: with keys set, no method but the health service's is answered to a caller without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import grpc

from cloud_verifier.observer import UNOBSERVED, Observer
from speculation.errors import AuthenticationError, OutriderError
from speculation.links.status import DETAILS_KEY, status_from
from speculation.tenants import AUTHORIZATION, NOBODY, Keyring, Tenant

OPEN_METHODS = "/grpc.health.v1.Health/"

Metadata = Iterable[tuple[str, Any]]


class Door:
    """Knows a caller by the metadata of the call. Without a keyring everybody is ``NOBODY``, and may come in."""

    def __init__(self, keyring: Keyring | None = None) -> None:
        self._keyring = keyring

    def tenant_of(self, metadata: Metadata | None) -> Tenant:
        """Who calls. Raises ``AuthenticationError``."""
        if self._keyring is None:
            return NOBODY
        given = next((value for name, value in metadata or () if name == AUTHORIZATION), None)
        tenant = self._keyring.tenant_of(given if isinstance(given, str) else None)
        if tenant is not None:
            return tenant
        if given is None:
            raise AuthenticationError("this verifier wants a key: send the metadata authorization: Bearer KEY")
        raise AuthenticationError("this verifier does not know the key that was sent as authorization: Bearer KEY")


class DoorInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # a class of no type here
    """Closes every method that is not opened by name, those that are added later and those that do not exist included."""

    def __init__(self, door: Door, observer: Observer = UNOBSERVED) -> None:
        self._door = door
        self._observer = observer

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        if not details.method.startswith(OPEN_METHODS):
            try:
                self._door.tenant_of(details.invocation_metadata)
            except AuthenticationError as error:
                self._observer.refused(error)
                return _refusing(error)
        return await continuation(details)


async def refuse(context: Any, error: OutriderError) -> None:
    """End a call with an error's status."""
    status = status_from(error)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, ((DETAILS_KEY, status.SerializeToString()),))


def _refusing(error: OutriderError) -> Any:
    """A handler that refuses before it reads anything, for a method of any kind."""

    async def handle(_requests: Any, context: Any) -> None:
        await refuse(context, error)

    return grpc.stream_stream_rpc_method_handler(handle)
