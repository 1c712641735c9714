"""Control of proxies over HTTP, with the routes, fields and errors of toxiproxy's API: ``{"error": ..., "status": ...}``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Mapping
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from device_agent.guard import LoopbackGuard
from outrider.proxy.service import Address, Proxies, Proxy, parse_address
from speculation.errors import ConfigurationError, InvalidRequestError, LinkError, OutriderError
from speculation.foreign_json import loads
from speculation.listening import is_loopback
from speculation.shaping.network import NetworkProfile
from speculation.shaping.profiles import UNSHAPED
from speculation.shaping.toxics import Toxic, check_name, toxic_from, updated

MAX_BODY_BYTES = 64 * 1024
MAX_PROXIES = 64
MAX_TOXICS = 64
_PROXY_FIELDS = ("name", "listen", "upstream", "enabled", "network", "seed", "toxics")

Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


class ControlError(OutriderError):
    """A refusal with the status that toxiproxy gives it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def build_app(proxies: Proxies, host: str, allowed_hosts: Collection[str] = ()) -> FastAPI:
    """The application that controls ``proxies``; ``host`` is the address that it is bound to.

    It heeds only requests to this machine and ``allowed_hosts`` where it is bound to loopback, or hosts are named.
    """
    app = FastAPI(title="Outrider proxy", docs_url=None, redoc_url=None, openapi_url=None)
    if is_loopback(host) or allowed_hosts:
        app.add_middleware(LoopbackGuard, allowed_hosts=allowed_hosts, refuse=lambda fault: _error(fault, 403))
    app.add_exception_handler(OutriderError, _refuse)
    app.add_exception_handler(HTTPException, _refuse_http)
    for path, method, endpoint in _Control(proxies).routes():
        app.add_api_route(path, endpoint, methods=[method], response_class=Response)
    return app


class _Control:
    """The routes. Each takes a request and answers it; what it raises becomes an error object."""

    def __init__(self, proxies: Proxies) -> None:
        self._proxies = proxies

    def routes(self) -> list[tuple[str, str, Endpoint]]:
        one, toxic = "/proxies/{proxy}", "/proxies/{proxy}/toxics/{toxic}"
        return [
            ("/version", "GET", self.version),
            ("/reset", "POST", self.reset),
            ("/populate", "POST", self.populate),
            ("/proxies", "GET", self.list_proxies),
            ("/proxies", "POST", self.add_proxy),
            *((one, method, self.update_proxy) for method in ("POST", "PATCH")),
            (one, "GET", self.show_proxy),
            (one, "DELETE", self.remove_proxy),
            (f"{one}/toxics", "GET", self.list_toxics),
            (f"{one}/toxics", "POST", self.add_toxic),
            (toxic, "GET", self.show_toxic),
            *((toxic, method, self.update_toxic) for method in ("POST", "PATCH")),
            (toxic, "DELETE", self.remove_toxic),
        ]

    async def version(self, request: Request) -> Response:
        return JSONResponse({"version": metadata.version("outrider")})

    async def reset(self, request: Request) -> Response:
        """Every proxy enabled, no toxics."""
        for name in list(self._proxies.by_name):
            if (proxy := self._proxies.by_name.get(name)) is not None:  # it may be removed while another one is enabled
                await _enable(proxy)
                proxy.set_toxics([])
        return Response(status_code=204)

    async def list_proxies(self, request: Request) -> Response:
        return JSONResponse({name: proxy.to_json() for name, proxy in self._proxies.by_name.items()})

    async def add_proxy(self, request: Request) -> Response:
        fields = _known(await _object(request), _PROXY_FIELDS)
        if _text(fields, "name") in self._proxies.by_name:
            raise ControlError("proxy already exists", 409)
        proxy = await self._make(fields)
        return JSONResponse(proxy.to_json(), 201)

    async def populate(self, request: Request) -> Response:
        """Proxies of a list, made where they are not there, made anew where their addresses are others."""
        given = await _json(request)
        if not (isinstance(given, list) and all(isinstance(fields, dict) for fields in given)):
            raise InvalidRequestError("bad request body: it is no list of JSON objects")
        for fields in given:  # all of it is judged before anything is made, or removed for something else
            self._asked(fields)
        made = [await self._make_or_keep(fields) for fields in given]
        return JSONResponse({"proxies": [proxy.to_json() for proxy in made]}, 201)

    async def _make_or_keep(self, fields: Mapping[str, Any]) -> Proxy:
        name = _text(fields, "name")
        there = self._proxies.by_name.get(name)
        if there is not None:
            if (_text(fields, "listen", str(there.listen)), fields.get("upstream")) == (str(there.listen), str(there.upstream)):
                return there
            self._proxies.remove(name)
        return await self._make(fields)

    async def _make(self, fields: Mapping[str, Any]) -> Proxy:
        if len(self._proxies.by_name) >= MAX_PROXIES:
            raise ControlError(f"there are {MAX_PROXIES} proxies, and no more may be", 409)
        return await self._proxies.add(*self._asked(fields))

    def _asked(self, fields: Mapping[str, Any]) -> tuple[str, Address, Address, NetworkProfile, int, bool]:
        """What a new proxy is made of. Raises ``InvalidRequestError``, ``ConfigurationError``."""
        name = _text(_known(fields, _PROXY_FIELDS), "name")
        check_name(name)
        listen = parse_address(_text(fields, "listen", "127.0.0.1:0"), "listen")
        self._proxies.check(listen)
        upstream = parse_address(_text(fields, "upstream"), "upstream", first_port=1)
        network = self._proxies.catalogue.network(_text(fields, "network", UNSHAPED))
        return name, listen, upstream, network, _number(fields, "seed"), _flag(fields, "enabled", True)

    async def show_proxy(self, request: Request) -> Response:
        return JSONResponse(self._proxy(request).to_json())

    async def update_proxy(self, request: Request) -> Response:
        """``enabled``, ``listen`` and ``upstream`` may change; another address cuts the connections that are there. The others
        may be repeated, as by a client that sends back what it was told."""
        proxy, body = await self._proxy_and_body(request)
        fields = _known(body, _PROXY_FIELDS)
        for name, value in (("name", proxy.name), ("network", proxy.network.name), ("seed", proxy.seed)):
            if fields.get(name) and fields[name] != value:
                raise InvalidRequestError(f"{name} stays {value!r}: remove the proxy, and make it anew with another", name)
        listen = parse_address(_text(fields, "listen", str(proxy.listen)), "listen")
        upstream = parse_address(_text(fields, "upstream", str(proxy.upstream)), "upstream", first_port=1)
        is_enabled = _flag(fields, "enabled", proxy.is_enabled)
        if (listen, upstream) != (proxy.listen, proxy.upstream):
            self._proxies.move(proxy, listen, upstream)
        if is_enabled:
            await _enable(proxy)
        else:
            proxy.disable()
        return JSONResponse(proxy.to_json())

    async def remove_proxy(self, request: Request) -> Response:
        self._proxies.remove(self._proxy(request).name)
        return Response(status_code=204)

    async def list_toxics(self, request: Request) -> Response:
        return JSONResponse([toxic.to_json() for toxic in self._proxy(request).toxics])

    async def add_toxic(self, request: Request) -> Response:
        proxy, body = await self._proxy_and_body(request)
        toxic = toxic_from(body)
        if any(toxic.name == other.name for other in proxy.toxics):
            raise ControlError("toxic already exists", 409)
        if len(proxy.toxics) >= MAX_TOXICS:
            raise ControlError(f"there are {MAX_TOXICS} toxics, and no more may be", 409)
        proxy.set_toxics([*proxy.toxics, toxic])
        return JSONResponse(toxic.to_json())

    async def show_toxic(self, request: Request) -> Response:
        return JSONResponse(_toxic(self._proxy(request), request).to_json())

    async def update_toxic(self, request: Request) -> Response:
        proxy, fields = await self._proxy_and_body(request)
        before = _toxic(proxy, request)
        after = updated(before, fields)
        proxy.set_toxics([after if toxic is before else toxic for toxic in proxy.toxics])
        return JSONResponse(after.to_json())

    async def remove_toxic(self, request: Request) -> Response:
        proxy = self._proxy(request)
        removed = _toxic(proxy, request)
        proxy.set_toxics([toxic for toxic in proxy.toxics if toxic is not removed])
        return Response(status_code=204)

    def _proxy(self, request: Request) -> Proxy:
        proxy = self._proxies.by_name.get(request.path_params["proxy"])
        if proxy is None:
            raise ControlError("proxy not found", 404)
        return proxy

    async def _proxy_and_body(self, request: Request) -> tuple[Proxy, Mapping[str, Any]]:
        """The proxy that is asked for once the body is there: it may be removed, or made anew, while that comes."""
        self._proxy(request)
        body = await _object(request)
        return self._proxy(request), body


