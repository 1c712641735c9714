"""TLS to a real verifier: what fits works from end to end, what does not is a refusal that names what would be right."""

import asyncio
import contextlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from cloud_verifier.server import serve
from outrider import probe
from speculation.certificates import ClientTls
from speculation.errors import AuthenticationError, LinkError
from speculation.links.grpc import GrpcConnector
from speculation.protocol.messages import FinishReason
from tests.cloud_verifier import doubles
from tests.cloud_verifier.doubles import collect, finished_of, settings
from tests.cloud_verifier.sessions import LIMIT_S, check_texts, opened, refusal
from tests.support.certificates import made
from tests.support.keys import ALICE, WRONG, key_file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A service's certificate and a device's, by two authorities; one of a stranger, and one for another host."""
    folder = tmp_path_factory.mktemp("certificates")
    names = {"service": "127.0.0.1", "device": "device", "stranger": "127.0.0.1", "elsewhere": "elsewhere.example"}
    return {name: made(folder, name, host) for name, host in names.items()}


@contextlib.asynccontextmanager
async def serving(served, client_ca=None, **changes):
    """The target of a verifier; ``served`` None is plain text."""
    _, full_model = doubles.watched()
    if served is not None:
        changes |= {"tls_cert": served.cert, "tls_key": served.key, "tls_client_ca": client_ca}
    async with asyncio.timeout(LIMIT_S), serve(settings(**changes), full_model=full_model) as running:
        yield running.target


@contextlib.asynccontextmanager
async def connector_to(target, tls=None, **changes):
    connector = GrpcConnector(target, tls=tls, **changes)
    try:
        yield connector
    finally:
        await connector.aclose()


async def test_with_the_right_authority_sessions_run_from_end_to_end(files):
    async with serving(files["service"]) as target, connector_to(target, ClientTls(files["service"].ca)) as connector:
        await check_texts(connector, 0.7)


async def test_with_a_certificate_that_was_asked_for_and_a_key_sessions_run(files, tmp_path):
    device = files["device"]
    tls = ClientTls(files["service"].ca, device.cert, device.key)
    async with serving(files["service"], device.ca, keys=key_file(tmp_path)) as target:
        async with connector_to(target, tls, key=ALICE) as connector:
            assert finished_of(await collect(await opened(connector))).reason is FinishReason.LENGTH
        async with connector_to(target, tls, key=WRONG) as connector:
            with pytest.raises(AuthenticationError):
                await refusal(connector)


MISFITS = {
    "wrong authority": ("service", None, ("stranger", None), "does not hold .*verifier_ca must have signed it"),
    "another host": ("elsewhere", None, ("elsewhere", None), "does not hold .*it must be for this host"),
    "no certificate": ("service", "device", ("service", None), "wants a certificate: set verifier_cert and verifier_cert_key"),
    "a certificate of a stranger": (
        "service",
        "device",
        ("service", "stranger"),
        "does not take the certificate of verifier_cert: its tls_client_ca must have signed it",
    ),
    "plain text to TLS": ("service", None, None, "speaks TLS: name the authority .* as verifier_ca"),
    "plain text to mutual TLS": ("service", "device", None, "speaks TLS: name the authority .* as verifier_ca"),
    "TLS to plain text": (None, None, ("service", None), "speaks no TLS: leave out verifier_ca, or set tls_cert"),
}


@pytest.mark.parametrize(("served", "client_ca", "given", "said"), MISFITS.values(), ids=MISFITS)
async def test_what_does_not_fit_is_refused_at_once_and_says_what_would(served, client_ca, given, said, files):
    own = files[given[1]] if given and given[1] else None
    tls = None if given is None else ClientTls(files[given[0]].ca, own and own.cert, own and own.key)
    client_ca = files[client_ca].ca if client_ca else None
    async with contextlib.AsyncExitStack() as stack:
        target = await stack.enter_async_context(serving(files[served] if served else None, client_ca))
        connector = await stack.enter_async_context(connector_to(target, tls, connect_timeout_s=LIMIT_S))
        for _ in range(2):
            with pytest.raises(LinkError, match=said):
                await connector.connect()


async def test_a_verifier_that_is_called_by_its_address_may_be_known_by_another_name(files):
    elsewhere = files["elsewhere"]
    async with serving(elsewhere) as target:
        async with connector_to(target, ClientTls(elsewhere.ca, name="elsewhere.example")) as connector:
            assert finished_of(await collect(await opened(connector))).reason is FinishReason.LENGTH
        async with connector_to(target, ClientTls(elsewhere.ca, name="stranger.example")) as connector:
            with pytest.raises(LinkError, match=r"does not hold .*it must be for stranger\.example"):
                await connector.connect()
    async with (
        serving(elsewhere, files["device"].ca) as target,
        connector_to(target, ClientTls(elsewhere.ca, name="elsewhere.example")) as connector,
    ):
        with pytest.raises(LinkError, match="wants a certificate"):
            await connector.connect()


async def test_a_certificate_of_a_device_that_expired_is_not_taken_for_a_strangers_alone(files, tmp_path):
    expired = made(tmp_path, "expired", "device", datetime.now(UTC) - timedelta(days=1))
    tls = ClientTls(files["service"].ca, expired.cert, expired.key)
    async with serving(files["service"], expired.ca) as target, connector_to(target, tls) as connector:
        with pytest.raises(LinkError, match="its tls_client_ca must have signed it, and it must not have expired"):
            await connector.connect()


async def test_nobody_there_is_no_fault_of_tls(files, unused_tcp_port):
    async with connector_to(f"127.0.0.1:{unused_tcp_port}", ClientTls(files["service"].ca)) as connector:
        with pytest.raises(LinkError, match=r"^there is no verifier at"):
            await connector.connect()


async def test_files_that_are_gone_are_told_when_they_are_needed(files, tmp_path):
    async with connector_to("127.0.0.1:1", ClientTls(tmp_path / "gone.pem")) as connector:
        with pytest.raises(LinkError, match=r"gone\.pem cannot be read: No such file"):
            await connector.connect()


async def test_a_verifier_that_speaks_tls_answers_nothing_in_plain_text(files):
    async with serving(files["service"]) as target, grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)


PLAIN_TEXT_COMES = """
import asyncio, sys
import outrider.services
import grpc

