from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket

import httpx
import pytest

from device_agent import server
from device_agent.config import AgentConfig
from device_agent.server import serve
from speculation.errors import CapacityError, ConfigurationError, InvalidRequestError
from tests.device_agent.doubles import DraftEngine, WatchedConnector, agent_of, config, request
from tests.support.addresses import has_ipv6


async def test_it_serves_on_a_free_port_and_closes_everything_behind_itself():
    connector = WatchedConnector()
    async with asyncio.timeout(30):
        async with serve(config(), agent=agent_of(connector)) as running:
            assert running.port > 0
            assert running.url == f"http://127.0.0.1:{running.port}"
        assert connector.is_closed
        with pytest.raises(httpx.ConnectError):
            await asyncio.to_thread(httpx.get, running.url)


async def test_an_address_that_is_taken_is_a_configuration_error():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="cannot listen"):
            async with serve(config(port=taken.getsockname()[1]), agent=agent_of(None)):
                pass


@pytest.mark.parametrize("path", ["/v1/stream", "/v1/completions", "/v1/tasks", "/tokenize"])
async def test_a_request_that_is_not_whole_is_refused_as_the_agent_stops_and_not_waited_for(path, monkeypatch, caplog):
    monkeypatch.setattr(server, "FLUSH_S", 600)
    async with asyncio.timeout(10):
        async with serve(config(), agent=agent_of(None)) as running:
            reader, writer = await asyncio.open_connection(running.host, running.port)
            head = f"POST {path} HTTP/1.1\r\nHost: {running.host}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n"
            writer.write(head.encode())
            await reader.readuntil(b"100 Continue\r\n\r\n")
            writer.write(b"{")
        answered, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
    assert answered.startswith(b"HTTP/1.1 503")
    assert json.loads(body)["error"]["message"] == "the agent is shutting down"
    assert not caplog.records


async def test_an_error_of_the_block_leaves_as_it_is():
    with pytest.raises(ZeroDivisionError):
        async with asyncio.timeout(30), serve(config(), agent=agent_of(None)):
            raise ZeroDivisionError


async def test_an_agent_that_was_not_entered_refuses_to_start():
    with pytest.raises(ConfigurationError, match="async with"):
        await agent_of(None).start(request())


async def test_requests_that_do_not_fit_the_context_are_refused_before_the_first_event():
    async with agent_of(None) as agent:
        for changes in ({"prompt": "a" * 256}, {"max_tokens": 247}, {"prompt": "a" * 70_000}):
            with pytest.raises(InvalidRequestError, match=r"at most|no room"):
                await agent.start(request(**changes))
        assert agent.num_streams == 0
        assert (await agent.start(request(max_tokens=246, mode="device"))) is not None


async def test_beyond_max_streams_there_is_no_room_and_then_there_is_again():
    async with asyncio.timeout(30), agent_of(None, DraftEngine(step_s=0.01), max_streams=2) as agent:
        streams = [await agent.start(request(mode="device")) for _ in range(2)]
        with pytest.raises(CapacityError) as caught:
            await agent.start(request())
        assert caught.value.retry_after_s == 1.0
        await streams[0].aclose()
        third = await agent.start(request(mode="device", max_tokens=1))
        while await third.take():
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_urls_name_the_address(host):
    from device_agent.server import RunningAgent

    agent = agent_of(None)
    assert RunningAgent(agent, host, 80).url in ("http://127.0.0.1:80", "http://[::1]:80")
    assert AgentConfig(host=host).host == host


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no loopback of IPv6")
async def test_an_address_of_ipv6_may_stand_in_brackets_as_in_a_url():
    async with asyncio.timeout(30), serve(config(host="[::1]"), agent=agent_of(None)) as running:
        assert running.url == f"http://[::1]:{running.port}"
        answer = await asyncio.to_thread(httpx.get, f"{running.url}/health")
    assert answer.status_code == 200


async def test_who_has_read_the_last_event_may_start_the_next_answer_at_once():
    async with asyncio.timeout(30), agent_of(None, DraftEngine(), max_streams=1) as agent:
        for _ in range(20):
            stream = await agent.start(request(mode="device", max_tokens=2))
            while await stream.take():
                pass


async def test_behind_the_first_signal_one_of_either_kind_ends_at_once(monkeypatch):
    handlers = []

    @contextlib.asynccontextmanager
    async def serving(_config):
        yield None
        handlers.extend(map(signal.getsignal, (signal.SIGTERM, signal.SIGINT)))

    monkeypatch.setattr(server, "serve", serving)
    async with asyncio.timeout(30):
        await server.run(config(), lambda _: signal.raise_signal(signal.SIGTERM))
    assert handlers == [signal.SIG_DFL, signal.default_int_handler]


def test_an_address_that_is_taken_is_told_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr("device_agent.server.build_agent", pytest.fail)

    async def start(port):
        async with serve(config(port=port)):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigurationError, match="cannot listen"):
        asyncio.run(start(taken.getsockname()[1]))
