"""The client against a small real HTTP server on a free port that answers as an agent would."""

import asyncio
import sys
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace

import pytest

from device_agent.events import error_object
from device_agent.formats import SSE
from outrider.client import Client, FinalLikelihood, Likelihood
from speculation.errors import (
    STATUS,
    AuthenticationError,
    CapacityError,
    ConfigurationError,
    EngineError,
    InvalidRequestError,
    LinkError,
    MalformedMessageError,
    UnknownNameError,
)
from tests.outrider.answers import EVENTS, agent_that_answers, message, refusal, stream_of


async def received(response, prompt="The", **options):
    async with agent_that_answers(response) as (url, _), Client(url) as client:
        return [event async for event in client.stream(prompt, **options)]


async def test_every_event_arrives_as_it_was_sent():
    assert await received(stream_of(*EVENTS)) == EVENTS


async def test_a_whole_answer_is_its_last_event():
    async with agent_that_answers(stream_of(*EVENTS)) as (url, bodies), Client(url) as client:
        assert await client.generate("The", max_tokens=3) == EVENTS[-1]
    assert bodies == [{"prompt": "The", "max_tokens": 3}]
    async with agent_that_answers(stream_of(*EVENTS[:-1])) as (url, _), Client(url) as client:
        with pytest.raises(LinkError):
            await client.generate("The")


@pytest.mark.parametrize(("variable", "proxy"), [("http_proxy", "http://127.0.0.1:1"), ("ALL_PROXY", "socks5://127.0.0.1:1")])
async def test_an_agent_on_this_machine_is_asked_without_a_proxy(variable, proxy, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, proxy)
    async with agent_that_answers(stream_of(*EVENTS)) as (url, _):
        for named in (url, url.replace("127.0.0.1", "localhost")):
            async with Client(named) as client:
                assert await client.generate("The") == EVENTS[-1]


async def test_an_agent_elsewhere_is_asked_through_the_proxy_of_this_machine(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with agent_that_answers(stream_of(*EVENTS)) as (url, _):
        monkeypatch.setenv("http_proxy", url)
        async with Client("http://phone.invalid:8080") as client:
            assert await client.generate("The") == EVENTS[-1]


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "nonsense://127.0.0.1:1", "http://[::1"])
def test_a_proxy_that_cannot_be_used_is_named_in_the_refusal(proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)  # as where it is not installed
    with pytest.raises(ConfigurationError, match="the proxy that the environment names cannot be used"):
        Client("http://phone.invalid:8080")


@pytest.mark.parametrize(("holds", "why"), [(None, "No such file"), ("nothing", "no certificate")])
def test_authorities_of_the_environment_that_cannot_be_read_are_named_in_the_refusal(holds, why, monkeypatch, tmp_path):
    if holds is not None:
        (tmp_path / "ca.pem").write_text(holds)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigurationError, match=f"authorities that the environment names.*{why}.*mend SSL_CERT_FILE"):
        Client("https://phone.invalid:8080")


async def test_what_an_answer_does_is_asked_of_its_own_path_and_told_as_the_agent_tells_it():
    told = b'HTTP/1.1 200 OK\r\ncontent-length: 18\r\nconnection: close\r\n\r\n{"state":"paused"}'
    async with agent_that_answers(told) as (url, _), Client(url) as client:
        assert [await verb("a/b") for verb in (client.pause, client.unpause, client.cancel)] == ["paused"] * 3
    async with agent_that_answers(told.replace(b"state", b"start")) as (url, _), Client(url) as client:
        with pytest.raises(MalformedMessageError, match="what the answer does"):
            await client.pause("s")
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(LinkError, match="start one with"):
            await client.cancel("s")


