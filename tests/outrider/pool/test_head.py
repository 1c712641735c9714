"""What the head of a pool tells, and to whom."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from cloud_verifier.config import VerifierConfig
from device_agent.build import connector_of
from outrider.pool.head import build_app, listening
from outrider.pool.members import Member, Members
from speculation.certificates import ClientTls
from speculation.errors import ConfigurationError, LinkError
from speculation.links.resolvers import HttpResolver
from tests.device_agent.doubles import config as agent_config
from tests.support.certificates import made
from tests.support.keys import ALICE, WRONG, key_file

MEMBERS = [Member(0, "10.0.0.1:40001", "n1"), Member(1, "10.0.0.2:40002", "n2")]


class Serving(Members):
    """Members that are what a test says."""

    def __init__(self, members=MEMBERS):
        super().__init__()
        self._serving = {member.number: member for member in members}


def client_of(members=None, base="http://127.0.0.1", **changes):
    app = build_app(members or Serving(), VerifierConfig(port=0, engine_pool="ray", **changes))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=base)


async def test_the_list_names_who_serves():
    async with client_of() as client:
        answer = await client.get("/v1/verifiers")
    assert answer.json() == {
        "verifiers": [
            {"number": 0, "target": "10.0.0.1:40001", "node": "n1"},
            {"number": 1, "target": "10.0.0.2:40002", "node": "n2"},
        ]
    }
    assert answer.headers["cache-control"] == "no-store"


async def test_a_pool_is_healthy_as_long_as_anybody_serves():
    async with client_of() as client:
        assert (await client.get("/health")).json() == {"status": "ok", "serving": 2}
        assert (await client.head("/health")).status_code == 200
    async with client_of(Serving([])) as client:
        assert (await client.get("/health")).status_code == 503


async def test_with_keys_every_route_but_health_is_closed(tmp_path):
    async with client_of(keys=key_file(tmp_path), host="0.0.0.0", base="http://head.example") as client:
        for path in ("/v1/verifiers", "/docs", "/nothing"):
            refused = await client.get(path)
            assert refused.status_code == 401
            assert "this pool wants a key" in refused.text
        assert (await client.get("/v1/verifiers", headers={"authorization": f"Bearer {WRONG}"})).status_code == 401
        assert (await client.get("/v1/verifiers", headers={"authorization": f"Bearer {ALICE}"})).status_code == 200
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(("host", "is_told"), [("0.0.0.0", True), ("127.0.0.1", False)])
async def test_that_keys_cross_the_network_in_plain_text_is_told(host, is_told, tmp_path, caplog):
    config = VerifierConfig(port=0, engine_pool="ray", host=host, keys=key_file(tmp_path))
    async with asyncio.timeout(30), listening(Serving(), config):
        pass
    assert any("plain text: set tls_cert and tls_key" in line for line in caplog.messages) == is_told


async def test_without_keys_only_this_machine_is_told():
    async with client_of(base="http://evil.example") as client:
        assert (await client.get("/v1/verifiers")).status_code == 403
    with pytest.raises(ConfigurationError, match="insecure"):
        VerifierConfig(host="0.0.0.0", engine_pool="ray")


async def test_an_agent_learns_the_list_from_the_head_by_its_key_over_mutual_tls(tmp_path):
    head, device = made(tmp_path, "head"), made(tmp_path, "device", "device")
    settings = VerifierConfig(
        port=0,
        engine_pool="ray",
        keys=key_file(tmp_path),
        tls_cert=head.cert,
        tls_key=head.key,
        tls_client_ca=device.ca,
    )
    async with asyncio.timeout(20), listening(Serving(), settings) as url:
        assert url.startswith("https://127.0.0.1:")
        for key, certificate, works in ((ALICE, device, True), (WRONG, device, False), (ALICE, None, False)):
            own = (certificate.cert, certificate.key) if certificate else ()
            resolver = HttpResolver(url, key, ClientTls(head.ca, *own))
            try:
                if works:
                    assert list(await resolver.targets()) == ["10.0.0.1:40001", "10.0.0.2:40002"]
                else:
                    with pytest.raises(LinkError):
                        await resolver.targets()
            finally:
                await resolver.aclose()


async def test_an_address_that_is_taken_is_refused():
    async with listening(Serving(), VerifierConfig(port=0, engine_pool="ray")) as url:
        port = int(url.split(":")[2].partition("/")[0])
        with pytest.raises(ConfigurationError, match="cannot listen"):
            async with listening(Serving(), VerifierConfig(port=port, engine_pool="ray")):
                pass


def test_a_key_that_would_cross_the_network_in_plain_text_is_told(caplog):
    for verifier, is_told in (("http://head.example/v1/verifiers", True), ("http://127.0.0.1:1/v1/verifiers", False)):
        caplog.clear()
        connector_of(agent_config(verifier=verifier, verifier_key=ALICE))
        assert ("crosses the network in plain text" in caplog.text) is is_told
