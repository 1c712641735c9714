"""The proxy on real sockets: what arrives is what was sent, closes and resets are carried, memory is bounded."""

import asyncio
import dataclasses
import hashlib
import random
import socket
from contextlib import AsyncExitStack, suppress

import pytest

from outrider.proxy import service
from outrider.proxy.connection import WRITE_BUFFER_BYTES
from outrider.proxy.service import Address, parse_address
from outrider.proxy.serving import ProxySettings, run, serve
from speculation.errors import ConfigurationError
from speculation.shaping import exact_time
from speculation.shaping.lane import MAX_UNDER_WAY_BYTES
from speculation.shaping.toxics import toxic_from
from tests.outrider.proxy.ends import LOOPBACK, NONE, connected, echo, listening, proxied

MB = 1_000_000
NETWORK = dataclasses.replace(
    NONE,
    name="quick",
    uplink_rate_bytes_per_s=50e6,
    downlink_rate_bytes_per_s=50e6,
    uplink_delay_s=0.002,
    downlink_delay_s=0.002,
)
HARMLESS = [
    ("latency", {"latency": 3, "jitter": 2}),
    ("bandwidth", {"rate": 40_000}),
    ("slicer", {"average_size": 20_000, "size_variation": 5_000, "delay": 20}),
    ("slow_close", {"delay": 20}),
]


