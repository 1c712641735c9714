"""The HTTP server that services run: what it says, and what it does not."""

from __future__ import annotations

import asyncio
import logging
import socket

from speculation.http_server import HttpServer


async def logged_where_a_request_ends_by(failure, caplog):
    """What the log holds once a request is cut off by ``failure``."""
    entered: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    async def app(_scope, _receive, _send):
        entered.set_result(asyncio.current_task())
        if failure is not None:
            raise failure
        await asyncio.Event().wait()

    server = HttpServer(app, 1)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(server.serve(sockets=[listener]))
            while not server.started:  # noqa: ASYNC110 (uvicorn has no event for it)
                await asyncio.sleep(0)
            _, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
            (await entered).cancel()
            await asyncio.wait([entered.result()])
            writer.close()
            server.should_exit = True
            await serving
    return [record.message for record in caplog.records if record.name == "uvicorn.error"]


async def test_a_request_that_an_interrupt_cut_off_is_no_error_of_the_service(caplog):
    assert await logged_where_a_request_ends_by(None, caplog) == []


async def test_a_request_that_failed_is(caplog):
    assert "Exception in ASGI application" in "".join(await logged_where_a_request_ends_by(ZeroDivisionError(), caplog))


def test_neither_is_the_interrupt_itself_where_a_request_was_what_it_found(caplog):
    HttpServer(None, 1)
    for error in (KeyboardInterrupt(), ZeroDivisionError()):
        logging.getLogger("uvicorn.error").error("it ended", exc_info=error)
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
