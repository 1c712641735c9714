"""What leaves the machine: nothing but what goes to the verifier that was named, and in mode ``device`` not even that."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from contextlib import asynccontextmanager

import httpx
import pytest

import cloud_verifier.server
from cloud_verifier.engine import FullModel
from device_agent.agent import DeviceAgent
from device_agent.server import serve
from speculation.engines.runner import EngineRunner
from speculation.engines.self_test import SelfTest
from speculation.links.grpc import GrpcConnector
from tests.cloud_verifier.doubles import settings
from tests.device_agent.doubles import IDENTITY, DraftEngine, FullEngine, config, facts
from tests.outrider.proxy.ends import listening
from tests.support.code_blocks import ROOT

ALONE = ("unshare", "--map-root-user", "--net", "--mount")


def tried(home, *command):
    """How often anything of a command tried to reach another machine, and what it printed; a network of its own is needed.

    The environment is empty but for ``home``: what says that this is CI keeps some programs from telling.
    """
    covering = [*ALONE, "mount", "--bind", "/etc/resolv.conf", "/etc/resolv.conf"]
    if shutil.which("unshare") is None or subprocess.run(covering, capture_output=True, check=False).returncode:
        pytest.skip(f"no network of its own can be made here ({' '.join(ALONE)})")
    here = [*ALONE, sys.executable, "-m", "tests.support.no_way_out", *command]
    clean = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(home)}
    done = subprocess.run(here, cwd=ROOT, env=clean, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    *printed, count = done.stdout.splitlines()
    return int(count), "\n".join(printed)


@pytest.mark.slow
def test_a_whole_demo_tries_to_reach_no_other_machine_and_leaves_nothing_at_home(tmp_path):
    """Both services, gRPC, ONNX Runtime and all that they load: counted by the kernel, so whatever does it. Who sends later,
    or from another run, has to keep something until then."""
    count, printed = tried(tmp_path, sys.executable, "-m", "outrider", "demo", "--prompt", "1", "--max-tokens", "4")
    assert "Same text: all 4 collaborative tokens equal those of the cloud alone." in printed
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == []
    assert count == 0


@pytest.mark.parametrize(
    "call",
    [
        "socket.socket().connect(('192.0.2.1', 443))",
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
        "socket.getaddrinfo('telemetry.example', 443)",
    ],
)
def test_a_connection_a_datagram_and_a_name_that_is_looked_up_are_counted(call, tmp_path):
    """The count can be something else than nothing."""
    count, _ = tried(tmp_path, sys.executable, "-c", f"import contextlib, socket\nwith contextlib.suppress(OSError): {call}")
    assert count > 0


@asynccontextmanager
async def agent_whose_line_is_heard():
    """An agent's URL, and all that it sends to the verifier's port, in plain text."""
    heard = []
    full = FullModel(FullEngine(), IDENTITY, SelfTest(True, "f" * 16, 0.0, ()))
    async with cloud_verifier.server.serve(settings(), full_model=full) as verifier, asyncio.timeout(60):

        async def relay(reader, writer):
            try:
                back, forth = await asyncio.open_connection(*verifier.target.split(":"))
            except BaseException:
                writer.close()
                raise
            with contextlib.suppress(ConnectionError):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(copy(reader, forth, heard.append))
                    tasks.create_task(copy(back, writer, lambda data: None))

        async with listening(relay) as address:
            agent = DeviceAgent(facts(), EngineRunner(DraftEngine()), GrpcConnector(str(address)), config())
            async with serve(config(), agent=agent) as running:
                yield running.url, heard


async def copy(reader, writer, tell):
    tell(b"")
    try:
        while data := await reader.read(65536):
            tell(data)
            writer.write(data)
    finally:
        writer.close()


async def last_of(url, **request):
    async with httpx.AsyncClient(timeout=30) as client:
        answer = await client.post(f"{url}/v1/stream", json=request, headers={"accept": "application/x-ndjson"})
    return json.loads(answer.text.splitlines()[-1])


async def test_in_mode_device_the_verifiers_port_is_not_even_connected_to():
    async with agent_whose_line_is_heard() as (url, heard):
        done = await last_of(url, prompt="the prompt", mode="device", max_tokens=20)
        assert heard == []
    assert (done["event"], len(done["token_ids"]), done["verified_count"]) == ("done", 20, 0)


async def test_else_tokens_are_sent_to_it_and_no_text_and_no_stop_string():
    async with agent_whose_line_is_heard() as (url, heard):
        done = await last_of(url, prompt="the prompt", mode="collaborate", max_tokens=5, stop=["never this"])
        sent = b"".join(heard)
    assert done["verified_count"] == 5
    assert bytes(done["prompt_token_ids"]) in sent
    assert [text for text in (b"the prompt", b"never this") if text in sent] == []
