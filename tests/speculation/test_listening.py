"""Sockets that services listen at, and the connections that come in there."""

import asyncio
import os
import socket
import stat
import sys
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry

from cloud_verifier.config import VerifierConfig
from device_agent import server
from outrider.pool import head
from outrider.pool.members import Members
from outrider.proxy.service import Address
from outrider.proxy.serving import ProxySettings
from outrider.proxy.serving import serve as serve_proxy
from speculation.errors import ConfigurationError
from speculation.listening import bind
from speculation.shaping.profiles import network
from speculation.telemetry import exposition
from tests.device_agent.doubles import agent_of, config
from tests.support.addresses import has_ipv6

LIMIT_S = 30


@asynccontextmanager
async def the_agent():
    async with server.serve(config(), agent=agent_of(None)) as running:
        yield running.port, "/health"


@asynccontextmanager
async def figures():
    async with exposition.serving(CollectorRegistry(), exposition.Listener("127.0.0.1", 0), None) as url:
        yield httpx.URL(url).port, exposition.PATH


@asynccontextmanager
async def the_head_of_a_pool():
    async with head.listening(Members(), VerifierConfig(port=0, engine_pool="ray")) as url:
        yield httpx.URL(url).port, "/health"


@asynccontextmanager
async def a_proxy():
    async with the_agent() as (port, path):
        upstream = Address("127.0.0.1", port)
        settings = ProxySettings(listen=Address("127.0.0.1", 0), upstream=upstream, network=network("none"))
        async with serve_proxy(settings, lambda _: None) as running:
            yield running.proxy.listen.port, path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="open files are found in /proc")
@pytest.mark.parametrize("service", [the_agent, figures, the_head_of_a_pool, a_proxy])
async def test_what_is_written_to_a_client_does_not_wait_for_its_acknowledgement_of_what_was_before(service):
    async with asyncio.timeout(LIMIT_S), service() as (port, path), httpx.AsyncClient() as client:
        await client.get(f"http://127.0.0.1:{port}{path}")
        assert delays_of(port) == [False]


def test_an_address_is_taken_with_brackets_and_without():
    for host in ("127.0.0.1", "localhost", *(["::1", "[::1]"] if has_ipv6() else [])):
        with bind(host, 0) as bound:
            assert bound.getsockname()[1] > 0
            assert not bound.getblocking()


def test_one_that_is_not_this_machines_is_refused_by_name_with_what_would_be_right():
    with pytest.raises(
        ConfigurationError, match=r"cannot listen on 192\.0\.2\.1:80: .*; name an address of this machine, or 0\.0"
    ):
        bind("192.0.2.1", 80)


def test_an_address_with_colons_is_told_in_brackets():
    with pytest.raises(ConfigurationError, match=r"cannot listen on \[2001:db8::1\]:80: "):
        bind("2001:db8::1", 80)


def delays_of(port):
    """Of every connection of this process that came in at ``port``: whether Nagle's algorithm holds small writes back."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            held = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # that of the list itself
            continue
        with held:
            if (held.family, held.type) == (socket.AF_INET, socket.SOCK_STREAM) and is_connection_at(held, port):
                found.append(not held.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
    return found


def is_connection_at(held, port):
    return held.getsockname()[1] == port and not held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