async def test_an_answer_can_be_cancelled_however_many_are_read():
    async def answer(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        told = b'HTTP/1.1 200 OK\r\ncontent-length: 17\r\nconnection: close\r\n\r\n{"state":"ended"}'
        writer.write(told if head.startswith(b"DELETE") else stream_of(EVENTS[0]))
        await reader.read()
        writer.close()
        left.append(True)

    left: list[bool] = []
    async with asyncio.timeout(30), await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        async with AsyncExitStack() as read:
            client = Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
            read.push_async_callback(client.aclose)
            for _ in range(101):
                events = await read.enter_async_context(aclosing(client.stream("The")))
                assert await anext(events) == EVENTS[0]
            assert await client.cancel("s") == "ended"
        while len(left) < 102:  # noqa: ASYNC110 (so that no connection is left at the test's end)
            await asyncio.sleep(0.01)


async def test_log_probabilities_arrive_as_values():
    likeliest = (Likelihood(8, " cat", -0.25), Likelihood(7, " ox", -1.5))
    told = FinalLikelihood(7, " ox", -1.5, top=likeliest), FinalLikelihood(8, " cat", -0.25, top=())
    events = [
        replace(event, logprobs=told[: event.commit_offset.tokens - 1]) if hasattr(event, "logprobs") else event
        for event in EVENTS
    ]
    assert await received(stream_of(*events), logprobs=2) == events


async def test_the_request_holds_what_was_asked_and_nothing_else():
    async with agent_that_answers(stream_of(*EVENTS)) as (url, bodies), Client(url) as client:
        async for _ in client.stream("The", max_tokens=3, stop=["\n"]):
            pass
    assert bodies == [{"prompt": "The", "max_tokens": 3, "stop": ["\n"]}]


@pytest.mark.parametrize("key", [None, "sesame-sesame"])
async def test_the_key_goes_with_every_request_and_without_one_none_does(key):
    heads = []

    async def answer(reader, writer):
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(refusal(401, error_object(AuthenticationError("this agent wants a key"))))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(url, key=key) as client:
        for work in (anext(client.stream("The")), anext(client.resume("s", 3)), client.health()):
            with pytest.raises(AuthenticationError, match="wants a key"):
                await work
    sent = [b"authorization: Bearer sesame-sesame" in head for head in heads]
    assert sent == [key is not None] * 3


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "ß"])
def test_a_key_that_is_none_is_refused_and_not_shown(key):
    with pytest.raises(InvalidRequestError, match=r"^a key is one word of plain characters$"):
        Client(key=key)


async def test_a_conversation_is_sent_as_messages():
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "The"}]
    async with agent_that_answers(stream_of(*EVENTS)) as (url, bodies), Client(url) as client:
        async for _ in client.stream(messages, max_tokens=3):
            pass
    assert bodies == [{"messages": messages, "max_tokens": 3}]


async def test_events_and_fields_of_a_newer_agent_are_ignored():
    newer = EVENTS[-1].to_json() | {"energy_j": 3}
    response = stream_of(*EVENTS[:-1]) + message("weather", {"seq": 7}) + message("done", newer)
    assert await received(response) == EVENTS


async def test_silence_behind_an_event_is_not_read_as_one():
    told = b"".join(SSE.encode(event).encode() + SSE.keep_alive * 2 for event in EVENTS)
    assert await received(stream_of() + told) == EVENTS


async def test_a_stream_without_an_end_is_a_lost_link():
    with pytest.raises(LinkError, match="before the answer was done"):
        await received(stream_of(*EVENTS[:3]))


async def test_an_error_event_ends_the_stream_with_its_leaf_of_the_tree():
    error = message("error", {"event": "error", "seq": 3, "error": error_object(EngineError("out of memory"))})
    with pytest.raises(EngineError, match="out of memory"):
        await received(stream_of(*EVENTS[:3]) + error)


async def test_a_refused_request_names_the_parameter_at_fault():
    error = error_object(InvalidRequestError("max_tokens must be at least 1, not 0", "max_tokens"))
    with pytest.raises(InvalidRequestError, match="at least 1") as caught:
        await received(refusal(400, error))
    assert caught.value.parameter == "max_tokens"


async def test_a_refusal_that_is_no_leaf_of_the_tree_is_the_requests_fault():
    error = {
        "message": "the body is over the limit",
        "type": "invalid_request_error",
        "param": None,
        "code": "content_too_large",
    }
    with pytest.raises(InvalidRequestError, match="over the limit"):
        await received(refusal(413, error))


async def test_a_full_agent_says_when_to_come_back():
    with pytest.raises(CapacityError) as caught:
        await received(refusal(429, error_object(CapacityError("busy")), "retry-after: 2\r\n"))
    assert caught.value.retry_after_s == 2