async def main():
    server = grpc.aio.server()
    pair = [tuple(open(file, "rb").read() for file in sys.argv[1:])]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\\r\\n\\r\\n")
    await reader.read()
    writer.close()
    await server.stop(0)

asyncio.run(main())
"""


def test_grpc_writes_no_lines_of_its_own_into_the_log_of_a_service(files, monkeypatch):
    """In a process of its own: gRPC takes its level where it is loaded."""
    monkeypatch.delenv("GRPC_VERBOSITY", raising=False)
    command = [sys.executable, "-c", PLAIN_TEXT_COMES, str(files["service"].key), str(files["service"].cert)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    assert ran.stderr == ""


async def test_the_probe_asks_over_tls_too(files):
    service, device = files["service"], files["device"]

    async def probed(target, **given):
        return await asyncio.to_thread(probe.is_healthy, f"grpcs://{target}", **given)

    async with serving(service) as target:
        assert await probed(target, ca=service.ca)
        assert await asyncio.to_thread(probe.main, [f"grpcs://{target}", "--ca", str(service.ca)]) == 0
        assert not await probed(target, ca=device.ca)
        assert not await probed(target, ca=service.ca.with_name("gone"))
        assert not await asyncio.to_thread(probe.is_healthy, f"grpc://{target}")
    async with serving(service, device.ca) as target:
        assert await probed(target, ca=service.ca, cert=device.cert, cert_key=device.key)
        assert not await probed(target, ca=service.ca)
