"""Requests to a server that drips, breaks off or goes away, and what ends with the engine."""

import gc
import socket
import ssl
import threading

import httpx
import pytest
from fastapi import Response

from speculation.engines import remote, remote_http
from speculation.engines.remote_http import JsonServer
from speculation.errors import EngineError
from tests.speculation.engines.remote.scene import (
    VOCABULARY,
    connected,
    rows_of,
)
from tests.support.certificates import made
from tests.support.served_model import serving


def test_an_answer_that_does_not_come_is_given_up(served, url, route):
    engine, release = connected(url, route, timeout_s=0.2), threading.Event()
    served.meddle = lambda path, answer: release.wait(10) and answer
    try:
        with pytest.raises(EngineError, match=r"did not answer within 0.2 s"):
            rows_of(engine, [1, 2])
    finally:
        release.set()


def test_an_answer_without_end_is_given_up(served, engine, monkeypatch):
    monkeypatch.setattr(remote_http, "ERROR_LIMIT_BYTES", 100)
    served.meddle = lambda path, answer: Response(b" " * 3_000_000)
    with pytest.raises(EngineError, match=r"more than the \d+ bytes that are read"):
        rows_of(engine, [1, 2], 1)
    served.meddle = lambda path, answer: Response(b" " * 101, 500)
    with pytest.raises(EngineError, match="more than the 100 bytes"):
        rows_of(engine, [1, 2], 1)


def test_an_answer_that_drips_is_given_up():
    times_s = iter([0.0, 0.5, 1.5])
    answer = httpx.Response(200, content=iter([b"[", b"1", b"]"]))
    http = with_transport(lambda request: answer, timeout_s=1.0, clock=lambda: next(times_s))
    with pytest.raises(EngineError, match="did not answer within 1 s"):
        http.get("/v1/models", 100)
    http.close()


def with_transport(handler, timeout_s=10.0, **clock):
    http = JsonServer("http://model", None, timeout_s, 1, **clock)
    http.close()
    http._client = httpx.Client(transport=httpx.MockTransport(handler))
    return http


@pytest.mark.parametrize("error", remote_http.BROKEN)
@pytest.mark.parametrize("num_broken", [1, 2])
def test_a_broken_connection_is_tried_once_more_and_no_more(error, num_broken):
    """A server closes connections that it has kept for long, perhaps just as one is used again."""
    calls = []

    def handler(request):
        calls.append(request.url.path)
        if len(calls) <= num_broken:
            raise error("gone")
        return httpx.Response(200, content=iter([b'["fine"]']))

    http = with_transport(handler)
    if num_broken == 1:
        assert http.get("/v1/models", 100) == ["fine"]
    else:
        with pytest.raises(EngineError, match=r"^/v1/models cannot be reached: gone"):
            http.get("/v1/models", 100)
    assert len(calls) == 2
    http.close()


def test_a_server_that_goes_away_is_an_engine_error(served, route):
    with serving(served) as url:
        engine = connected(url, route)
    with pytest.raises(EngineError, match="cannot be reached"):
        rows_of(engine, [1, 2])


def test_a_proxy_named_in_the_environment_is_not_used(url, route, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert rows_of(connected(url, route), [1, 2]).shape == (2, VOCABULARY)


def test_connections_and_threads_end_with_the_engine(url, route, monkeypatch):
    ended = []
    monkeypatch.setattr(remote, "_end", lambda pool, http: ended.append((pool.shutdown(), http.close())))
    engine = connected(url, route)
    rows_of(engine, [1, 2])
    del engine
    gc.collect()
    assert len(ended) == 1


def test_certificates_are_verified_where_there_are_some_and_read_nowhere_else(tmp_path, monkeypatch):
    files = made(tmp_path, "nobody knows")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as secured:
        thread = threading.Thread(target=hung_up_on, args=(secured, remote_http.ATTEMPTS))
        thread.start()
        http = JsonServer(f"https://127.0.0.1:{secured.getsockname()[1]}", None, 10.0, 1)
        with pytest.raises(EngineError, match="CERTIFICATE_VERIFY_FAILED"):
            http.get("/v1/models", 100)
        http.close()
        thread.join()
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", pytest.fail)
    JsonServer("http://127.0.0.1:1", None, 10.0, 1).close()


def hung_up_on(secured, num_calls):
    for _ in range(num_calls):
        with pytest.raises(ssl.SSLError):
            secured.accept()