@pytest.mark.parametrize("leaf", STATUS, ids=lambda leaf: leaf.__name__)
async def test_every_leaf_of_the_tree_comes_back_as_itself(leaf):
    error = UnknownNameError("phone", "x", ["y"]) if leaf is UnknownNameError else leaf("why")
    expected = InvalidRequestError if isinstance(error, InvalidRequestError) else leaf
    with pytest.raises(expected) as caught:
        await received(refusal(STATUS[leaf].http, error_object(error)))
    assert str(caught.value) == str(error)


async def test_what_no_agent_would_answer_is_told_with_its_status():
    with pytest.raises(EngineError, match="status 502"):
        await received(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 5\r\n\r\noops!")


@pytest.mark.parametrize("error", ["not found", None, [], 4])
async def test_an_error_that_is_no_object_is_an_error_of_the_tree(error):
    with pytest.raises(EngineError, match="status 404"):
        await received(refusal(404, error, "retry-after: ²\r\n"))
    with pytest.raises(EngineError, match="the agent failed"):
        await received(stream_of(EVENTS[0]) + message("error", {"event": "error", "seq": 1, "error": error}))


async def test_a_damaged_event_is_malformed():
    for damaged in (b"{", b"[" * 10_000):
        with pytest.raises(MalformedMessageError, match="no JSON"):
            await received(stream_of(EVENTS[0]) + b"event: commit\ndata: " + damaged + b"\n\n")
    with pytest.raises(MalformedMessageError, match="lacks a field"):
        await received(stream_of(EVENTS[0]) + message("commit", {"seq": 1}))


async def test_nobody_there_is_a_lost_link_that_says_what_to_start():
    async with agent_that_answers(b"") as (url, _):
        pass
    async with Client(url) as client:
        with pytest.raises(LinkError, match="start one with: outrider agent"):
            await client.health()
        with pytest.raises(LinkError, match="start one with: outrider agent"):
            await anext(client.stream("The"))


async def test_a_page_that_is_no_stream_is_told_apart():
    page = b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\nhi!\n"
    with pytest.raises(LinkError, match="text/event-stream"):
        await received(page)


async def test_what_is_no_text_and_no_json_is_refused_as_an_error_of_the_tree():
    async with agent_that_answers(stream_of(*EVENTS)) as (url, bodies), Client(url) as client:
        assert await client.generate("half a pair: \ud83d") == EVENTS[-1]  # which an agent refuses
        assert bodies == [{"prompt": "half a pair: \ud83d"}]
        for odd in ({"temperature": float("nan")}, {"stop": {"a"}}, {"seed": 10**5000}):
            with pytest.raises(InvalidRequestError, match="cannot be sent as JSON"):
                await client.generate("The", **odd)
            with pytest.raises(InvalidRequestError, match="cannot be sent as JSON"):
                await anext(client.tasks(odd))
    assert len(bodies) == 1


@pytest.mark.parametrize("prompt", [None, 7, ["The"], [("role",)]])
async def test_a_prompt_that_is_none_is_told_what_one_is(prompt):
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequestError, match="a text, or a conversation"):
            await client.generate(prompt)


async def test_an_answer_without_a_name_is_no_answer():
    async with Client("http://127.0.0.1:1") as client:
        with pytest.raises(InvalidRequestError, match="session_id"):
            await anext(client.resume(""))
        with pytest.raises(InvalidRequestError, match="session_id"):
            await client.pause("")


@pytest.mark.parametrize("url", ["http://x:65536", "http://x:port", "ftp://x", "nonsense", "http://", ""])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(InvalidRequestError, match="is no URL of an agent"):
        Client(url)


async def test_leaving_a_stream_early_closes_the_connection():
    is_gone = asyncio.Event()

    async def never_done(reader, writer):
        await reader.readuntil(b"}")
        writer.write(stream_of(EVENTS[0]))
        await reader.read()
        is_gone.set()
        writer.close()

    server = await asyncio.start_server(never_done, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, Client(url) as client:
        async with aclosing(client.stream("The")) as events:
            assert await anext(events) == EVENTS[0]
        await is_gone.wait()


async def test_an_agent_in_plain_text_is_asked_without_a_look_at_any_certificate(monkeypatch):
    """It would take tens of milliseconds of the caller's event loop."""
    monkeypatch.setattr("ssl.SSLContext.load_verify_locations", pytest.fail)
    async with Client("http://127.0.0.1:1"):
        pass
