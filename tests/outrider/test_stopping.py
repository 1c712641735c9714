"""Services that stop on a signal: behind the first one, a signal of either kind ends them at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from types import SimpleNamespace

from outrider.pool import running
from outrider.proxy import serving


def recording(served, handlers):
    """Stands in for what a service serves by; on its way out it notes what signals do now."""

    @contextlib.asynccontextmanager
    async def serve(*_settings):
        yield served
        handlers.extend(map(signal.getsignal, (signal.SIGTERM, signal.SIGINT)))

    return serve


def stop(_told):
    signal.raise_signal(signal.SIGTERM)


async def test_the_head_of_a_pool_and_a_proxy_end_at_once_on_the_second_signal_whichever_it_is(monkeypatch):
    handlers = []
    listening = SimpleNamespace(proxy=SimpleNamespace(to_json=dict), control=None)
    monkeypatch.setattr(running, "serve", recording(("http://127.0.0.1:1/v1/verifiers", None), handlers))
    monkeypatch.setattr(serving, "serve", recording(listening, handlers))
    async with asyncio.timeout(30):
        await running.run(None, stop)
        await serving.run(SimpleNamespace(seed=0), stop)
    assert handlers == [signal.SIG_DFL, signal.default_int_handler] * 2
