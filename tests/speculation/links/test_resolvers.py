"""Who tells which verifiers there are, and what is not believed."""

from __future__ import annotations

import asyncio
import json
import socket

import httpx
import pytest

from speculation.errors import LinkError
from speculation.links.resolvers import LIMIT_BYTES, FixedList, HttpResolver, NameResolver, resolver_of
from speculation.links.targets import parse_verifiers

URL = "http://head.example/v1/verifiers"
KEY = "a-key-of-sixteen-characters"


def asked(answer, **changes):
    """A resolver whose service answers so, and the requests that it gets."""
    seen = []

    def handle(request):
        seen.append(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def make_client(**options):
        return httpx.AsyncClient(transport=httpx.MockTransport(handle), **options)

    return HttpResolver(URL, make_client=make_client, **changes), seen


async def targets_of(answer, **changes):
    resolver, _ = asked(answer, **changes)
    try:
        return list(await resolver.targets())
    finally:
        await resolver.aclose()


def says(content):
    return httpx.Response(200, stream=httpx.ByteStream(content))


def listing(*targets):
    return json.dumps({"verifiers": [{"target": target, "node": "n"} for target in targets]}).encode()


async def test_a_service_tells_the_targets_and_may_tell_more():
    assert await targets_of(says(listing("a:1", "[::1]:2"))) == ["a:1", "[::1]:2"]
    assert await targets_of(says(listing())) == []


async def test_the_service_hears_the_key_and_nobody_else():
    for key, expected in ((KEY, f"Bearer {KEY}"), (None, None)):
        resolver, seen = asked(says(listing()), key=key)
        await resolver.targets()
        await resolver.aclose()
        assert [request.headers.get("authorization") for request in seen] == [expected]


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (httpx.Response(401), "status 401"),
        (httpx.Response(302, headers={"location": "http://elsewhere.example/"}), "status 302"),
        (says(b"[]"), "'verifiers' must be a list"),
        (says(b'{"verifiers": 5}'), "'verifiers' must be a list"),
        (says(listing("a")), "must be host:port"),
        (says(listing("a..b:1")), "must be host:port"),
        (says(b'{"verifiers": ["a:1"]}'), "must be host:port"),
        (says(b"a:1"), "tells no list"),
        (says(b" " * (LIMIT_BYTES + 1)), "more than"),
        (httpx.ConnectError("refused"), "does not answer: refused"),
        (httpx.ReadTimeout(""), "does not answer: ReadTimeout"),
        (httpx.InvalidURL("no port"), "does not answer: no port"),
    ],
)
async def test_what_is_no_list_is_told_with_the_address_it_came_from(answer, fault):
    with pytest.raises(LinkError, match=fault) as refused:
        await targets_of(answer)
    assert URL in str(refused.value)


async def test_a_name_stands_for_all_its_addresses(monkeypatch):
    async def lookup(host, port, **_):
        assert (host, port) == ("verifiers", 50051)
        addresses = [("10.0.0.1", port), ("10.0.0.2", port), ("fd00::1", port, 0, 0)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    resolver = NameResolver("verifiers:50051")
    assert list(await resolver.targets()) == ["10.0.0.1:50051", "10.0.0.2:50051", "[fd00::1]:50051"]


async def test_a_name_that_nobody_knows_is_a_verifier_that_is_away(monkeypatch):
    async def lookup(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
    with pytest.raises(LinkError, match="the name verifiers has no address"):
        await NameResolver("verifiers:50051").targets()


@pytest.mark.parametrize(
    ("text", "kind", "period_s"),
    [("a:1,b:2", FixedList, None), ("dns:///a:1", NameResolver, 3.0), (URL, HttpResolver, 3.0)],
)
def test_the_setting_says_who_tells(text, kind, period_s):
    resolver = resolver_of(parse_verifiers(text))
    assert type(resolver) is kind
    assert resolver.period_s == period_s