def toxic(kind, stream="downstream", toxicity=1.0, **attributes):
    name = f"{kind}_{stream}"
    return toxic_from({"name": name, "type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes})


async def exchanged(running, num_bytes, meanwhile=None):
    """Random bytes to an echo and back, both ways at once, while something else happens. Gives the digests of both ways."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    async with connected(running) as (reader, writer):

        async def send():
            draw = random.Random(1)
            for _ in range(num_bytes // 65536):
                piece = draw.randbytes(65536)
                sent.update(piece)
                writer.write(piece)
                await writer.drain()
            writer.write_eof()

        async def receive():
            while data := await reader.read(65536):
                received.update(data)

        async with asyncio.timeout(60):
            toggling = asyncio.create_task(meanwhile()) if meanwhile else None  # noqa: TID251
            await asyncio.gather(send(), receive())
            if toggling is not None:
                toggling.cancel()
    return sent.hexdigest(), received.hexdigest()


@pytest.mark.parametrize("network", [NONE, NETWORK], ids=lambda network: network.name)
async def test_every_byte_arrives_unchanged_and_in_order_while_toxics_come_and_go(network):
    async with proxied(network=network) as running:
        kinds = [toxic(kind, stream, **attributes) for kind, attributes in HARMLESS for stream in ("upstream", "downstream")]

        async def toggle():
            draw = random.Random(2)
            while True:
                running.proxy.set_toxics([t for t in kinds if draw.random() < 0.5])
                await asyncio.sleep(0.003)

        sent, received = await exchanged(running, 8 * MB, toggle)
    assert sent == received


@pytest.mark.parametrize(("kind", "attributes"), HARMLESS, ids=lambda part: part if isinstance(part, str) else "")
async def test_every_byte_passes_each_toxic_that_does_not_cut_by_design(kind, attributes):
    async with proxied() as running:
        running.proxy.set_toxics([toxic(kind, stream, **attributes) for stream in ("upstream", "downstream")])
        sent, received = await exchanged(running, 1 * MB)
    assert sent == received


async def test_a_half_close_is_carried_and_the_other_way_stays_open():
    async def answer_after_the_end(reader, writer):
        question = await reader.read()
        writer.write(question[::-1])
        await writer.drain()

    async with proxied(answer_after_the_end, NETWORK) as running, connected(running) as (reader, writer):
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read() == b"cba"


async def test_the_server_may_end_first():
    async def greet(reader, writer):
        writer.write(b"hello")
        writer.write_eof()
        assert await reader.read() == b"bye"

    async with proxied(greet) as running, connected(running) as (reader, writer):
        assert await reader.read() == b"hello"
        writer.write(b"bye")
        writer.write_eof()


async def test_a_reset_is_carried_behind_what_came_before_it():
    async def cut(reader, writer):
        writer.write(b"last words")
        await writer.drain()
        await reader.read(1)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    async with proxied(cut, NETWORK) as running, connected(running) as (reader, writer):
        assert await reader.readexactly(10) == b"last words"
        writer.write(b"!")
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def until_it_stops(writer):
    """Bytes that were taken before nothing more was for a while."""
    taken = 0
    while True:
        writer.write(bytes(100_000))
        try:
            async with asyncio.timeout(0.5):
                await writer.drain()
        except TimeoutError:
            return taken
        taken += 100_000


async def test_who_does_not_read_stops_who_sends_and_memory_stays_bounded():
    release = asyncio.Event()

    async def deaf(reader, writer):
        await release.wait()
        await reader.read()

    async with proxied(deaf, NETWORK) as running, connected(running) as (_, writer):
        taken = await until_it_stops(writer)
        (connection,) = running.proxy._connections
        held = connection.client.lane.num_bytes
        assert held <= MAX_UNDER_WAY_BYTES + 256 * 1024
        assert connection.server._transport.get_write_buffer_size() <= WRITE_BUFFER_BYTES + 256 * 1024
        assert taken < 256 * MB  # it is stopped by what kernels buffer, and by nothing of ours
        release.set()


async def test_an_upstream_that_is_not_there_closes_the_client_and_is_told(unused_tcp_port):
    told = []
    settings = ProxySettings(listen=LOOPBACK, upstream=Address("127.0.0.1", unused_tcp_port), network=NONE)
    async with serve(settings, told.append) as running, connected(running) as (reader, _):
        with pytest.raises(ConnectionResetError):
            await reader.read()
    assert told[0]["event"] == "unreachable"


async def test_what_was_carried_is_told_when_a_connection_ends():
    told = asyncio.Queue()
    async with proxied(tell=told.put_nowait) as running:
        await exchanged(running, 65536)
        opened, closed = await told.get(), await told.get()
    assert [event["event"] for event in (opened, closed)] == ["opened", "closed"]
    assert (closed["upstream_bytes"], closed["downstream_bytes"]) == (65536, 65536)


async def test_a_disabled_proxy_cuts_its_connections_and_an_enabled_one_takes_the_same_port():
    async with proxied() as running:
        address = running.proxy.listen
        async with connected(running) as (reader, writer):
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            running.proxy.disable()
            with pytest.raises(ConnectionError):
                await reader.readexactly(1)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(address.host, address.port)
        await running.proxy.enable()
        assert running.proxy.listen == address
        async with connected(running) as (reader, writer):
            writer.write(b"y")
            assert await reader.read(1) == b"y"


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")  # asyncio's, of one that it drops
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 4])
async def test_a_connection_that_comes_as_its_proxy_is_disabled_is_cut_too(turns):
    """The system has it already; how far the loop has come with it, by the turn."""
    async with proxied() as running:
        address = running.proxy.listen
        with socket.create_connection((address.host, address.port)) as client:
            client.setblocking(False)
            for _ in range(turns):
                await asyncio.sleep(0)
            running.proxy.disable()
            async with asyncio.timeout(5):
                with suppress(ConnectionResetError):
                    assert await asyncio.get_running_loop().sock_recv(client, 1) == b""
                while running.proxy._connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)


async def test_limit_data_lets_so_many_bytes_through_and_closes():
    async with proxied() as running, connected(running) as (reader, writer):
        running.proxy.set_toxics([toxic("limit_data", bytes=1000)])
        writer.write(bytes(600))
        assert len(await reader.readexactly(600)) == 600
        running.proxy.set_toxics([*running.proxy.toxics, toxic("latency", latency=1)])
        writer.write(bytes(600))
        assert len(await reader.read()) == 400


async def test_timeout_lets_nothing_through_and_closes_after_its_time():
    async with proxied() as running, connected(running) as (reader, writer):
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        running.proxy.set_toxics([toxic("timeout", timeout=30)])
        writer.write(b"y")
        assert await reader.read() == b""


async def test_reset_peer_resets():
    async with proxied() as running, connected(running) as (reader, writer):
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        running.proxy.set_toxics([toxic("reset_peer")])
        with pytest.raises(ConnectionResetError):
            await reader.read()


@pytest.mark.parametrize("kind", ["timeout", "reset_peer"])
async def test_a_connection_whose_client_reads_nothing_is_ended_in_its_time_too(kind):
    is_full, is_cut = asyncio.Event(), asyncio.Event()

    async def flood(reader, writer):
        try:
            await until_it_stops(writer)
            is_full.set()
            await reader.read()
        finally:
            is_cut.set()

    async with proxied(flood) as running, connected(running):
        await is_full.wait()
        running.proxy.set_toxics([toxic(kind, timeout=1)])
        async with asyncio.timeout(5):
            await is_cut.wait()


async def test_toxicity_is_the_share_of_connections_that_get_it():
    async with proxied() as running:
        running.proxy.set_toxics([toxic("timeout", toxicity=0.5, timeout=1)])
        answers = []
        for _ in range(40):
            async with connected(running) as (reader, writer):
                writer.write(b"x")
                with suppress(ConnectionResetError):
                    answers.append(await reader.read(1))
        assert 8 < sum(answer == b"x" for answer in answers) < 32


async def test_a_connection_too_many_is_closed_at_once_and_the_others_go_on(monkeypatch):
    monkeypatch.setattr(service, "MAX_CONNECTIONS", 1)
    async with proxied() as running, connected(running) as (reader, writer):
        writer.write(b"x")
        assert await reader.read(1) == b"x"
        async with connected(running) as (other, _):
            with pytest.raises(ConnectionResetError):
                await other.read()
        writer.write(b"y")
        assert await reader.read(1) == b"y"


async def test_of_connections_that_come_together_as_many_are_taken_as_there_is_room_for(monkeypatch):
    monkeypatch.setattr(service, "MAX_CONNECTIONS", 5)
    async with proxied() as running, AsyncExitStack() as stack:
        ends = [await stack.enter_async_context(connected(running)) for _ in range(3)]
        ends += await asyncio.gather(*[stack.enter_async_context(connected(running)) for _ in range(4)])
        answers = []
        for reader, writer in ends:
            with suppress(ConnectionError):
                writer.write(b"x")
                answers.append(await reader.read(1))
    assert answers == [b"x"] * 5


@pytest.mark.parametrize("spared", [0, 1, 2])
async def test_a_proxy_whose_events_nobody_takes_any_more_ends_with_that_error_alone(spared):
    told, address = [], asyncio.get_running_loop().create_future()

    def tell(event):
        if not told:
            address.set_result(parse_address(event["listen"], "listen"))
        told.append(event["event"])
        if len(told) > spared:
            raise BrokenPipeError

    async def knock(address):
        at = await address
        with suppress(ConnectionError):
            _, writer = await asyncio.open_connection(at.host, at.port)
            writer.close()

    async with listening(echo) as upstream:
        settings = ProxySettings(listen=LOOPBACK, upstream=upstream, network=NONE)
        with pytest.raises(BrokenPipeError):
            async with asyncio.timeout(20):
                await asyncio.gather(run(settings, tell), knock(address))
    assert told == ["listening", "opened", "closed"][: spared + 1]


async def test_an_address_that_others_reach_needs_to_be_wanted():
    with pytest.raises(ConfigurationError, match="set insecure"):
        ProxySettings(listen=Address("0.0.0.0", 0), upstream=LOOPBACK, network=NONE)
    with pytest.raises(ConfigurationError, match="set insecure"):
        ProxySettings(listen=LOOPBACK, upstream=LOOPBACK, network=NONE, control=Address("0.0.0.0", 0))


async def test_an_address_that_is_taken_is_refused():
    async with listening(echo) as taken:
        with pytest.raises(ConfigurationError, match="cannot listen on"):
            async with serve(ProxySettings(listen=taken, upstream=taken, network=NONE), print):
                raise AssertionError


def test_the_loop_of_the_command_is_an_event_loop_like_any():
    async def nap():
        await asyncio.sleep(0.001)
        return await asyncio.to_thread(lambda: "done")

    with asyncio.Runner(loop_factory=exact_time.loop) as runner:
        assert runner.run(nap()) == "done"


@pytest.mark.parametrize(
    ("text", "address"), [("127.0.0.1:80", ("127.0.0.1", 80)), ("[::1]:0", ("::1", 0)), ("db:5432", ("db", 5432))]
)
def test_an_address_is_a_host_and_a_port(text, address):
    assert parse_address(text, "listen") == Address(*address)
    assert parse_address(str(Address(*address)), "listen") == Address(*address)


@pytest.mark.parametrize("text", ["", "80", ":80", "a:", "a:b", "a:65536", "a:-1", "a..b:1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigurationError, match="listen must be host:port"):
        parse_address(text, "listen")


async def test_a_proxy_that_is_disabled_while_it_is_being_enabled_stays_disabled():
    async with proxied() as running, asyncio.TaskGroup() as group:
        proxy = running.proxy
        proxy.disable()
        enabling = group.create_task(proxy.enable())
        await asyncio.sleep(0)
        proxy.disable()
        await enabling
        assert not proxy.is_enabled
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(proxy.listen.host, proxy.listen.port)