def _toxic(proxy: Proxy, request: Request) -> Toxic:
    for toxic in proxy.toxics:
        if toxic.name == request.path_params["toxic"]:
            return toxic
    raise ControlError("toxic not found", 404)


async def _enable(proxy: Proxy) -> None:
    try:
        await proxy.enable()
    except ConfigurationError as error:  # the address is taken meanwhile
        raise ControlError(str(error), 500) from error


def _known(fields: Mapping[str, Any], known: tuple[str, ...]) -> Mapping[str, Any]:
    """The fields, if each is known. Raises ``InvalidRequestError``."""
    for name in fields:
        if name not in known:
            raise InvalidRequestError(f"unknown field {name!r}; known: {', '.join(known)}", str(name))
    return fields


async def _object(request: Request) -> Mapping[str, Any]:
    """The body, a JSON object. Raises what ``_json`` raises."""
    fields = await _json(request)
    if not isinstance(fields, dict):
        raise InvalidRequestError("bad request body: it is no JSON object")
    return fields


async def _json(request: Request) -> Any:
    """The body, a JSON document within the limit. Raises ``InvalidRequestError``, ``ControlError`` 413."""
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                raise ControlError(f"the body is over the limit of {MAX_BODY_BYTES} bytes", 413)
    except ClientDisconnect as error:
        raise LinkError("the client went away before its request was whole") from error
    try:
        return loads(body.decode("utf-8"))
    except ValueError as error:
        raise InvalidRequestError(f"bad request body: {error}") from error


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name) or default  # clients send null, or nothing, for what they leave open
    if not value:
        raise InvalidRequestError(f"missing required field: {name}", name)
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} is a string", name)
    return value


def _number(fields: Mapping[str, Any], name: str) -> int:
    value = fields.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidRequestError(f"{name} is a whole number from 0 on", name)
    return value


def _flag(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"{name} is true or false", name)
    return value


def _error(message: str, status: int) -> Response:
    return JSONResponse({"error": message, "status": status}, status)


async def _refuse(request: Request, error: Exception) -> Response:
    return _error(str(error), error.status if isinstance(error, ControlError) else 400)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(str(error.detail), error.status_code)
