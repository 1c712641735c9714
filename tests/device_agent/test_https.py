"""The agent's own port over HTTPS, and an agent that calls its verifier over mutual TLS: both services, for real."""

from __future__ import annotations

import asyncio
import contextlib

import httpx
import pytest

import cloud_verifier.server
from cloud_verifier.engine import FullModel
from device_agent.build import connector_of
from device_agent.server import serve
from outrider import probe
from outrider.client import Client, DoneEvent
from speculation.engines.self_test import SelfTest
from speculation.errors import ConfigurationError, InvalidRequestError, LinkError
from tests.cloud_verifier.doubles import settings
from tests.device_agent.doubles import IDENTITY, FullEngine, agent_of, config, decode, plain_decoding
from tests.support.certificates import made
from tests.support.keys import ALICE, BOB, key_file


@contextlib.asynccontextmanager
async def agent_over_https(files, **changes):
    changes |= {"tls_cert": files.cert, "tls_key": files.key}
    connector = connector_of(config(**changes)) if "verifier" in changes else None
    async with asyncio.timeout(60), serve(config(**changes), agent=agent_of(connector, **changes)) as running:
        yield running.url


@pytest.fixture
def files(tmp_path):
    return made(tmp_path, "agent")


async def written(client, **options):
    events = [event async for event in client.stream("the prompt", max_tokens=12, seed=3, **options)]
    assert isinstance(events[-1], DoneEvent)
    return events[-1]


async def test_keys_and_tls_from_the_client_to_the_verifier(files, tmp_path):
    """Each leg with its own key and its own certificates, the second one mutual."""
    service, device = made(tmp_path, "verifier"), made(tmp_path, "device", "device")
    full = FullModel(FullEngine(), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))
    keys = key_file(tmp_path)
    theirs = settings(tls_cert=service.cert, tls_key=service.key, tls_client_ca=device.ca, keys=keys)
    async with asyncio.timeout(60), cloud_verifier.server.serve(theirs, full_model=full) as verifier:
        changes = {"verifier": verifier.target, "verifier_ca": service.ca, "verifier_key": BOB, "keys": keys}
        changes |= {"verifier_cert": device.cert, "verifier_cert_key": device.key}
        async with agent_over_https(files, **changes) as url, Client(url, key=ALICE, ca=files.ca) as client:
            done = await written(client)
        assert verifier.verifier.statistics.sessions == 1
    assert (done.verified_count, done.text) == (12, decode(plain_decoding(FullEngine(), 12)))


async def test_without_its_certificate_a_device_is_alone_and_says_why(files, tmp_path, caplog):
    service = made(tmp_path, "verifier")
    full = FullModel(FullEngine(), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))
    theirs = settings(tls_cert=service.cert, tls_key=service.key, tls_client_ca=service.ca)
    async with asyncio.timeout(60), cloud_verifier.server.serve(theirs, full_model=full) as verifier:
        changes = {"verifier": verifier.target, "verifier_ca": service.ca}
        async with agent_over_https(files, **changes) as url, Client(url, ca=files.ca) as client:
            assert (await written(client)).verified_count == 0
            with pytest.raises(LinkError, match="wants a certificate: set verifier_cert"):
                await written(client, mode="cloud")
    assert "wants a certificate: set verifier_cert" in caplog.text


async def test_only_the_right_authority_is_believed_and_plain_text_gets_nothing(files, tmp_path):
    stranger = made(tmp_path, "stranger")
    async with agent_over_https(files) as url:
        assert url.startswith("https://127.0.0.1:")
        async with Client(url, ca=files.ca) as client:
            assert (await client.health())["status"] == "ok"
        for ca in (None, stranger.ca):
            async with Client(url, ca=ca) as client:
                with pytest.raises(LinkError, match="certificate verify failed"):
                    await client.health()
        async with httpx.AsyncClient() as plain:
            with pytest.raises(httpx.HTTPError):
                await plain.get(url.replace("https", "http") + "/health")


async def test_an_authority_in_the_environment_is_believed(files, monkeypatch):
    """So the commands reach an agent with a certificate of one's own making."""
    monkeypatch.setenv("SSL_CERT_FILE", str(files.ca))
    async with agent_over_https(files) as url, Client(url) as client:
        assert (await client.health())["status"] == "ok"


async def test_the_probe_asks_over_https_too(files, tmp_path):
    async with agent_over_https(files) as url:
        ask = [f"{url}/health", "--ca", str(files.ca)]
        assert await asyncio.to_thread(probe.main, ask) == 0
        assert await asyncio.to_thread(probe.main, ask[:1]) == 1


def test_a_file_of_authorities_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match=r"ca: .*gone cannot be read"):
        Client(ca=tmp_path / "gone")
    with pytest.raises(InvalidRequestError):
        Client("nonsense", ca=tmp_path / "gone")
